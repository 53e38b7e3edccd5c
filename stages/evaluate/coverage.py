"""Scores with what was not answered: rows that were dropped or failed count as all background.

Letters: H W pixels.

Kept rows by themselves look better the more of the hard images are dropped, so the two always stand side by side.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from ..scores.iou import Counts, IouScores, iou_scores, pixel_counts, sum_counts


@dataclass(frozen=True, slots=True)
class Coverage:
    num_rows: int
    num_kept: int
    over_all: IouScores
    over_kept: IouScores


def counts_without_labels(truth_HW: UInt8[np.ndarray, "H W"]) -> Counts:
    """The counts of an image for which there are no labels."""
    return pixel_counts(truth_HW, np.zeros_like(truth_HW))


def coverage(kept: Iterable[Counts], dropped: Iterable[Counts]) -> Coverage:
    """Both scores; the counts of dropped rows are those of `counts_without_labels`, whatever labels they once had."""
    answered, left_out = list(kept), list(dropped)
    return Coverage(
        num_rows=len(answered) + len(left_out),
        num_kept=len(answered),
        over_all=iou_scores(sum_counts([*answered, *left_out])),
        over_kept=iou_scores(sum_counts(answered)),
    )
