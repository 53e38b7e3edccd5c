"""The pictures of the page, each read when the page comes to it, and what its script needs to know of them together."""

from collections.abc import Iterator, Sequence

from ...manifests.classes import IGNORE
from ...manifests.errors import MaskmillError
from ...manifests.files.sealed import Json
from .artifact_rows import ReportRow, measures_of
from .figures import Figures
from .layers import Layers
from .thumbnails import hex_colour

_TOLD = 10  # faults of single pictures that are said on the terminal; in the page each has its own


class Gallery:
    """Iterated once; what it has counted is known after that."""

    def __init__(self, found: Figures, images_root: str) -> None:
        self.shown = self.without_picture = 0
        self.faults: list[str] = []
        self._found = found
        self._rows: Sequence[ReportRow] = found.sample.rows if found.sample else ()
        self._measures = measures_of(found.head.plan.kind) if found.head else ()
        self._layers = self._open_layers(images_root)

    def __iter__(self) -> Iterator[dict[str, Json]]:
        for row in self._rows if self._layers else ():
            yield self._row_json(row)

    @property
    def changes(self) -> list[dict[str, Json]]:
        """Each stage that changes what was there, with the layers before and after it; and the soft map, for one that
        changed nothing."""
        return [
            {"stage": stage, "before": before.key, "after": after.key, "soft": soft.key}
            for stage, before, after, soft in (self._layers.changes if self._layers else ())
        ]

    @property
    def facts(self) -> dict[str, Json]:
        """Pictures are called by their place among those that are shown."""
        place_of = {row.id: place for place, row in enumerate(self._rows)}
        labels = sorted({label for row in self._rows for label in row.classes})
        names = {**self._found.classes, IGNORE: "undecided"}
        sample = self._found.sample
        return {
            "layers": [
                {"key": each.key, "name": each.name, "kind": each.kind}
                for each in (self._layers.layers if self._layers else ())
            ],
            "changes": self.changes,
            "classes": [
                {"label": label, "name": names.get(label, str(label)), "colour": hex_colour(label)}
                for label in (*labels, IGNORE)
            ],
            "worst": [place_of[each] for each in sample.worst] if sample and self._layers else [],
            "best": [place_of[each] for each in sample.best] if sample and self._layers else [],
            "rankedBy": self._found.ranked_by or "",
            "measures": list(self._measures),
        }

    def _open_layers(self, images_root: str) -> Layers | None:
        head = self._found.head
        if head is None:
            return None
        artifacts = [step.artifact for step in self._found.steps if step.artifact is not None]
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
        self.faults += [each for each in shown.faults if each not in self.faults][: max(0, _TOLD - len(self.faults))]
        return {
            "id": row.id,
            "status": row.status,
            "why": row.why,
            "classes": row.classes,
            "sources": sorted({each.source for each in row.objects if each.source}),
            "measures": {name: round(v, 4) for name in self._measures if (v := row.measure(name)) is not None},
            "height": shown.size[0],
            "width": shown.size[1],
            "picture": shown.picture,
            "missing": shown.why_not,
            "layers": shown.layers,
            "faults": shown.faults,
        }
