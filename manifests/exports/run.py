"""A dataset written as another tool reads it: all of it, or nothing."""

from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import InputError
from ..files.sealed import Json
from ..published.dataset import open_labels
from .export import Export
from .folder import check_target, target_of, whole_folder
from .formats import writer


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written, and what the format had no place for."""

    format: str
    at: str
    rows: int
    left_out: Mapping[str, int]  # rows of the dataset that the quality rule dropped, and those that failed
    files: int
    bytes: int
    lost: Mapping[str, int]  # what → how many


def export_dataset(dataset: str, to: str, out: str, images_root: str | None, overwrite: bool) -> Exported:
    """Writes the rows that the quality rule kept; `images_root` is where the pictures lie now, if they were moved."""
    target = target_of(out)
    check_target(target, overwrite)  # before a dataset of gigabytes is opened
    labels = open_labels(dataset, images_root)
    if not len(labels):
        raise InputError(f"{labels.artifact.place} has no row that its quality rule kept; there is nothing to export")
    mark: dict[str, Json] = {"format": to, "dataset": labels.artifact.plan.fingerprint}
    with whole_folder(target, overwrite, mark) as folder:
        export = Export(labels, folder)
        writer(to)(export)
        lost = {what: count for what, count in export.lost.items() if count}
        names = {str(label): name for label, name in labels.classes.items()}
        mark |= {"rows": len(labels), "classes": names, "licences": export.licences, "lost": lost}
    failed = len(labels.artifact.failures())
    left_out = {"dropped": labels.artifact.plan.num_rows - failed - len(labels), "failed": failed}
    sizes = folder.bytes_of
    return Exported(to, target.uri, len(labels), left_out, len(sizes), sum(sizes.values()), lost)
