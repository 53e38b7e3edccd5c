"""FiftyOne: one ImageSegmentationDirectory per split, pictures in data/ and masks of the same name in labels/.

Masks are grey: FiftyOne reads them with OpenCV, which would return the colours of a palette. mask_targets.json names
the classes; set it as the dataset's `default_mask_targets`, because the layout has no place for it.
"""

import json

from ..classes import IGNORE
from .export import Export


def write(export: Export) -> None:
    for example in export.examples():
        export.folder.write(f"{example.split}/data/{example.picture_name}", example.picture)
        export.folder.write(f"{example.split}/labels/{example.stem}.png", example.grey_mask())
    targets = {**export.class_names(reserved=["undecided"]), IGNORE: "undecided"}
    export.folder.write("mask_targets.json", json.dumps(targets, ensure_ascii=False, indent=1).encode() + b"\n")
