"""The page: figures through the template, then the pictures one by one as they are read, so that memory is bounded."""

import base64
import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import jinja2

from ... import __version__
from ...manifests.artifact.plan import PLAN
from ...manifests.errors import ConfigError
from ...manifests.files import atomic
from ...manifests.files.place import Place, place, split
from .artifact_rows import MEANINGS
from .figures import Figures, figures
from .gallery import Gallery
from .scores import MEASURES, is_floor
from .thumbnails import hex_colour

MARK = "<!-- made by maskmill report -->"  # the second line: what may be written over
_MARK_WITHIN = 200
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
    gallery = Gallery(found, images_root)
    with atomic.replacing(folder, name) as stream:
        page = _template().stream(**_context(uris, found, gallery))
        page.enable_buffering(_AT_ONCE)
        for piece in page:
            stream.write(piece.encode())
    return Written(
        at=folder.path(name),
        pictures=found.survey.pictures if found.survey else 0,
        shown=gallery.shown,
        without_picture=gallery.without_picture,
        bytes=stream.size,
        seconds=time.monotonic() - began,
        remarks=[*found.remarks, *gallery.faults],
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


def _context(uris: Sequence[str], found: Figures, gallery: Gallery) -> dict[str, Any]:
    script = _text("report.js")
    return {
        "mark": MARK,
        "version": __version__,
        "css": _text("report.css"),
        "script": script,
        "script_digest": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "title": found.found.title or _plain_name(uris[0]),
        "found": found,
        "remarks": [*found.remarks, *gallery.faults],
        "gone": list(found.found.gone.values()),
        "meanings": MEANINGS,
        "measure_names": MEASURES,
        "colour_of": hex_colour,
        "names": _names(found),
        "changes": gallery.changes,
        "facts": gallery.facts,
        "pictures": gallery,
    }


def _names(found: Figures) -> dict[int, str]:
    """Of the classes that were found, or judged."""
    if found.survey is None:
        return {}
    named = {label: found.classes.get(label, str(label)) for label in found.survey.classes}
    return named | {label: scores.names[label] for scores in found.scores for label in scores.ious}


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
