"""The dataset to learn from, by id.

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
    """The pictures that the quality rule of the dataset has kept."""

    def __init__(self, dataset: Artifact) -> None:
        self.labels: Dataset = open_dataset(dataset.place)
        self.place = dataset.place
        self.places: Mapping[str, int] = {identifier: place for place, identifier in enumerate(self.labels.ids)}
        self.ground_truth = ground_truth_ids(dataset) & self.places.keys()  # pictures whose masks are ground truth
        self.table = class_table(dataset)
        if not self.places:
            raise InputError(f"{dataset.place} keeps no picture; publish it with a lower --min-score")

    @property
    def ids(self) -> Sequence[str]:
        return list(self.places)

    @property
    def num_classes(self) -> int:
        """The classes of label maps, including background."""
        return 1 + max(self.labels.classes)

    def image_labels(self) -> dict[str, tuple[int, ...]]:
        rows = frame_rows(self.labels.artifact, ["id", "labels"])
        return {row["id"]: tuple(row["labels"] or ()) for row in rows if row["id"] in self.places}

    def mask(self, identifier: str) -> UInt8[np.ndarray, "H W"]:
        return np.asarray(self.labels.mask(self.places[identifier]))

    def refuse_undecided(self, ids: Sequence[str]) -> None:
        """Raises InputError if every mask is undecided everywhere; reads up to the first that is not."""
        if all((self.mask(identifier) == IGNORE).all() for identifier in ids):
            raise InputError(
                f"every pixel of every mask in {self.place} is undecided (255), so nothing can be learned; refine with "
                "another background rule"
            )
