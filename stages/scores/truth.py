"""The ground truth of an images artifact, one picture at a time.

Letters: H W pixels.
"""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from jaxtyping import UInt8

from ...manifests.artifact.artifact import Artifact
from ...manifests.artifact.facts import class_table
from ...manifests.classes import refuse_other_class_table
from ...manifests.errors import InputError
from ...manifests.pictures.palette import decode_label_map


class GroundTruth:
    def __init__(self, images: Artifact, option: str = "--against") -> None:
        """`option`: the command's option for the images."""
        if "mask" not in images.plan.fields:
            raise InputError(
                f"{images.place} holds no masks; index the pictures with masks, such as with `maskmill index folder "
                f"--masks DIR`, and pass the result as {option}"
            )
        self._images, self._option = images, option
        rows = images.rows(["id", "labels", "mask_sha256"]).to_pylist()
        self._positions = {row["id"]: place for place, row in enumerate(rows) if row["mask_sha256"]}
        self.labels: Mapping[str, Sequence[int]] = {row["id"]: row["labels"] or () for row in rows}  # image-level

    @property
    def ids(self) -> Collection[str]:
        """The ids of the pictures that have a mask."""
        return self._positions.keys()

    def __len__(self) -> int:
        return len(self._positions)

    def get(self, identifier: str) -> UInt8[np.ndarray, "H W"] | None:
        """None if the picture has no mask."""
        if identifier not in self._positions:
            return None
        (png,) = self._images.cells("mask", [self._positions[identifier]])
        return None if png is None else decode_label_map(png)

    def mask(self, identifier: str) -> UInt8[np.ndarray, "H W"]:
        label_HW = self.get(identifier)
        assert label_HW is not None, identifier
        return label_HW

    def mask_of_size(self, identifier: str, size: tuple[int, ...], source: str) -> UInt8[np.ndarray, "H W"]:
        """The mask, which must have the size that the picture has in `source`: "maps"."""
        label_HW = self.mask(identifier)
        if label_HW.shape != size:
            (height, width), (true_height, true_width) = size, label_HW.shape
            raise InputError(
                f"{identifier} is {width}×{height} pixels in the {source} and {true_width}×{true_height} in its ground "
                f"truth; pass as {self._option} the images behind the {source}"
            )
        return label_HW


def refuse_other_classes(predicted: Artifact, images: Artifact) -> None:
    """What is judged and its ground truth must have the same class table."""
    where = (predicted.place, f"the ground truth {images.place}")
    remedy = "index both with the same class table"
    refuse_other_class_table(class_table(predicted), class_table(images), where, remedy)
