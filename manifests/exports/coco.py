"""COCO: pictures in one folder, and one JSON per split of instances with compressed run lengths.

Each class in a picture is one annotation, because objects of one class are not separated. Undecided pixels are a crowd
of each class that was looked for in the picture: COCOeval ignores crowds, and trainers treat them as background.
Categories are the classes of the dataset with their own numbers.

Letters: H W pixels.
"""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
from jaxtyping import Bool
from pycocotools import mask as coco_mask  # type: ignore[import-untyped]

from ..artifact.facts import DatasetFacts
from ..classes import IGNORE
from ..files.atomic import HashingWriter
from ..files.sealed import Json
from .export import Export, ExportPicture

_IDS = 1024  # annotation ids reserved per picture
_FIRST_CROWD = 512  # crowd ids start here
_NO_CROWD = "undecided pixels that become background, of pictures where no class was looked for"


class _Instances:
    """The JSON of a split: annotations are streamed, images are collected and written at the end."""

    def __init__(self, stream: HashingWriter, head: bytes) -> None:
        self._stream = stream
        self._images: list[bytes] = []
        self._between = b""
        stream.write(head + b',"annotations":[\n')

    def add(self, example: ExportPicture, annotations: Iterator[dict[str, Json]]) -> None:
        size = {"height": example.height, "width": example.width}
        image = {"id": example.number, "file_name": example.picture_name, **size, "maskmill_id": example.id}
        self._images.append(_json_bytes(image))
        for annotation in annotations:
            self._stream.write(self._between + _json_bytes(annotation))
            self._between = b",\n"

    def end(self) -> None:
        self._stream.write(b'],\n"images":[\n' + b",\n".join(self._images) + b"]}\n")


def write(export: Export) -> None:
    head = _head(export)
    instances: dict[str, _Instances] = {}
    with ExitStack() as stack:
        for example in export.examples():
            if example.split not in instances:
                stream = stack.enter_context(export.folder.stream(f"annotations/instances_{example.split}.json"))
                instances[example.split] = _Instances(stream, head)
            export.folder.write(f"images/{example.picture_name}", example.picture)
            instances[example.split].add(example, _annotations(example, export))
        for split_instances in instances.values():
            split_instances.end()


def _head(export: Export) -> bytes:
    """The JSON without annotations, images and the closing bracket."""
    plan = export.labels.artifact.plan
    facts = DatasetFacts.of(export.labels.artifact)
    source_ids = {row.index: row.source_id for row in facts.classes.rows}
    head: dict[str, Json] = {
        "info": {"description": facts.title, "version": plan.fingerprint},
        "licenses": [{"id": number, "name": name} for number, name in enumerate(export.licences, 1)],
        "categories": [
            {"id": label, "name": name, "supercategory": "", "source_id": source_ids.get(label, "")}
            for label, name in export.class_names().items()
        ],
    }
    return _json_bytes(head)[:-1]


def _annotations(example: ExportPicture, export: Export) -> Iterator[dict[str, Json]]:
    attributes = {
        entry["class"]: {"source": entry["source"], "score": entry["score"]} for entry in example.row["objects"]
    }
    for label in example.classes():
        segment = segment_of(example.label_HW == label)
        yield _annotation(example, label, label, 0, segment) | {"attributes": attributes.get(label, {})}
    ignored_HW = example.label_HW == IGNORE
    if not ignored_HW.any():
        return
    looked_for = sorted({*example.classes(), *attributes, *(example.row["labels"] or ())})
    if not looked_for:
        export.lost[_NO_CROWD] += int(ignored_HW.sum())
        return
    segment = segment_of(ignored_HW)
    for label in looked_for:
        yield _annotation(example, _FIRST_CROWD + label, label, 1, segment)


def _annotation(
    example: ExportPicture, number: int, label: int, crowd: int, segment: dict[str, Json]
) -> dict[str, Json]:
    ids = {"id": example.number * _IDS + number, "image_id": example.number, "category_id": label}
    return {**ids, "iscrowd": crowd, **segment}


def segment_of(inside_HW: Bool[np.ndarray, "H W"]) -> dict[str, Json]:
    """Area, box and run lengths of an annotation."""
    runs: Any = coco_mask.encode(np.asfortranarray(inside_HW, np.uint8))
    return {
        "area": int(coco_mask.area(runs)),
        "bbox": coco_mask.toBbox(runs).tolist(),
        "segmentation": {"size": [int(side) for side in runs["size"]], "counts": runs["counts"].decode()},
    }


def _json_bytes(value: Json) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
