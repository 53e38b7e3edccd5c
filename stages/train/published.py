"""The dataset that is learned from, by id.

Letters: H W pixels.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import UInt8

from ...manifests.artifact.artifact import Artifact
from ...manifests.artifact.facts import class_table
from ...manifests.classes import IGNORE
from ...manifests.errors import InputError
from ...manifests.published.dataset import Dataset, open_dataset
from ...manifests.published.frames import frame_rows
from ...manifests.published.schema import ground_truth_ids


class PublishedDataset:
    """The pictures that its quality rule has kept."""

    def __init__(self, dataset: Artifact) -> None:
        self.labels: Dataset = open_dataset(dataset.place)
        self.place = dataset.place
        self.places: Mapping[str, int] = {each: place for place, each in enumerate(self.labels.ids)}
        self.ground_truth = ground_truth_ids(dataset) & self.places.keys()  # whose masks are that
        self.table = class_table(dataset)
        if not self.places:
            raise InputError(f"{dataset.place} has no picture that is kept; publish it with a milder --min-score")

    @property
    def ids(self) -> Sequence[str]:
        return list(self.places)

    @property
    def num_classes(self) -> int:
        """Of label maps, background with them."""
        return 1 + max(self.labels.classes)

    def image_labels(self) -> dict[str, tuple[int, ...]]:
        """The image-level labels of each picture."""
        rows = frame_rows(self.labels.artifact, ["id", "labels"])
        return {row["id"]: tuple(row["labels"] or ()) for row in rows if row["id"] in self.places}

    def mask(self, identifier: str) -> UInt8[np.ndarray, "H W"]:
        found: np.ndarray = self.labels.mask(self.places[identifier]).numpy()
        return found

    def refuse_undecided(self, ids: Sequence[str]) -> None:
        """Where no pixel of any mask says something. Ends at the first that does, most often the first of all."""
        if all((self.mask(each) == IGNORE).all() for each in ids):
            raise InputError(
                f"every pixel of every mask in {self.place} is undecided (255), so that nothing can be learned; "
                "refine with another background rule"
            )
