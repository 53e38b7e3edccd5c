"""The class table of a dataset: the meaning of each number in a label map.

0 is background and 255 is ignore, so a table holds at most 254 classes.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from .errors import InputError

BACKGROUND = 0
IGNORE = 255
MAX_CLASSES = 254


@dataclass(frozen=True, slots=True)
class ClassRow:
    index: int  # 1–254, the pixel value
    name: str
    source_id: str  # the dataset's own id: COCO's category id, VOC's index, a folder's name


@dataclass(frozen=True, slots=True)
class ClassTable:
    """Classes by index: 1, 2, 3, … without gaps."""

    rows: tuple[ClassRow, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def index_of(self, source_id: str) -> int | None:
        return next((row.index for row in self.rows if row.source_id == source_id), None)

    def name_of(self, index: int) -> str:
        return self.rows[index - 1].name

    @property
    def names(self) -> dict[int, str]:
        """Index → name."""
        return {row.index: row.name for row in self.rows}

    def with_classes(self, classes: Iterable[tuple[str, str]]) -> "ClassTable":
        """This table with new (source id, name) pairs appended; known classes keep their index."""
        rows = list(self.rows)
        seen = {row.source_id for row in rows}
        for source_id, name in classes:
            if source_id not in seen:
                seen.add(source_id)
                rows.append(ClassRow(len(rows) + 1, name, source_id))
        if len(rows) > MAX_CLASSES:
            raise InputError(
                f"the dataset has {len(rows)} classes and a label map holds at most {MAX_CLASSES} "
                "(0 is background, 255 is ignore); leave some out or index it in parts"
            )
        return ClassTable(tuple(rows))

    def as_json(self) -> list[dict[str, Any]]:
        return [{"index": row.index, "name": row.name, "source_id": row.source_id} for row in self.rows]

    @classmethod
    def from_json(cls, rows: Sequence[dict[str, Any]]) -> "ClassTable":
        return cls(tuple(ClassRow(int(row["index"]), str(row["name"]), str(row.get("source_id", ""))) for row in rows))


def refuse_other_class_table(
    ours: ClassTable, theirs: ClassTable, where: tuple[object, object], remedy: str, error: type[Exception] = InputError
) -> None:
    """A class is a number, and both tables must mean the same by each number that they share."""
    names, others = ours.names, theirs.names
    for index in sorted(names.keys() & others.keys()):
        if names[index] != others[index]:
            raise error(f"class {index} is {names[index]} in {where[0]} and {others[index]} in {where[1]}; {remedy}")
