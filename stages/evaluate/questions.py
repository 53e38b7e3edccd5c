"""The learners that were named, and the fold that each is scored on."""

from collections.abc import Collection, Mapping, Sequence

from ...manifests.artifact.artifact import Artifact
from ...manifests.artifact.facts import class_table
from ...manifests.datasets.fold_lists import FoldList, read_fold
from ...manifests.errors import ConfigError, InputError
from ...manifests.files.sealed import digest_of
from ...manifests.published.schema import class_indices, class_names
from ..scores.truth import GroundTruth
from ..stage import Inputs
from .few_shot_config import CLASSES, FewShotConfig, checkpoint_role
from .folds import Fold, benchmark_fold, class_fold, classes_in_masks, refuse_learned_classes, refuse_missing_masks
from .learners import TrainedLearner, load_learner_checkpoint, load_learner_file, training_classes


def load_learners(config: FewShotConfig, inputs: Inputs) -> list[TrainedLearner]:
    """The learners in the order in which they were named."""
    return [
        load_learner_file(file, config.files_sha256[place])
        if file
        else load_learner_checkpoint(inputs[checkpoint_role(place)])
        for place, file in enumerate(config.files)
    ]


def usable_ids(config: FewShotConfig, inputs: Inputs) -> frozenset[str]:
    """The pictures that have features."""
    rows = inputs["images" if config.seeing else "tokens"].rows(["id", "status"]).to_pylist()
    return frozenset(row["id"] for row in rows if row["status"] == "ok")


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


def lists_digest(lists: FoldList) -> str:
    return digest_of([list(lists.classes), [list(line) for line in lists.lines]])


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
