"""The scores at which maps are cut: those that a user gives, or the maps' own thresholds.

Letters: K soft maps of a picture.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float64

from ...manifests.classes import ClassTable
from ...manifests.files.sealed import Json
from .class_thresholds import Thresholds, find_class, threshold_pairs


@dataclass(frozen=True, slots=True)
class CutScores:
    """The scores that replace the maps' own thresholds."""

    by_class: Mapping[int, float] = field(default_factory=dict)
    for_others: float | None = None

    @classmethod
    def of(cls, thresholds: Thresholds, table: ClassTable) -> "CutScores":
        pairs = threshold_pairs(thresholds)
        by_class = {find_class(name, table): score for name, score in pairs if name}
        return cls(by_class, next((score for name, score in pairs if not name), None))

    def of_rows(self, rows: Sequence[Mapping[str, Json]]) -> Float64[np.ndarray, " K"]:
        """The threshold of each map, from its row in a maps artifact, as float32 because `mask` stores it so."""
        scores = (self.by_class.get(row["class"], self.for_others) for row in rows)
        return np.array(
            [row["threshold"] if score is None else np.float32(score) for row, score in zip(rows, scores, strict=True)],
            np.float64,
        )
