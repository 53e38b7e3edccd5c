"""Which pictures and classes episodes are drawn from, by the dataset's image-level labels."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from ...manifests.errors import ConfigError, InputError
from ...manifests.published.schema import class_indices
from ..choices import EPISODES
from ..learning.draws import draw_per_class
from ..scores.truth import GroundTruth
from ..students.episodes import Episode, ImageLabel, Pool, evaluation_episodes, make_pool, training_episode
from .config import TrainConfig
from .published import PublishedDataset

HELD_OUT_SHARE, MOST_HELD_OUT = 0.05, 100  # of the pictures of a class; episodes that are asked each time
LabelsById = Mapping[str, Sequence[int]]


@dataclass(frozen=True, slots=True)
class Drawn:
    """What is learned from, and what the kept step is chosen on."""

    pool: Pool
    choosing: Sequence[Episode]

    @property
    def fitting(self) -> list[str]:
        return sorted(self.pool.labels)

    @property
    def stopping(self) -> list[str]:
        """Besides those that are learned from."""
        asked = {each.query for each in self.choosing} | {each.supports[0][0] for each in self.choosing}
        return sorted(asked - self.pool.labels.keys())


def draw_pools(config: TrainConfig, published: PublishedDataset, truth: GroundTruth | None) -> Drawn:
    """Raises ConfigError or InputError where episodes cannot be drawn."""
    shown = published.image_labels()
    if config.supervision == "mask":
        assert truth is not None
        shown = {each: labels for each, labels in shown.items() if each in truth.ids}
    base = class_indices(config.classes, published.table, "the dataset's labels")
    base = base or sorted({label for labels in shown.values() for label in labels})
    _refuse_too_few(base, published)
    if config.select == "held-out":
        return _hold_out_pictures(shown, base, config.seed)
    pool = make_pool(_lines(shown, base), base, "listed", 1, 1)
    return Drawn(pool, _novel_episodes(published, truth, base) if config.select == "upstream" else ())


def _lines(shown: LabelsById, classes: Collection[int]) -> list[ImageLabel]:
    return [(each, label) for each, labels in shown.items() for label in labels if label in classes]


def _refuse_too_few(base: Sequence[int], published: PublishedDataset) -> None:
    if not base:
        raise InputError(
            f"{published.place} has no image-level labels, of which episodes are made; index the pictures with their "
            "labels, or train --student linear"
        )
    if len(base) == 1:
        name = published.labels.classes.get(base[0], str(base[0]))
        raise ConfigError(
            f"episodes would be of one class, {name}, which every query shows, so that nothing tells when a class is "
            "absent; learn two classes or more"
        )


def _hold_out_pictures(shown: LabelsById, base: Sequence[int], seed: int) -> Drawn:
    """Queries that are held out ask with supports that are learned from."""
    own = {each: [label for label in labels if label in base] for each, labels in shown.items()}
    labelled = {each: labels for each, labels in own.items() if labels}
    held = frozenset(draw_per_class(labelled, lambda number: max(1, round(HELD_OUT_SHARE * number)), seed))
    lines = _lines(shown, base)
    pool = make_pool([line for line in lines if line[0] not in held], base, "listed", 1, 1)
    labels = {each: frozenset(labelled[each]) for each in held}
    asking = Pool(tuple(base), tuple(line for line in lines if line[0] in held), "listed", pool.pictures, labels)
    count = min(MOST_HELD_OUT, len(asking.lines))
    return Drawn(pool, [training_episode(asking, seed, place) for place in range(count)])


def _novel_episodes(published: PublishedDataset, truth: GroundTruth | None, base: Sequence[int]) -> list[Episode]:
    """The test episodes of the classes that are not learned."""
    shown = {
        each: labels for each, labels in published.image_labels().items() if truth is not None and each in truth.ids
    }
    novel = sorted({label for labels in shown.values() for label in labels} - set(base))
    if not novel:
        raise InputError(
            f"select upstream chooses by ground truth of classes that are not learned, and {published.place} has none "
            "that is labelled and has masks here; name the base classes with --classes and the masks with --images, or "
            "choose --select last"
        )
    return evaluation_episodes(make_pool(_lines(shown, novel), novel, "listed", 1, 1), 1, 1, EPISODES)
