"""The pictures and classes that episodes are drawn from, by the dataset's image-level labels."""

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

HELD_OUT_SHARE, MOST_HELD_OUT = 0.05, 100  # share of the pictures of a class; episodes that a step is scored on
LabelsById = Mapping[str, Sequence[int]]


@dataclass(frozen=True, slots=True)
class Drawn:
    """The pool to learn from, and the episodes that the kept step is chosen on."""

    pool: Pool
    choosing: Sequence[Episode]

    @property
    def fitting(self) -> list[str]:
        return sorted(self.pool.labels)

    @property
    def stopping(self) -> list[str]:
        """The pictures that choose the step, without those that are learned from."""
        choosing = {identifier for episode in self.choosing for identifier in (episode.query, episode.supports[0][0])}
        return sorted(choosing - self.pool.labels.keys())


def draw_pools(config: TrainConfig, published: PublishedDataset, truth: GroundTruth | None) -> Drawn:
    """Raises ConfigError or InputError if episodes cannot be drawn."""
    shown = published.image_labels()
    if config.supervision == "mask":
        assert truth is not None
        shown = {identifier: labels for identifier, labels in shown.items() if identifier in truth.ids}
    base = class_indices(config.classes, published.table, "the dataset's labels")
    base = base or sorted({label for labels in shown.values() for label in labels})
    _refuse_too_few(base, published)
    if config.select == "held-out":
        return _hold_out_pictures(shown, base, config.seed)
    pool = make_pool(_lines(shown, base), base, "listed", 1, 1)
    return Drawn(pool, _novel_episodes(published, truth, base) if config.select == "upstream" else ())


def _lines(shown: LabelsById, classes: Collection[int]) -> list[ImageLabel]:
    return [(identifier, label) for identifier, labels in shown.items() for label in labels if label in classes]


def _refuse_too_few(base: Sequence[int], published: PublishedDataset) -> None:
    if not base:
        raise InputError(
            f"{published.place} has no image-level labels to draw episodes by; index the pictures with their labels, "
            "or train --student linear"
        )
    if len(base) == 1:
        name = published.labels.classes.get(base[0], str(base[0]))
        raise ConfigError(
            f"{name} is the only class, so every query shows it and nothing teaches when a class is absent; name two "
            "or more with --classes"
        )


def _hold_out_pictures(shown: LabelsById, base: Sequence[int], seed: int) -> Drawn:
    """The queries of the choosing episodes are held out; their supports are learned from."""
    base_labels = {identifier: [label for label in labels if label in base] for identifier, labels in shown.items()}
    labelled = {identifier: labels for identifier, labels in base_labels.items() if labels}
    held_out = frozenset(draw_per_class(labelled, lambda number: max(1, round(HELD_OUT_SHARE * number)), seed))
    lines = _lines(shown, base)
    pool = make_pool([line for line in lines if line[0] not in held_out], base, "listed", 1, 1)
    labels = {identifier: frozenset(labelled[identifier]) for identifier in held_out}
    queries = Pool(tuple(base), tuple(line for line in lines if line[0] in held_out), "listed", pool.pictures, labels)
    count = min(MOST_HELD_OUT, len(queries.lines))
    return Drawn(pool, [training_episode(queries, seed, place) for place in range(count)])


def _novel_episodes(published: PublishedDataset, truth: GroundTruth | None, base: Sequence[int]) -> list[Episode]:
    ids = truth.ids if truth is not None else ()
    shown = {identifier: labels for identifier, labels in published.image_labels().items() if identifier in ids}
    novel = sorted({label for labels in shown.values() for label in labels} - set(base))
    if not novel:
        raise InputError(
            f"{published.place} has no class for --select upstream, which needs labels and masks of classes that are "
            "not learned; name the base classes with --classes and the masks with --images, or choose --select last"
        )
    return evaluation_episodes(make_pool(_lines(shown, novel), novel, "listed", 1, 1), 1, 1, EPISODES)
