"""Few-shot baselines that look at no pixel, or at one vector of a picture.

Letters: E episodes, N ways, K shots, L blocks, D width of a token.

All of them are this project's own. `constant` says that every class is there, or that none is, and paints nothing.
`all_foreground` says that every class is there, and paints the whole picture with the first way. `nearest_cls` compares
the class token of the query with those of the supports; a learner has to beat it. A class is there if the cosine
reaches a threshold, and the whole picture is painted with the nearest class that is there. The threshold is chosen on
episodes of learned classes, without any of the scored classes.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, UInt8


@dataclass(frozen=True, slots=True, eq=False)
class FloorAnswers:
    is_present: Bool[np.ndarray, "E N"]
    painted: UInt8[np.ndarray, " E"]  # the whole picture: 0, or 1 + a way


def constant(num_episodes: int, num_ways: int, *, is_present: bool) -> FloorAnswers:
    return FloorAnswers(np.full((num_episodes, num_ways), is_present), np.zeros(num_episodes, np.uint8))


def all_foreground(num_episodes: int, num_ways: int) -> FloorAnswers:
    return FloorAnswers(np.full((num_episodes, num_ways), True), np.ones(num_episodes, np.uint8))


def nearest_cls(similarity_EN: Float64[np.ndarray, "E N"], threshold: float) -> FloorAnswers:
    is_present_EN = similarity_EN >= threshold
    nearest_E = (1 + similarity_EN.argmax(axis=1)).astype(np.uint8)
    return FloorAnswers(is_present_EN, np.where(is_present_EN.any(axis=1), nearest_E, np.uint8(0)))


def cls_similarity(query_D: Float[np.ndarray, " D"], supports_KD: Float[np.ndarray, "K D"]) -> float:
    """The mean over shots of the cosine of class tokens, which come from the last block after the final norm."""
    query, supports = query_D.astype(np.float64), supports_KD.astype(np.float64)
    lengths = np.linalg.norm(supports, axis=1) * np.linalg.norm(query)
    return float(np.mean(supports @ query / np.maximum(lengths, np.finfo(np.float64).tiny)))


def choose_threshold(similarity_E: Float64[np.ndarray, " E"], is_present_E: Bool[np.ndarray, " E"]) -> float:
    """The threshold that is right most often, half-way between two similarities, the lowest of equals; infinite if a
    constant answer is best."""
    order = np.argsort(similarity_E, kind="stable")
    values, truth = similarity_E[order], is_present_E[order]
    cuts = np.concatenate([[-np.inf], (values[:-1] + values[1:]) / 2, [np.inf]])
    # All are absent below a cut, and all are present from it on.
    right = np.concatenate([[0], np.cumsum(~truth)]) + np.concatenate([np.cumsum(truth[::-1])[::-1], [0]])
    separates = np.concatenate([[True], values[:-1] < values[1:], [True]])  # equal similarities stay together
    return float(cuts[np.where(separates, right, -1).argmax()])
