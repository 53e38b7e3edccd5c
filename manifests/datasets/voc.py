"""PASCAL VOC: JPEGImages, Annotations, ImageSets and mask folders, by split or by Pascal-5i fold list."""

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Iterator
from itertools import islice

from ..classes import ClassTable
from ..errors import InputError
from ..files.place import Place, place
from ..pictures.sources import path_fault, read_user_lines
from .benchmark_classes import VOC_CLASSES, number_classes
from .fold_lists import FOLD_LINE
from .layouts import VocSource
from .listing import Listing, PictureEntry, image_id

_SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG")
_CLASS_LIST_LINE = re.compile(r"\S+\s+(-1|0|1)")  # ImageSets/Main/cat_train.txt
_PAIR_LINE = re.compile(r"/?JPEGImages/(\S+)\s+/?Segmentation\w*/\S+")  # lists of picture and mask, common with SBD


def list_voc(source: VocSource, known: ClassTable) -> Listing:
    """The pictures of one split or list, in its order, including pictures whose file is missing."""
    root = place(source.root)
    pictures = frozenset(root.join("JPEGImages").names())
    if not pictures:
        sample = ", ".join(islice(root.names(), 3)) or "nothing"
        raise InputError(f"no pictures in {root}/JPEGImages; give the folder that holds JPEGImages (found {sample})")
    if source.masks and next(root.names(source.masks), None) is None:
        raise InputError(f"no masks in {root}/{source.masks}; check --masks (SegmentationClass, SegmentationClassAug)")
    table = number_classes(known, VOC_CLASSES)
    listed = _read_ids(root, source)
    labels = _labels(root, source, listed)
    return Listing(root.uri, table, _entries(source, listed, labels, pictures), "indexed" if source.masks else "none")


def _entries(
    source: VocSource, listed: dict[str, set[int]], labels: Iterable[tuple[int, ...] | None], pictures: frozenset[str]
) -> Iterator[PictureEntry]:
    for name, of_picture in zip(listed, labels, strict=True):
        file = next((name + suffix for suffix in _SUFFIXES if name + suffix in pictures), f"{name}.jpg")
        mask = f"{source.masks.rstrip('/')}/{name}.png" if source.masks else ""
        yield PictureEntry(image_id(file), f"JPEGImages/{file}", of_picture, source.split, mask)


def _read_ids(root: Place, source: VocSource) -> dict[str, set[int]]:
    """Ids in order of first appearance, with the classes that the list gives them."""
    file = source.list_file or _split_file(root, source.split)
    lines = list(read_user_lines(file, "list file"))
    if not lines:
        raise InputError(f"{file} lists no pictures; write one id per line")
    is_fold = FOLD_LINE.fullmatch(lines[0][1]) is not None
    listed: dict[str, set[int]] = {}
    for number, line in lines:
        name, labels = _parse_line(line, is_fold, f"{file} line {number}")
        if name in listed and not is_fold:
            raise InputError(f"{file} line {number} lists {name} a second time; list each picture once")
        listed.setdefault(name, set()).update(labels)
    return listed


def _parse_line(line: str, is_fold: bool, where: str) -> tuple[str, set[int]]:
    labels: set[int] = set()
    if match := FOLD_LINE.fullmatch(line) if is_fold else None:
        name, labels = match[1], {int(match[2])}
        if not 1 <= int(match[2]) <= len(VOC_CLASSES):
            raise InputError(f"{where} gives class {match[2]}, expected 01 to {len(VOC_CLASSES)}; check the list")
    elif is_fold:
        raise InputError(f"{where} is {line!a}, expected ID__CLASS as in the first line; use one form throughout")
    elif _CLASS_LIST_LINE.fullmatch(line):
        raise InputError(f"{where} is {line!a}, which is a list of one class; give a list of ids")
    else:
        match = _PAIR_LINE.fullmatch(line)
        name = match[1] if match else line
    name = next((name.removesuffix(suffix) for suffix in _SUFFIXES if name.endswith(suffix)), name)
    if fault := path_fault(name):
        raise InputError(f"{where}: {name!a} {fault}; a list holds ids such as 2007_000032")
    return name, labels


def _split_file(root: Place, split: str) -> str:
    names = [f"ImageSets/{task}/{split}.txt" for task in ("Segmentation", "Main")]
    for name in names:
        if root.exists(name):
            return root.path(name)
    lists = [name.removeprefix("ImageSets/") for name in root.names("ImageSets")]
    available = [name for name in lists if not (name.startswith("Main/") and "_" in name)]  # not lists of one class
    raise InputError(
        f"no split {split} in {root}: looked for {' and '.join(names)}, "
        f"found {', '.join(available[:8]) or 'no lists'}; choose one with --split, or give --list FILE"
    )


def _labels(root: Place, source: VocSource, listed: dict[str, set[int]]) -> Iterable[tuple[int, ...] | None]:
    if source.labels_from == "masks":
        return (None for _ in listed)
    if any(listed.values()):
        return (tuple(sorted(labels)) for labels in listed.values())
    annotated = frozenset(root.join("Annotations").names())
    without = [name for name in listed if f"{name}.xml" not in annotated]
    image_sets = _image_set_labels(root, source.split) if without else {}
    missing = [name for name in without if name not in image_sets]
    if missing:
        raise InputError(
            f"no image-level labels for {len(missing)} of {len(listed)} pictures in {root}, first {missing[0]}: "
            f"looked in Annotations/*.xml and ImageSets/Main/CLASS_SPLIT.txt; restore them, or pass --labels-from masks"
        )
    return (image_sets[name] if name in image_sets else _xml_labels(root, f"Annotations/{name}.xml") for name in listed)


def _xml_labels(root: Place, name: str) -> tuple[int, ...]:
    """The classes of the picture's objects, without difficult ones, as in ImageSets/Main."""
    try:
        objects = ElementTree.fromstring(root.read(name)).findall("object")
    except ElementTree.ParseError as error:
        raise InputError(f"{root.path(name)} is not XML: {error}; restore the file") from error
    labels: set[int] = set()
    for item in objects:
        class_name = (item.findtext("name") or "").strip()
        if class_name not in VOC_CLASSES:
            raise InputError(
                f"{root.path(name)} names class {class_name!a}, expected one of VOC's 20; correct the file"
            )
        if (item.findtext("difficult") or "").strip() != "1":
            labels.add(VOC_CLASSES.index(class_name) + 1)
    return tuple(sorted(labels))


def _image_set_labels(root: Place, split: str) -> dict[str, tuple[int, ...]]:
    """Labels by id from ImageSets/Main: 1 is present; -1 (absent) and 0 (only difficult objects) are not."""
    labels: dict[str, tuple[int, ...]] = {}
    for part in dict.fromkeys(["trainval", *([split] if split else [])]):
        names = [f"ImageSets/Main/{name}_{part}.txt" for name in VOC_CLASSES]
        if not any(root.exists(name) for name in names):
            continue
        of_part: dict[str, set[int]] = {}
        for index, name in enumerate(names, 1):
            for number, line in read_user_lines(root.path(name), "list file"):
                picture, _, value = line.replace("\t", " ").rpartition(" ")
                if value not in ("1", "0", "-1"):
                    raise InputError(
                        f"{root.path(name)} line {number} is {line!a}, expected an id and 1, 0 or -1; correct it"
                    )
                of_part.setdefault(picture.strip(), set()).update({index} if value == "1" else ())
        labels |= {picture: tuple(sorted(present)) for picture, present in of_part.items()}
    return labels
