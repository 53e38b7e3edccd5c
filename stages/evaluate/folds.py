"""Which classes are scored, on which pictures and episodes: a fold of a benchmark, or a split of classes."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...manifests.artifact.artifact import Artifact
from ...manifests.artifact.facts import class_table
from ...manifests.classes import BACKGROUND, IGNORE
from ...manifests.datasets.benchmark_classes import COCO_CLASSES, VOC_CLASSES
from ...manifests.datasets.fold_lists import Benchmark, FoldList, read_fold
from ...manifests.errors import ConfigError, InputError
from ...manifests.files.sealed import digest_of
from ...manifests.published.schema import class_indices, class_names
from ..scores.truth import GroundTruth
from ..stage import Inputs
from ..students.episodes import Episode, ImageLabel, Pool, evaluation_episodes, make_pool
from .few_shot_config import CLASSES, FewShotConfig
from .learners import TrainedLearner, training_classes

TABLES = {"pascal-5i": VOC_CLASSES, "coco-20i": COCO_CLASSES}


@dataclass(frozen=True, slots=True)
class Fold:
    """What one checkpoint is scored on."""

    name: str
    classes: tuple[int, ...]  # not learned
    base: tuple[int, ...]  # learned
    pictures: int  # number that the episodes are drawn from
    episodes: Sequence[Episode]

    @property
    def ids(self) -> list[str]:
        """Every picture once, in the order of the episodes."""
        return list(dict.fromkeys(identifier for episode in self.episodes for identifier in episode_ids(episode)))

    @property
    def supports(self) -> frozenset[str]:
        return frozenset(identifier for episode in self.episodes for identifier in episode_ids(episode)[1:])


def make_folds(
    config: FewShotConfig,
    learners: Sequence[TrainedLearner],
    images: Artifact,
    truth: GroundTruth,
    usable: Collection[str],
) -> list[Fold]:
    """One fold for each learner, all of whose pictures and masks are there: a benchmark names its pictures, and a split
    of classes draws from the `usable` ones."""
    names = class_names(class_table(images))
    folds = []
    for place, learner in enumerate(learners):
        fold = (
            _class_fold(config, place, learner, images, truth, names, usable)
            if config.protocol == CLASSES
            else _benchmark_fold(config, place, images)
        )
        refuse_learned_classes(fold, training_classes(learner, names), names, learner.where)
        refuse_missing_masks(fold, truth, images)
        folds.append(fold)
    return folds


def _benchmark_fold(config: FewShotConfig, place: int, images: Artifact) -> Fold:
    assert config.protocol != CLASSES
    lists = read_fold(config.protocol, config.folds, config.fold[place], "novel")
    if lists_digest(lists) != config.lists_sha256[place]:
        raise InputError(f"the lists in {config.folds} have changed since this command started; run it again")
    return benchmark_fold(config.protocol, config.fold[place], lists, images, config.way, config.shot, config.episodes)


def _class_fold(
    config: FewShotConfig,
    place: int,
    learner: TrainedLearner,
    images: Artifact,
    truth: GroundTruth,
    names: Mapping[int, str],
    usable: Collection[str],
) -> Fold:
    """A fold of pictures that the learner has not seen."""
    learned = training_classes(learner, names)
    shown = classes_in_masks(truth, [each for each in truth.ids if each in usable and each not in learner.seen])
    occurring = {label for labels in shown.values() for label in labels}
    if not occurring:
        raise InputError(
            f"{images.place} has no mask with a class on pictures that have features and that {learner.where} has not "
            "seen; give images with masks of other pictures"
        )
    judged = (
        tuple(class_indices(config.classes[place], class_table(images), "the images"))
        if config.classes
        else tuple(sorted(occurring - set(learned)))
    )
    if not judged:
        raise ConfigError(
            f"{learner.where} has learned every class that {images.place} shows; train it without some classes, or "
            "score it on other images"
        )
    base = learned or tuple(sorted(set(names) - set(judged)))
    name = f"fold {place}" if len(config.files) > 1 else "classes"
    return class_fold(name, judged, base, shown, config.way, config.shot, config.episodes)


def usable_ids(config: FewShotConfig, inputs: Inputs) -> frozenset[str]:
    """The pictures that have features."""
    rows = inputs["images" if config.seeing else "tokens"].rows(["id", "status"]).to_pylist()
    return frozenset(row["id"] for row in rows if row["status"] == "ok")


def lists_digest(lists: FoldList) -> str:
    return digest_of([list(lists.classes), [list(line) for line in lists.lines]])


def benchmark_fold(
    benchmark: Benchmark, number: int, lists: FoldList, images: Artifact, way: int, shot: int, count: int
) -> Fold:
    """A published fold: the episodes follow from its lists alone, so every picture must be there."""
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
    """A split of any dataset's classes, each asked for equally often, as in COCO-20i. `shown` are the classes of each
    picture that may be asked for."""
    lines = [(picture, label) for picture, labels in shown.items() for label in sorted(labels)]
    pool = make_pool(lines, classes, "drawn", way, shot)
    return _fold(name, pool, tuple(base), way, shot, count)


def base_episodes(
    base: Collection[int], labels: Mapping[str, Sequence[int]], judged: Collection[int], shot: int, count: int
) -> list[Episode]:
    """One-way episodes of learned classes, by image-level labels, on pictures that show no scored class; an empty list
    if no class has enough pictures."""
    shown = {picture: set(own) & set(base) for picture, own in labels.items() if not set(own) & set(judged)}
    lines: list[ImageLabel] = [(picture, label) for picture, own in shown.items() for label in sorted(own)]
    num_pictures = Counter(label for _, label in lines)
    enough = [label for label in sorted(base) if num_pictures[label] > shot]
    return evaluation_episodes(make_pool(lines, enough, "drawn", 1, shot), 1, shot, count) if enough else []


def classes_in_masks(truth: GroundTruth, ids: Sequence[str]) -> dict[str, frozenset[int]]:
    """The classes with a pixel in the mask of each picture, as in the benchmarks: labels and void do not count."""
    return {
        identifier: frozenset(np.unique(truth.mask(identifier)).tolist()) - {BACKGROUND, IGNORE} for identifier in ids
    }


def refuse_missing_masks(fold: Fold, truth: GroundTruth, images: Artifact) -> None:
    """Every picture of the episodes must have a mask that is not void everywhere."""
    for number, episode in enumerate(fold.episodes):
        for identifier in episode_ids(episode):
            if identifier not in truth.ids:
                missing = "has no mask for" if identifier in truth.labels else "does not have"
                raise InputError(
                    f"episode {number} of {fold.name} names {identifier!r}, which {images.place} {missing}; index all "
                    "pictures of the benchmark with their masks"
                )
    for identifier in fold.ids:
        if bool(np.all(truth.mask(identifier) == IGNORE)):
            raise InputError(
                f"the mask of {identifier!r} in {images.place} is void (255) everywhere, so nothing can be scored on "
                "it; index the masks of the benchmark"
            )


def episode_ids(episode: Episode) -> tuple[str, ...]:
    """The query and every support."""
    return (episode.query, *(support for supports in episode.supports for support in supports))


def refuse_learned_classes(fold: Fold, learned: Iterable[int], names: Mapping[int, str], where: str) -> None:
    both = sorted(set(fold.classes) & set(learned))
    if both:
        raise ConfigError(
            f"{where} has learned {names.get(both[0], both[0])}, which {fold.name} scores; give the checkpoints that "
            "were trained without these classes, in the order of the folds"
        )


def _fold(name: str, pool: Pool, base: tuple[int, ...], way: int, shot: int, count: int) -> Fold:
    return Fold(name, pool.classes, base, len(pool.labels), evaluation_episodes(pool, way, shot, count))


def _refuse_other_table(benchmark: Benchmark, images: Artifact) -> None:
    names = class_table(images).names
    layout = "voc" if benchmark == "pascal-5i" else "coco20i"
    for index, name in enumerate(TABLES[benchmark], 1):
        if names.get(index) != name:
            raise InputError(
                f"class {index} of {images.place} is {names.get(index, 'not there')}: expected {name}, as in "
                f"{benchmark}; give images made by `maskmill index {layout}`"
            )
