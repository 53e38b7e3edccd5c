"""The pictures of the page, each read only when the page needs it, and the data that the script needs."""

from collections.abc import Iterator, Sequence

from ...manifests.classes import IGNORE
from ...manifests.errors import MaskmillError
from ...manifests.files.sealed import Json
from .artifact_rows import ReportRow, measures_of
from .figures import Figures
from .layers import Layers
from .thumbnails import hex_colour

_LISTED = 10  # faults of pictures printed on the terminal; the page shows all of them


class Gallery:
    """Iterate once; its counts are complete after that."""

    def __init__(self, figures: Figures, images_root: str) -> None:
        self.shown = self.without_picture = 0
        self.faults: list[str] = []
        self._figures = figures
        self._rows: Sequence[ReportRow] = figures.sample.rows if figures.sample else ()
        self._measures = measures_of(figures.head.plan.kind) if figures.head else ()
        self._layers = self._open_layers(images_root)

    def __iter__(self) -> Iterator[dict[str, Json]]:
        for row in self._rows if self._layers else ():
            yield self._row_json(row)

    @property
    def changes(self) -> list[dict[str, Json]]:
        """Each stage that changes masks or maps, with the layers before and after it, and the soft map before it, which
        is shown if nothing changed."""
        return [
            {"stage": stage, "before": before.key, "after": after.key, "soft": soft.key}
            for stage, before, after, soft in (self._layers.changes if self._layers else ())
        ]

    @property
    def facts(self) -> dict[str, Json]:
        """The JSON for the script. Pictures are numbered in the order in which they are shown."""
        place_of = {row.id: place for place, row in enumerate(self._rows)}
        labels = sorted({label for row in self._rows for label in row.classes})
        names = {**self._figures.classes, IGNORE: "undecided"}
        sample = self._figures.sample
        return {
            "layers": [
                {"key": layer.key, "name": layer.name, "kind": layer.kind}
                for layer in (self._layers.layers if self._layers else ())
            ],
            "changes": self.changes,
            "classes": [
                {"label": label, "name": names.get(label, str(label)), "colour": hex_colour(label)}
                for label in (*labels, IGNORE)
            ],
            "worst": [place_of[identifier] for identifier in sample.worst] if sample and self._layers else [],
            "best": [place_of[identifier] for identifier in sample.best] if sample and self._layers else [],
            "rankedBy": self._figures.ranked_by or "",
            "measures": list(self._measures),
        }

    def _open_layers(self, images_root: str) -> Layers | None:
        head = self._figures.head
        if head is None:
            return None
        artifacts = [step.artifact for step in self._figures.steps if step.artifact is not None]
        try:
            return Layers(head, artifacts, self._rows, images_root)
        except MaskmillError as error:
            self.faults.append(f"The pictures of {head.place} cannot be shown: {error}")
            return None

    def _row_json(self, row: ReportRow) -> dict[str, Json]:
        assert self._layers is not None
        shown = self._layers.of(row)
        self.shown += 1
        self.without_picture += not shown.picture
        self.faults += [fault for fault in shown.faults if fault not in self.faults][
            : max(0, _LISTED - len(self.faults))
        ]
        return {
            "id": row.id,
            "status": row.status,
            "why": row.why,
            "classes": row.classes,
            "sources": sorted({one.source for one in row.objects if one.source}),
            "measures": {name: round(value, 4) for name in self._measures if (value := row.measure(name)) is not None},
            "height": shown.size[0],
            "width": shown.size[1],
            "picture": shown.picture,
            "missing": shown.why_not,
            "layers": shown.layers,
            "faults": shown.faults,
        }
