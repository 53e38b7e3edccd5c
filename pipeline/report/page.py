"""The page: figures through the template, then the pictures one by one as they are read, so that memory is bounded."""

import base64
import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import jinja2

from ... import __version__
from ...manifests import atomic
from ...manifests.classes import IGNORE
from ...manifests.errors import ConfigError, MaskmillError
from ...manifests.place import Place, place, split
from ...manifests.plan import PLAN
from ...manifests.sealed import Json
from .figures import Figures, figures
from .layers import Layers
from .rows import MEANINGS, Row, measures_of
from .scores import MEASURES, is_floor
from .thumbnails import hex_colour

MARK = "<!-- made by maskmill report -->"  # the second line: what may be written over
_MARK_WITHIN = 200
_TOLD = 10  # faults of single pictures that are said on the terminal; in the page each has its own
_AT_ONCE = 16  # pieces of the page that are put together before they are written


@dataclass(frozen=True, slots=True)
class Written:
    """What was made, for the line that says so."""

    at: str
    pictures: int
    shown: int
    without_picture: int
    bytes: int
    seconds: float
    remarks: Sequence[str]


def write_report(uris: Sequence[str], out: str, count: int, images_root: str = "") -> Written:
    """Writes the page about work folders or artifacts; at most `count` pictures are shown."""
    began = time.monotonic()
    folder, name = _target(out)
    found = figures(uris, count)
    pictures = _Pictures(found, images_root)
    with atomic.replacing(folder, name) as stream:
        page = _template().stream(**_context(uris, found, pictures))
        page.enable_buffering(_AT_ONCE)
        for piece in page:
            stream.write(piece.encode())
    return Written(
        at=folder.path(name),
        pictures=found.survey.pictures if found.survey else 0,
        shown=pictures.shown,
        without_picture=pictures.without_picture,
        bytes=stream.size,
        seconds=time.monotonic() - began,
        remarks=[*found.remarks, *pictures.faults],
    )


def _target(out: str) -> tuple[Place, str]:
    """Refuses, before any work, what is not to be written over."""
    folder, name = split(out)
    if folder.exists(PLAN):
        raise ConfigError(f"{folder} is an artifact, which holds nothing but its own files; choose another --out")
    if folder.is_local and next(Place(folder.path(name)).names(), None) is not None:
        raise ConfigError(f"{folder.path(name)} is a folder; name a file in it as --out")
    atomic.check_can_write(folder)
    if folder.exists(name) and MARK.encode() not in folder.read_range(name, 0, _MARK_WITHIN):
        raise ConfigError(f"{folder.path(name)} is there already and is no report of maskmill; choose another --out")
    return folder, name


class _Pictures:
    """The pictures in the order of the row list, each read when the page comes to it."""

    def __init__(self, found: Figures, images_root: str) -> None:
        self.shown = self.without_picture = 0
        self.faults: list[str] = []
        self._rows: Sequence[Row] = found.sample.rows if found.sample else ()
        self.layers: Layers | None = None
        if found.head is not None:
            artifacts = [step.artifact for step in found.steps if step.artifact is not None]
            self._names = measures_of(found.head.plan.kind)
            try:
                self.layers = Layers(found.head, artifacts, self._rows, images_root)
            except MaskmillError as error:
                self.faults.append(f"The pictures of {found.head.place} cannot be shown: {error}")

    def __iter__(self) -> Iterator[dict[str, Json]]:
        for row in self._rows if self.layers else ():
            yield self._told(row)

    def _told(self, row: Row) -> dict[str, Json]:
        assert self.layers is not None
        shown = self.layers.of(row)
        self.shown += 1
        self.without_picture += not shown.picture
        self.faults += [each for each in shown.faults if each not in self.faults][: _TOLD - len(self.faults)]
        return {
            "id": row.id,
            "status": row.status,
            "why": row.why,
            "classes": row.classes,
            "sources": sorted({each.source for each in row.objects if each.source}),
            "measures": {name: round(v, 4) for name in self._names if (v := row.measure(name)) is not None},
            "height": shown.size[0],
            "width": shown.size[1],
            "picture": shown.picture,
            "missing": shown.why_not,
            "layers": shown.layers,
            "faults": shown.faults,
        }


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_text),
        autoescape=True,  # names, ids and reasons are anybody's
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"size": _size, "duration": _duration, "decimal": _decimal, "count": lambda n: f"{n:,}"}
    environment.tests |= {"floor": is_floor}
    return environment.get_template("report.html")


def _text(name: str) -> str:
    return resources.files(__package__ or "").joinpath(name).read_text("utf-8")


def _context(uris: Sequence[str], found: Figures, pictures: _Pictures) -> dict[str, Any]:
    script, layers = _text("report.js"), pictures.layers
    ids = [row.id for row in found.sample.rows] if found.sample else []
    place_of = {identifier: place for place, identifier in enumerate(ids)}
    labels = sorted({label for row in (found.sample.rows if found.sample else ()) for label in row.classes})
    facts = {
        "layers": [
            {"key": each.key, "name": each.name, "kind": each.kind} for each in (layers.layers if layers else ())
        ],
        "changes": [
            {"stage": stage, "before": before.key, "after": after.key}
            for stage, before, after in (layers.changes if layers else ())
        ],
        "classes": [{"label": k, "name": found.classes.get(k, str(k)), "colour": hex_colour(k)} for k in labels]
        + [{"label": IGNORE, "name": "undecided", "colour": hex_colour(IGNORE)}],
        "worst": [place_of[each] for each in found.sample.worst] if found.sample else [],
        "best": [place_of[each] for each in found.sample.best] if found.sample else [],
        "rankedBy": found.ranked_by or "",
        "measures": list(measures_of(found.head.plan.kind)) if found.head else [],
    }
    return {
        "mark": MARK,
        "version": __version__,
        "css": _text("report.css"),
        "script": script,
        "script_digest": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "title": found.found.title or _plain_name(uris[0]),
        "found": found,
        "remarks": [*found.remarks, *pictures.faults],
        "gone": list(found.found.gone.values()),
        "meanings": MEANINGS,
        "measure_names": MEASURES,
        "colour_of": hex_colour,
        "names": {
            label: name for scores in found.scores for label, name in scores.names.items() if label in scores.ious
        },
        "changes": layers.changes if layers else [],
        "facts": facts,
        "pictures": pictures,
    }


def _plain_name(uri: str) -> str:
    return place(uri).uri.rstrip("/").rpartition("/")[2]


def _size(num_bytes: float | int) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.1f} TB"


def _duration(seconds: float | int) -> str:
    for unit, size_s in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= size_s:
            return f"{seconds / size_s:.1f} {unit}"
    return f"{seconds:.1f} s"


def _decimal(value: float | int | None) -> str:
    return "–" if value is None else f"{value:.3f}"
