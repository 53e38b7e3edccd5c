"""Thresholds as users write them: SCORE for all maps, CLASS=SCORE for those of a class. Imports nothing heavy.

A class is written by its name or its index; a name that is a number is a name. Stored is None (each map's own), a
number, or texts such as ("0.5", "cat=0.3"): the score for all others first, then the classes by their name.
"""

from collections import Counter
from collections.abc import Iterable, Mapping

from ...manifests.artifact.values import nearest
from ...manifests.classes import ClassTable
from ...manifests.errors import ConfigError

CLASS_THRESHOLD = "[CLASS=]SCORE"
Thresholds = float | tuple[str, ...] | None  # as stored
_EXPECTED = "expected a score from 0 to 1, for all maps or as CLASS=SCORE, such as 0.5 or cat=0.3"


def parse_thresholds(value: object) -> Thresholds:
    """What is stored of a number, a text, a list of them, or a table of classes."""
    if isinstance(value, Mapping):
        texts = [f"{name}={score}" for name, score in value.items()]
    elif isinstance(value, tuple | list):
        texts = [str(item) for item in value]
    else:
        texts = [] if value is None else [str(value)]
    return _join(_split(text) for text in texts)


def threshold_pairs(thresholds: Thresholds) -> list[tuple[str, float]]:
    """Class and score; "" is all others."""
    texts = thresholds if isinstance(thresholds, tuple) else () if thresholds is None else (str(thresholds),)
    return [_split(text) for text in texts]


def name_classes(thresholds: Thresholds, table: ClassTable) -> Thresholds:
    """Every class by its name, or by its index if several classes have that name; refuses unknown ones."""
    if not isinstance(thresholds, tuple):
        return thresholds
    return _join(
        (name and class_text(find_class(name, table), table), score) for name, score in threshold_pairs(thresholds)
    )


def class_text(index: int, table: ClassTable) -> str:
    """What `find_class` takes for a class: its name if no other class has it."""
    name = table.name_of(index)
    return name if Counter(table.names.values())[name] == 1 else str(index)


def find_class(text: str, table: ClassTable) -> int:
    """The index of a name or index; raises ConfigError if it is neither, or the name of several classes."""
    indices = [index for index, name in table.names.items() if name == text]
    if len(indices) > 1:
        raise ConfigError(
            f"--threshold is for {text}, the name of several classes; give the index of one: "
            f"{', '.join(map(str, indices))}"
        )
    if not indices and text.isdecimal() and 1 <= int(text) <= len(table):
        return int(text)
    if not indices:
        raise ConfigError(
            f"--threshold is for {text}, which is not a class of the maps; {nearest(text, table.names.values())}"
        )
    return indices[0]


def _split(text: str) -> tuple[str, float]:
    name, equals, score_text = text.rpartition("=")
    try:
        score = float(score_text)
    except ValueError:
        score = -1.0
    if not 0 <= score <= 1 or (equals and not name.strip()):
        raise ConfigError(f"--threshold is {text}, {_EXPECTED}")
    return name.strip(), score


def _join(pairs: Iterable[tuple[str, float]]) -> Thresholds:
    """The inverse of `threshold_pairs`, in one order whatever the order given."""
    scores: dict[str, float] = {}
    for name, score in pairs:
        if name in scores:
            raise ConfigError(f"--threshold is given twice for {name or 'all maps'}; leave one out")
        scores[name] = score
    if scores.keys() <= {""}:
        return scores.get("")
    return tuple(f"{name}={score!r}" if name else repr(score) for name, score in sorted(scores.items()))
