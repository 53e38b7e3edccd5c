"""The scores that CST's authors publish for their checkpoints, to compare a reproduction with.

Source: README of dahyun-kang/cst, tables "image-level" and "pixel-level supervision": means of four folds over 1,000
episodes each, in per cent; void counts as background. They give no scores of single folds and no spread.
"""

from collections.abc import Collection
from dataclasses import dataclass

from ..choices import EPISODES
from .few_shot_config import FewShotConfig

FOLDS = (0, 1, 2, 3)


@dataclass(frozen=True, slots=True)
class PublishedScores:
    exact_ratio: float  # shares
    miou: float


# Benchmark, test-time support mask, ways → exact ratio and mIoU in per cent. One shot.
_PER_CENT = {
    ("pascal-5i", "pseudo", 1): (79.9, 33.2),
    ("pascal-5i", "pseudo", 2): (64.6, 31.9),
    ("pascal-5i", "gt", 1): (85.7, 55.5),
    ("pascal-5i", "gt", 2): (70.4, 53.7),
    ("coco-20i", "pseudo", 1): (78.2, 19.6),
    ("coco-20i", "pseudo", 2): (62.4, 18.3),
    ("coco-20i", "gt", 1): (80.8, 38.3),
    ("coco-20i", "gt", 2): (64.0, 36.2),
}


def find_published_scores(config: FewShotConfig, supervisions: Collection[str]) -> PublishedScores | None:
    """None if the test or the training differs from the published ones; `supervisions` are those that the checkpoints
    state."""
    per_cent = _PER_CENT.get((config.protocol, config.support_mask, config.way))
    protocol = (config.shot, config.episodes, config.void, tuple(sorted(config.fold)))
    trained = "pseudo" if config.support_mask == "pseudo" else "mask"
    if per_cent is None or protocol != (1, EPISODES, "background", FOLDS) or set(supervisions) - {trained}:
        return None
    return PublishedScores(*(value / 100 for value in per_cent))
