"""Few-shot episodes: a query picture, some classes, and pictures that show each of them.

Letters: N ways, the classes of an episode; K shots, the pictures that show each.

Source: CST, data/pascal.py and data/coco.py. A way is drawn with probability ½ for the class that the query was chosen
for, and ½ shared by the other classes, so a query may show none of its classes, or several. Test episodes follow from
their number alone, by NumPy's legacy generator, whose stream never changes. Training episodes follow from the seed and
their place in the training; the original draws them anew each time.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

from ...manifests.counts import count_of
from ...manifests.errors import ConfigError
from ..choices import EPISODES

ImageLabel = tuple[str, int]  # an image id and one of its classes


@dataclass(frozen=True, slots=True)
class Episode:
    query: str
    classes: tuple[int, ...]  # one per way
    supports: tuple[tuple[str, ...], ...]  # per way, one per shot
    is_present: tuple[bool, ...]  # per way, by the query's lists or labels


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """What episodes are drawn from; made by `make_pool`."""

    classes: tuple[int, ...]
    lines: tuple[ImageLabel, ...]
    queries: Literal["listed", "drawn"]
    pictures: Mapping[int, tuple[str, ...]]  # by class, in the order of the lines
    labels: Mapping[str, frozenset[int]]  # by picture

    @property
    def episodes_per_epoch(self) -> int:
        """The original's epoch: one episode per line (Pascal-5i), or per picture (COCO-20i)."""
        return len(self.lines) if self.queries == "listed" else len(self.labels)


def make_pool(
    lines: Iterable[ImageLabel], classes: Sequence[int], queries: Literal["listed", "drawn"], way: int, shot: int
) -> Pool:
    """`lines` are pairs of a picture and one of its classes, from a fold list or image-level labels; lines of other
    classes are left out. Queries are the lines in turn (listed, as in Pascal-5i), or a class is drawn first, then one
    of its pictures (drawn, as in COCO-20i), so that every class is asked for equally often."""
    kept = tuple((image, label) for image, label in dict.fromkeys(lines) if label in set(classes))
    by_class: dict[int, list[str]] = defaultdict(list)
    by_picture: dict[str, set[int]] = defaultdict(set)
    for image, label in kept:
        by_class[label].append(image)
        by_picture[image].add(label)
    if way < 1 or shot < 1 or way > len(classes):
        raise ConfigError(
            f"episodes of {count_of(way, 'way')} and {count_of(shot, 'shot')} cannot be drawn from "
            f"{count_of(len(classes), 'class', 'classes')}; choose from 1 to {len(classes)} ways, and 1 or more shots"
        )
    few = [label for label in classes if len(by_class[label]) <= shot]
    if few:
        counts = ", ".join(f"class {label} has {len(by_class[label])}" for label in few[:3])
        raise ConfigError(
            f"{counts}{' …' if len(few) > 3 else ''}, but a query and {count_of(shot, 'support')} need {shot + 1} "
            f"pictures of a class; leave these classes out{', or choose fewer shots' if shot > 1 else ''}"
        )
    pictures = {label: tuple(by_class[label]) for label in classes}
    labels = {image: frozenset(labels) for image, labels in by_picture.items()}
    return Pool(tuple(classes), kept, queries, pictures, labels)


def evaluation_episode(pool: Pool, index: int, way: int, shot: int) -> Episode:
    """Test episode 0, 1, …, as the original draws it."""
    generator = np.random.RandomState(index)
    if pool.queries == "listed":
        query, label = pool.lines[index % len(pool.lines)]
    else:
        label = pool.classes[_draw_one(generator, len(pool.classes))]
        query = pool.pictures[label][_draw_one(generator, len(pool.pictures[label]))]
    chosen = generator.choice(len(pool.classes), way, p=_shares(pool, label), replace=False)
    classes = tuple(pool.classes[place] for place in chosen)
    return _episode(
        pool, query, classes, tuple(_draw_supports(generator, pool.pictures[c], query, shot) for c in classes)
    )


def evaluation_episodes(pool: Pool, way: int, shot: int, count: int = EPISODES) -> list[Episode]:
    return [evaluation_episode(pool, index, way, shot) for index in range(count)]


def training_episode(pool: Pool, seed: int, place: int) -> Episode:
    """An episode of one way and one shot. `place` counts from the start of the training: step × batch + place in the
    batch. Listed queries are shuffled in each epoch."""
    generator = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0, place)))
    if pool.queries == "listed":
        epoch, at = divmod(place, len(pool.lines))
        query, label = pool.lines[_epoch_order(seed, epoch, len(pool.lines))[at]]
    else:
        label = pool.classes[generator.integers(len(pool.classes))]
        query = pool.pictures[label][generator.integers(len(pool.pictures[label]))]
    way = pool.classes[generator.choice(len(pool.classes), p=_shares(pool, label))]
    support = query
    while support == query:
        support = pool.pictures[way][generator.integers(len(pool.pictures[way]))]
    return _episode(pool, query, (way,), ((support,),))


@lru_cache(maxsize=2)
def _epoch_order(seed: int, epoch: int, count: int) -> tuple[int, ...]:
    generator = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(1, epoch)))
    return tuple(generator.permutation(count).tolist())


def _episode(pool: Pool, query: str, classes: tuple[int, ...], supports: tuple[tuple[str, ...], ...]) -> Episode:
    return Episode(query, classes, supports, tuple(label in pool.labels[query] for label in classes))


def _shares(pool: Pool, label: int) -> list[float]:
    others = len(pool.classes) - 1
    if not others:
        return [1.0]
    return [0.5 if other == label else 1 / 2.0 / others for other in pool.classes]


def _draw_supports(generator: np.random.RandomState, pictures: Sequence[str], query: str, shot: int) -> tuple[str, ...]:
    """Draws again if it hits the query or an earlier support."""
    supports: list[str] = []
    while len(supports) < shot:
        picture = pictures[_draw_one(generator, len(pictures))]
        if picture != query and picture not in supports:
            supports.append(picture)
    return tuple(supports)


def _draw_one(generator: np.random.RandomState, count: int) -> int:
    """As in the original: the first of a whole permutation, which consumes that many random numbers."""
    return int(generator.choice(count, 1, replace=False)[0])
