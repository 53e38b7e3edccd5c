"""YOLO segmentation: pictures, one text file of polygons per picture, and data.yaml.

A line is one object to YOLO; here it is one connected piece of a class. Polygons have no holes, so holes are closed;
undecided pixels become background. Points are pixel centres: Ultralytics rounds down and fills the outline too, so it
gets the same pixels back.

Letters: H W pixels.
"""

from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np

from ..classes import IGNORE
from .export import Export, ExportPicture
from .outlines import pieces_of

_HOLES = "holes closed"
_HOLE_PIXELS = "pixels of holes that get the class around them"
_LINES = "pieces left out that are a point or a straight line"
_LEAST_POINTS = 3  # Ultralytics reads a line with fewer as a box and refuses the picture
_UNDECIDED = "undecided pixels that become background"
_NO_TRAIN = "rows that data.yaml names as train too, since there is no split of that name"
_NO_VAL = "rows that data.yaml names as val too, since there is no split of that name"


def write(export: Export) -> None:
    splits: Counter[str] = Counter()
    for example in export.examples():
        splits[example.split] += 1
        lines = list(_lines(example, export))
        export.folder.write(f"images/{example.split}/{example.picture_name}", example.picture)
        export.folder.write(f"labels/{example.split}/{example.stem}.txt", "".join(lines).encode())
        export.lost[_UNDECIDED] += int((example.label_HW == IGNORE).sum())
    export.folder.write("data.yaml", _data_yaml(export, splits).encode())


def _lines(example: ExportPicture, export: Export) -> Iterator[str]:
    size = np.array([example.height, example.width])
    for label in example.classes():
        for piece in pieces_of(example.label_HW == label):
            export.lost[_HOLES] += piece.holes
            export.lost[_HOLE_PIXELS] += piece.hole_pixels
            if len(piece.outline_P2) < _LEAST_POINTS:
                export.lost[_LINES] += 1
                continue
            shares_P2 = (piece.outline_P2 + 0.5) / size
            points = " ".join(f"{column:.7g} {row:.7g}" for row, column in shares_P2.tolist())
            yield f"{label - 1} {points}\n"


def _data_yaml(export: Export, splits: Mapping[str, int]) -> str:
    """data.yaml without `path`: Ultralytics then resolves paths from the folder of the file."""
    training = "train" if "train" in splits else min(splits)
    folders = {"train": training, "val": "val" if "val" in splits else training, **{split: split for split in splits}}
    export.lost[_NO_TRAIN] += 0 if "train" in splits else splits[training]
    export.lost[_NO_VAL] += 0 if "val" in splits else splits[training]
    lines = [f"{_quote(split)}: {_quote(f'images/{folder}')}" for split, folder in folders.items()]
    names = [f"  {label - 1}: {_quote(name)}" for label, name in export.class_names().items()]
    return "\n".join([*lines, "names:", *names]) + "\n"


def _quote(text: str) -> str:
    """A YAML string with unprintable characters escaped."""
    escaped = (char if char.isprintable() and char not in '"\\' else f"\\U{ord(char):08x}" for char in text)
    return f'"{"".join(escaped)}"'
