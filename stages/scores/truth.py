"""The ground truth of an images artifact, one picture at a time.

Letters: H W pixels.
"""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from jaxtyping import UInt8

from ...manifests.artifact.artifact import Artifact
from ...manifests.errors import InputError
from ...manifests.files.sealed import Json
from ...manifests.pictures.palette import decode_label_map


class GroundTruth:
    def __init__(self, images: Artifact, option: str = "--against") -> None:
        """`option`: by which the command is given the images."""
        if "mask" not in images.plan.fields:
            raise InputError(
                f"{images.place} holds no masks; index the pictures with their masks (`maskmill index folder --masks "
                f"DIR` and the like) and pass those as {option}"
            )
        self._images = images
        rows = images.rows(["id", "labels", "mask_sha256"]).to_pylist()
        self._positions = {row["id"]: place for place, row in enumerate(rows) if row["mask_sha256"]}
        self.labels: Mapping[str, Sequence[int]] = {row["id"]: row["labels"] or () for row in rows}  # image-level

    @property
    def ids(self) -> Collection[str]:
        """Of the pictures that have a mask."""
        return self._positions.keys()

    def __len__(self) -> int:
        return len(self._positions)

    def get(self, identifier: str) -> UInt8[np.ndarray, "H W"] | None:
        """None where the picture has no mask."""
        if identifier not in self._positions:
            return None
        (png,) = self._images.cells("mask", [self._positions[identifier]])
        return None if png is None else decode_label_map(png)

    def mask(self, identifier: str) -> UInt8[np.ndarray, "H W"]:
        found = self.get(identifier)
        assert found is not None, identifier
        return found


def refuse_other_classes(predicted: Artifact, classes: Sequence[Mapping[str, Json]]) -> None:
    """Numbers in a label map mean what the class table says, and both must have the same."""
    held = {each["index"]: each["name"] for each in predicted.plan.facts["classes"]}
    truth = {each["index"]: each["name"] for each in classes}
    differing = [index for index in held if index in truth and truth[index] != held[index]]
    if differing:
        index = differing[0]
        raise InputError(
            f"class {index} is {held[index]} in {predicted.place} and {truth[index]} in the ground truth; "
            "index both with the same class table"
        )
