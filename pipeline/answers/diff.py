"""Lists how two versions of a dataset differ: rows added, removed and changed, and settings.

Masks count as equal if their pixels are: another version of Pillow may write equal pixels as other bytes.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ...manifests.artifact.artifact import Artifact
from ...manifests.artifact.facts import class_table
from ...manifests.files.sealed import Json
from ...manifests.published.dataset import Dataset, open_dataset
from ...manifests.published.frames import frame_row
from ...manifests.published.schema import class_names
from .compare import common_names
from .lineage import LineageDifference, lineage_differences

RELABELLED = ("mask", "labels")
_COMPARED = ("status", "labels", "kept", "split", "sha256", "sources")  # besides the mask
_ROW = ("status", "reason", "labels", "kept", "split", "sha256", "objects")
_NAMES = {"sha256": "picture"}  # column → name in the result


@dataclass(frozen=True, slots=True)
class Change:
    """One value of a row that differs; for a mask, its height and width."""

    name: str
    a: Json
    b: Json


@dataclass(frozen=True, slots=True)
class ChangedRow:
    id: str
    changes: Sequence[Change]
    same_pixels: float | None = None  # share, if the masks differ and have the same size

    @property
    def is_relabelled(self) -> bool:
        return any(change.name in RELABELLED for change in self.changes)


@dataclass(frozen=True, slots=True)
class DatasetVersion:
    at: str
    fingerprint: str
    rows: int


@dataclass(frozen=True, slots=True)
class Diff:
    a: DatasetVersion
    b: DatasetVersion
    added: Sequence[str]  # ids
    removed: Sequence[str]
    relabelled: Sequence[ChangedRow]  # mask or image-level labels differ
    changed: Sequence[ChangedRow]  # only something else differs
    unchanged: int
    classes_added: Sequence[str]
    classes_removed: Sequence[str]
    differences: Sequence[LineageDifference]  # of settings, all inputs included


def diff_datasets(a: str, b: str) -> Diff:
    """Reads files only, and no pictures. Rows are paired by id, in any order."""
    before, after = _Rows(open_dataset(a, keep="all")), _Rows(open_dataset(b, keep="all"))
    names = common_names(before.artifact, after.artifact)
    changed = list(_find_changes(before, after, names))
    common = sum(1 for identifier in before.positions if identifier in after.positions)
    return Diff(
        a=before.version,
        b=after.version,
        added=[identifier for identifier in after.positions if identifier not in before.positions],
        removed=[identifier for identifier in before.positions if identifier not in after.positions],
        relabelled=[row for row in changed if row.is_relabelled],
        changed=[row for row in changed if not row.is_relabelled],
        unchanged=common - len(changed),
        classes_added=_only_in(after.artifact, before.artifact),
        classes_removed=_only_in(before.artifact, after.artifact),
        differences=lineage_differences(before.artifact, after.artifact),
    )


class _Rows:
    """The rows of a version by id, including failed ones."""

    def __init__(self, labels: Dataset) -> None:
        self.labels = labels
        self.artifact = labels.artifact
        ids = self.artifact.rows(["id"]).column("id").to_pylist()
        self.positions = {identifier: position for position, identifier in enumerate(ids)}
        self._indices = {labels.position(index): index for index in range(len(labels))}  # of rows with a mask

    @property
    def version(self) -> DatasetVersion:
        return DatasetVersion(self.artifact.place.uri, self.artifact.plan.fingerprint, len(self.positions))

    def row(self, identifier: str, names: Mapping[int, str]) -> dict[str, Json]:
        """The values that are compared, with classes by name."""
        cells = frame_row(self.artifact, self.positions[identifier], _ROW)
        sources = {names.get(one["class"], str(one["class"])): one["source"] for one in cells["objects"] or ()}
        labels = [names.get(label, str(label)) for label in cells["labels"] or ()]
        status = cells["status"] if cells["status"] == "ok" else f"failed: {cells['reason']}"
        return {**cells, "status": status, "labels": labels, "sources": sources}

    def png(self, identifier: str) -> bytes | None:
        mask = frame_row(self.artifact, self.positions[identifier], ("mask",))["mask"]
        return mask["bytes"] if mask else None

    def index(self, identifier: str) -> int | None:
        return self._indices.get(self.positions[identifier])


def _find_changes(before: _Rows, after: _Rows, names: Mapping[int, str]) -> Iterator[ChangedRow]:
    for identifier in before.positions:
        if identifier not in after.positions:
            continue
        ours, theirs = before.row(identifier, names), after.row(identifier, names)
        changes = [
            Change(_NAMES.get(name, name), ours[name], theirs[name]) for name in _COMPARED if ours[name] != theirs[name]
        ]
        mask, same_pixels = _mask_change(before, after, identifier)
        if changes := [*mask, *changes]:
            yield ChangedRow(identifier, changes, same_pixels)


def _mask_change(before: _Rows, after: _Rows, identifier: str) -> tuple[list[Change], float | None]:
    """A failed row has no mask; its status shows the difference."""
    ours, theirs = before.index(identifier), after.index(identifier)
    if ours is None or theirs is None or before.png(identifier) == after.png(identifier):
        return [], None
    a_HW, b_HW = before.labels.mask(ours), after.labels.mask(theirs)
    sizes = Change("mask", list(a_HW.shape), list(b_HW.shape))
    if a_HW.shape != b_HW.shape:
        return [sizes], None
    same_pixels = float((a_HW == b_HW).double().mean())
    return ([sizes], same_pixels) if same_pixels < 1 else ([], None)


def _only_in(artifact: Artifact, other: Artifact) -> list[str]:
    names = class_names(class_table(other)).values()
    return [name for name in class_names(class_table(artifact)).values() if name not in names]
