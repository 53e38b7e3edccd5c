"""Which classes are judged, on which pictures, and by which episodes: a benchmark's fold, or a split of classes."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...manifests.artifact.artifact import Artifact
from ...manifests.artifact.facts import class_table
from ...manifests.classes import BACKGROUND, IGNORE
from ...manifests.datasets.benchmark_classes import COCO_CLASSES, VOC_CLASSES
from ...manifests.datasets.fold_lists import Benchmark, FoldList
from ...manifests.errors import ConfigError, InputError
from ..scores.truth import GroundTruth
from ..students.episodes import Episode, ImageLabel, Pool, evaluation_episodes, make_pool

TABLES = {"pascal-5i": VOC_CLASSES, "coco-20i": COCO_CLASSES}


@dataclass(frozen=True, slots=True)
class Fold:
    """What one checkpoint is judged on."""

    name: str
    classes: tuple[int, ...]  # that it has not learned
    base: tuple[int, ...]  # that it has
    pictures: int  # the episodes are drawn from
    episodes: Sequence[Episode]


def benchmark_fold(
    benchmark: Benchmark, number: int, lists: FoldList, images: Artifact, way: int, shot: int, count: int
) -> Fold:
    """A fold as it is published: the episodes follow from its lists alone, so each picture must be there."""
    _refuse_other_table(benchmark, images)
    pool = make_pool(lists.lines, lists.classes, "listed" if benchmark == "pascal-5i" else "drawn", way, shot)
    base = tuple(index for index in range(1, len(TABLES[benchmark]) + 1) if index not in lists.classes)
    return _fold(f"fold {number}", pool, base, way, shot, count)


def class_fold(
    name: str,
    classes: Sequence[int],
    base: Sequence[int],
    shown: Mapping[str, frozenset[int]],
    way: int,
    shot: int,
    count: int,
) -> Fold:
    """A split of any dataset's classes: every class is asked for alike, as in COCO-20i. `shown` are the classes in each
    picture that may be asked about."""
    lines = [(picture, label) for picture, found in shown.items() for label in sorted(found)]
    pool = make_pool(lines, classes, "drawn", way, shot)
    return _fold(name, pool, tuple(base), way, shot, count)


def base_episodes(
    base: Collection[int], labels: Mapping[str, Sequence[int]], judged: Collection[int], shot: int, count: int
) -> list[Episode]:
    """One-way episodes of classes that were learned, by image-level labels, in pictures that show no class judged;
    none where no class has enough pictures."""
    kept = {picture: set(found) & set(base) for picture, found in labels.items() if not set(found) & set(judged)}
    lines: list[ImageLabel] = [(picture, label) for picture, found in kept.items() for label in sorted(found)]
    of_class = {label: sum(label in found for found in kept.values()) for label in base}
    enough = [label for label in sorted(base) if of_class[label] > shot]
    return evaluation_episodes(make_pool(lines, enough, "drawn", 1, shot), 1, shot, count) if enough else []


def classes_in_masks(truth: GroundTruth, ids: Sequence[str]) -> dict[str, frozenset[int]]:
    """Of each picture the classes that have a pixel in its mask, as the benchmarks have it: what a label alone says, or
    void, is not there."""
    found = {each: frozenset(np.unique(truth.mask(each)).tolist()) for each in ids}
    return {picture: classes - {BACKGROUND, IGNORE} for picture, classes in found.items()}


def refuse_missing_masks(fold: Fold, truth: GroundTruth, images: Artifact) -> None:
    """Every picture of the episodes must be there, and have a mask that says something."""
    for number, episode in enumerate(fold.episodes):
        for identifier in episode_ids(episode):
            if identifier not in truth.ids:
                missing = "has no mask of" if identifier in truth.labels else "does not have"
                raise InputError(
                    f"episode {number} of {fold.name} names {identifier!r}, which {images.place} {missing}; index all "
                    "pictures of the benchmark with their masks"
                )
    for identifier in dict.fromkeys(each for episode in fold.episodes for each in episode_ids(episode)):
        if bool(np.all(truth.mask(identifier) == IGNORE)):
            raise InputError(
                f"the mask of {identifier!r} in {images.place} is void alone, so nothing can be judged in it; "
                "index the masks of the benchmark"
            )


def episode_ids(episode: Episode) -> tuple[str, ...]:
    """The query and every support."""
    return (episode.query, *(support for of_way in episode.supports for support in of_way))


def refuse_learned_classes(fold: Fold, learned: Iterable[int], names: Mapping[int, str], where: str) -> None:
    both = sorted(set(fold.classes) & set(learned))
    if both:
        raise ConfigError(
            f"{where} has learned {names.get(both[0], both[0])}, which {fold.name} judges; give the checkpoint that "
            "was trained without it, in the order of the folds"
        )


def _fold(name: str, pool: Pool, base: tuple[int, ...], way: int, shot: int, count: int) -> Fold:
    return Fold(name, pool.classes, base, len(pool.labels), evaluation_episodes(pool, way, shot, count))


def _refuse_other_table(benchmark: Benchmark, images: Artifact) -> None:
    names = class_table(images).names
    layout = "voc" if benchmark == "pascal-5i" else "coco20i"
    for index, name in enumerate(TABLES[benchmark], 1):
        if names.get(index) != name:
            raise InputError(
                f"class {index} is {names.get(index, 'not there')} in {images.place} and {name} in {benchmark}; give "
                f"images that `maskmill index {layout}` has made"
            )
