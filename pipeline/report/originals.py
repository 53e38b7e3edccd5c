"""The pictures themselves, if they still exist and are unchanged.

Letters: H W pixels.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import UInt8

from ...manifests.artifact.artifact import Artifact
from ...manifests.errors import EnvironmentFault, InputError, MaskmillError, Reason, RowFailed
from ...manifests.pictures.indexed import IndexedPictures
from ...manifests.pictures.limits import DEFAULT_LIMITS
from ...manifests.published.dataset import Dataset, open_dataset
from .artifact_rows import ReportRow

Picture = UInt8[np.ndarray, "H W 3"]


class Originals:
    """Reads pictures from the dataset or its images, and checks the recorded sha256."""

    def __init__(self, head: Artifact, images: Artifact | None, positions: Mapping[str, int], images_root: str) -> None:
        self._images, self._positions = images, positions
        self._indexed = IndexedPictures.of(images, images_root) if images else None
        self._dataset = _every_row(head, images_root) if head.plan.kind == "dataset" else None
        self._unreachable = ""

    def of(self, row: ReportRow) -> tuple[Picture | None, str]:
        """The picture, or why there is none."""
        if self._unreachable:
            return None, self._unreachable
        try:
            if self._dataset is not None and row.status in ("kept", "dropped"):
                return self._dataset.image(row.position).permute(1, 2, 0).contiguous().numpy(), ""
            return self._read_picture(row.id), ""
        except EnvironmentFault as fault:  # the disk or network fails, so it affects every picture
            self._unreachable = f"pictures cannot be read: {fault}"
            return None, self._unreachable
        except RowFailed as failed:
            return None, _reason_text(failed)
        except MaskmillError as error:
            return None, self._why(error)

    def _why(self, error: MaskmillError) -> str:
        if isinstance(error.__cause__, RowFailed):
            return _reason_text(error.__cause__)
        if not isinstance(error, InputError):
            return f"no picture: {error}"
        if self._dataset.images_root if self._dataset else self._indexed and self._indexed.root:
            return _reason_text(RowFailed(Reason.CHANGED))
        return "the picture is missing: the folder of the pictures is unknown"

    def _read_picture(self, identifier: str) -> Picture:
        if self._images is None or self._indexed is None or identifier not in self._positions:
            raise RowFailed(Reason.MISSING)
        (row,) = self._images.rows_at([self._positions[identifier]], ["uri", "sha256"]).to_pylist()
        return self._indexed.load(row)


def _every_row(dataset: Artifact, images_root: str) -> Dataset:
    opened = open_dataset(dataset.place, images_root or None, "all")
    return Dataset(dataset, opened.images_root, range(dataset.plan.num_rows), DEFAULT_LIMITS.max_pixels)


def _reason_text(failed: RowFailed) -> str:
    match failed.reason:
        case Reason.MISSING:
            return "the picture is missing"
        case Reason.CHANGED:
            return "the picture has changed since"
    return f"the picture cannot be shown ({failed.reason})"
