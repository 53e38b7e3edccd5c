"""Readers of the published fold lists of the two few-shot benchmarks: which pictures show which class.

FOLDER/{trn,val}/foldN.txt   Pascal-5i: one line ID__CLASS per picture and class, for the fold's five classes
FOLDER/{trn,val}/foldN.pkl   COCO-20i: names by class 0 to 79; val has the fold's 20 classes, trn the 60 others

Sources: data/splits of dahyun-kang/cst, the same files as in juhongm999/hsnet. Ids equal those of `index`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from ..errors import ConfigError, InputError
from ..files.place import place
from ..pictures.sources import open_user_file, read_user_lines
from .benchmark_classes import COCO_CLASSES, VOC_CLASSES
from .listing import image_id
from .pickled import plain_values

FOLDS = 4
FOLD_LINE = re.compile(r"(.+)__(\d\d)")  # 2007_000032__01: a picture and one of its classes

Benchmark = Literal["pascal-5i", "coco-20i"]
FoldPart = Literal["base", "novel"]


@dataclass(frozen=True, slots=True)
class FoldList:
    classes: tuple[int, ...]  # ascending
    lines: tuple[tuple[str, int], ...]  # an id and one of its classes, in the order of the files


def read_fold(benchmark: Benchmark, folder: str, fold: int, part: FoldPart) -> FoldList:
    """The pictures to train on (base: classes of the other folds) or to score on (novel: the fold's classes)."""
    if not 0 <= fold < FOLDS:
        raise ConfigError(f"the fold is {fold}, expected one of {benchmark}'s folds, 0 to {FOLDS - 1}; choose another")
    classes = fold_classes(benchmark, fold, part)
    if benchmark == "coco-20i":
        return FoldList(classes, tuple(_coco(folder, fold, part)))
    folds = [fold] if part == "novel" else [other for other in range(FOLDS) if other != fold]
    return FoldList(classes, tuple(line for number in folds for line in _pascal(folder, number, part)))


def fold_classes(benchmark: Benchmark, fold: int, part: FoldPart) -> tuple[int, ...]:
    """Pascal-5i holds out five consecutive classes, COCO-20i every fourth class."""
    if benchmark == "pascal-5i":
        count = len(VOC_CLASSES)
        novel = range(fold * count // FOLDS + 1, (fold + 1) * count // FOLDS + 1)
    else:
        count = len(COCO_CLASSES)
        novel = range(fold + 1, count + 1, FOLDS)
    return tuple(novel) if part == "novel" else tuple(label for label in range(1, count + 1) if label not in novel)


def _pascal(folder: str, fold: int, part: FoldPart) -> Iterator[tuple[str, int]]:
    file, own = _file(folder, fold, part, "txt"), fold_classes("pascal-5i", fold, "novel")
    for number, line in read_user_lines(file, "fold list"):
        match = FOLD_LINE.fullmatch(line)
        if match is None or int(match[2]) not in own:
            raise InputError(
                f"{file} line {number} is {line[:60]!a}, expected ID__CLASS with a class from {own[0]:02d} to "
                f"{own[-1]:02d}; use the published lists of Pascal-5i"
            )
        yield image_id(match[1]), int(match[2])


def _coco(folder: str, fold: int, part: FoldPart) -> Iterator[tuple[str, int]]:
    file = _file(folder, fold, part, "pkl")
    with open_user_file(file, "fold list") as stream:
        names_by_class = plain_values(stream.read(), file)
    expected = fold_classes("coco-20i", fold, part)
    if not isinstance(names_by_class, dict):
        raise InputError(f"{file} does not hold names by class; use the published lists of COCO-20i")
    for key, names in names_by_class.items():
        is_list = isinstance(names, list) and all(isinstance(name, str) for name in names)
        if not isinstance(key, int) or not is_list or (names and key + 1 not in expected):
            raise InputError(
                f"{file} has an unexpected entry {str(key)[:20]!a}: expected names of pictures of fold {fold}'s {part} "
                "classes; use the published lists of COCO-20i"
            )
    for label in expected:
        yield from ((image_id(name), label) for name in names_by_class.get(label - 1, ()))


def _file(folder: str, fold: int, part: FoldPart, suffix: str) -> str:
    return place(folder).path(f"{'val' if part == 'novel' else 'trn'}/fold{fold}.{suffix}")
