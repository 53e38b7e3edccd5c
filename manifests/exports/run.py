"""Exports a dataset for another tool, completely or not at all."""

from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import InputError
from ..files.sealed import Json
from ..published.dataset import open_dataset
from .export import Export
from .folder import check_target, target_of, whole_folder
from .formats import writer


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written, and what the format could not hold."""

    format: str
    at: str
    rows: int
    left_out: Mapping[str, int]  # rows of the dataset that the quality rule dropped, and those that failed
    files: int
    bytes: int
    lost: Mapping[str, int]  # description → count


def export_dataset(dataset: str, to: str, out: str, images_root: str | None, overwrite: bool) -> Exported:
    """Writes the rows kept by the quality rule; `images_root` is the folder of the pictures if they were moved."""
    target = target_of(out)
    check_target(target, overwrite)  # before a dataset of gigabytes is opened
    labels = open_dataset(dataset, images_root)
    if not len(labels):
        raise InputError(
            f"{labels.artifact.place} has no rows kept by its quality rule, so nothing can be exported; loosen the rule"
        )
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
