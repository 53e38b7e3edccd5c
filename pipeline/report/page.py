"""Writes the page: the template with the figures, then picture by picture, so that memory is bounded."""

import base64
import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib import resources
from typing import Any

import jinja2

from ... import __version__
from ...manifests.artifact.plan import PLAN
from ...manifests.counts import count_of
from ...manifests.errors import ConfigError
from ...manifests.files import atomic
from ...manifests.files.place import Place, place, split
from ...stages.scores.verdict import FEWEST_PICTURES
from ..quantities import duration, size
from .artifact_rows import MEANINGS
from .figures import Figures, figures as read_figures
from .gallery import Gallery
from .scores import MEASURES, is_floor
from .thumbnails import hex_colour

MARK = "<!-- made by maskmill report -->"  # in line 2; only files with it are overwritten
_MARK_WITHIN = 200
_BUFFERED = 16  # pieces of the page per write


@dataclass(frozen=True, slots=True)
class Written:
    at: str
    pictures: int
    shown: int
    without_picture: int
    bytes: int
    seconds: float
    remarks: Sequence[str]


def write_report(uris: Sequence[str], out: str, count: int, images_root: str = "") -> Written:
    """Writes the page about work folders or artifacts, with at most `count` pictures."""
    began = time.monotonic()
    folder, name = _target(out)
    figures = read_figures(uris, count)
    gallery = Gallery(figures, images_root)
    with atomic.replacing(folder, name) as stream:
        page = _template().stream(**_context(uris, figures, gallery))
        page.enable_buffering(_BUFFERED)
        for piece in page:
            stream.write(piece.encode())
    return Written(
        at=folder.path(name),
        pictures=figures.survey.pictures if figures.survey else 0,
        shown=gallery.shown,
        without_picture=gallery.without_picture,
        bytes=stream.size,
        seconds=time.monotonic() - began,
        remarks=[*figures.remarks, *gallery.faults],
    )


def _target(out: str) -> tuple[Place, str]:
    folder, name = split(out)
    if folder.exists(PLAN):
        raise ConfigError(f"{folder} is an artifact, which may hold only its own files; choose another --out")
    if folder.is_local and next(Place(folder.path(name)).names(), None) is not None:
        raise ConfigError(f"{folder.path(name)} is a folder; name a file in it as --out")
    atomic.check_can_write(folder)
    if folder.exists(name) and MARK.encode() not in folder.read_range(name, 0, _MARK_WITHIN):
        raise ConfigError(f"{folder.path(name)} exists and is not a maskmill report; choose another --out")
    return folder, name


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_text),
        autoescape=True,  # names, ids and reasons are user input
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "size": size,
        "duration": partial(duration, decimals=1),
        "decimal": lambda value: "–" if value is None else f"{value:.3f}",
        "count": lambda n: f"{n:,}",
        "count_of": count_of,
    }
    environment.tests |= {"floor": is_floor}
    return environment.get_template("report.html")


def _text(name: str) -> str:
    return resources.files(__package__ or "").joinpath(name).read_text("utf-8")


def _context(uris: Sequence[str], figures: Figures, gallery: Gallery) -> dict[str, Any]:
    script = _text("report.js")
    return {
        "mark": MARK,
        "version": __version__,
        "css": _text("report.css"),
        "script": script,
        "script_digest": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "title": figures.selection.title or _plain_name(uris[0]),
        "figures": figures,
        "remarks": [*figures.remarks, *gallery.faults],
        "gone": list(figures.selection.gone.values()),
        "meanings": MEANINGS,
        "measure_names": MEASURES,
        "fewest_pictures": FEWEST_PICTURES,
        "colour_of": hex_colour,
        "names": _names(figures),
        "changes": gallery.changes,
        "facts": gallery.facts,
        "pictures": gallery,
    }


def _names(figures: Figures) -> dict[int, str]:
    if figures.survey is None:
        return {}
    named = {label: figures.classes.get(label, str(label)) for label in figures.survey.classes}
    return named | {label: scores.names[label] for scores in figures.scores for label in scores.ious}


def _plain_name(uri: str) -> str:
    return place(uri).uri.rstrip("/").rpartition("/")[2]
