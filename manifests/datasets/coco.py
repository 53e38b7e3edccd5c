"""COCO: a folder of pictures and one JSON of categories, images and annotations."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from ..classes import ClassTable
from ..errors import InputError
from ..files.place import place
from ..pictures.sources import open_user_file, path_fault
from .layouts import CocoSource
from .listing import Listing, PictureEntry, image_id


def list_coco(source: CocoSource, known: ClassTable) -> Listing:
    """The images in the order of the JSON; labels are the categories with an annotation, including crowds."""
    file, root = source.annotations, place(source.images)
    if root.is_local and not root.exists():
        raise InputError(f"no folder {root} with the pictures of {file}; check the path")
    content = _read_annotations(file)
    table, indices = _classes(file, content["categories"], known)
    images = _images(file, content["images"])
    segments = _segments_by_image(file, content["annotations"], images, indices)
    has_shapes = any(segment["segmentation"] for of_image in segments.values() for segment in of_image)
    return Listing(root.uri, table, _entries(images, segments, has_shapes), "shapes" if has_shapes else "none")


def _classes(
    file: str, categories: list[dict[str, Any]], known: ClassTable
) -> tuple[ClassTable, dict[int, int | None]]:
    """The class table in order of category ids, and the index of each category id in it."""
    names = {_integer(file, "a category", category, "id"): str(category.get("name")) for category in categories}
    if len(names) < len(categories):
        raise InputError(f"{file} gives the same id to two categories; correct the annotations")
    table = known.with_classes((str(number), names[number]) for number in sorted(names))
    indices = {number: table.index_of(str(number)) for number in names}
    for number, index in indices.items():
        if index and table.name_of(index) != names[number]:
            raise InputError(
                f"{file} calls category {number} {names[number]}, which is {table.name_of(index)} in the artifact "
                "being updated; index this dataset into a new artifact"
            )
    return table, indices


def _entries(images: dict[int, Any], segments: dict[int, list[Any]], has_shapes: bool) -> Iterator[PictureEntry]:
    """Lazy: segments of a whole dataset as text would double the memory of the JSON."""
    for number, image in images.items():
        of_image = segments.pop(number, [])
        labels = tuple(sorted({segment["class"] for segment in of_image}))
        # An object with a box but no segmentation would become background.
        is_drawable = has_shapes and all(segment["segmentation"] for segment in of_image)
        name = image["file_name"]
        shapes = {"width": image.get("width"), "height": image.get("height"), "segments": of_image}
        text = json.dumps(shapes, sort_keys=True, separators=(",", ":")) if is_drawable else ""
        yield PictureEntry(image_id(name), name, labels, shapes=text)


def _segments_by_image(
    file: str, annotations: Sequence[dict[str, Any]], images: dict[int, Any], indices: dict[int, int | None]
) -> dict[int, list[dict[str, Any]]]:
    segments: dict[int, list[dict[str, Any]]] = {}
    for annotation in annotations:
        who = f"annotation {annotation.get('id')}"
        for key, known in (("image_id", images), ("category_id", indices)):
            if _integer(file, who, annotation, key) not in known:
                what = "images" if key == "image_id" else "categories"
                raise InputError(
                    f"{file}: {who} has {key} {annotation[key]}, which is not among the {what}; correct it"
                )
        segments.setdefault(annotation["image_id"], []).append(
            {
                "class": indices[annotation["category_id"]],
                "area": annotation.get("area"),
                "crowd": 1 if annotation.get("iscrowd") else 0,
                "segmentation": annotation.get("segmentation"),
            }
        )
    return segments


def _images(file: str, images: Sequence[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    by_id: dict[int, dict[str, Any]] = {}
    by_name: dict[str, int] = {}
    for image in images:
        number = _integer(file, "an image", image, "id")
        name = image.get("file_name")
        fault = path_fault(name) if isinstance(name, str) else "is not text"
        if fault or not isinstance(name, str):
            raise InputError(f"{file}: the file_name {name!a} of image {number} {fault}; correct it")
        if number in by_id:
            raise InputError(f"{file} gives id {number} to two images; correct the annotations")
        if name in by_name:
            raise InputError(f"{file} lists {name} as image {by_name[name]} and as image {number}; keep one")
        by_id[number] = image
        by_name[name] = number
    if not by_id:
        raise InputError(f"{file} lists no images; give the annotations of a COCO dataset")
    return by_id


def _integer(file: str, who: str, holder: dict[str, Any], key: str) -> int:
    value = holder.get(key)
    if not isinstance(value, int) or isinstance(value, bool):
        raise InputError(f"{file}: {who} has {key} {value!a}, expected a whole number; correct it")
    return value


def _read_annotations(file: str) -> dict[str, list[dict[str, Any]]]:
    with open_user_file(file, "annotations file") as stream:
        text = stream.read()
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        raise InputError(f"{file} is not JSON: {error}; give the annotations of a COCO dataset") from error
    tables: dict[str, list[dict[str, Any]]] = {}
    for key in ("images", "annotations", "categories"):
        rows = content.get(key) if isinstance(content, dict) else None
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise InputError(
                f"{file} has no list of {key}; give instances_*.json, which has images, annotations, categories"
            )
        tables[key] = rows
    return tables
