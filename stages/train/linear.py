"""A quick test of whether labels are good enough: classify patches by their tokens.

Letters: B pictures, T patches, D width of a token, K classes with background as the first.

The training is this project's own.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
import torch

from ...manifests.artifact.checkpoints import SEEN, training_ids_json
from ...manifests.artifact.leakage import find_training_ids, leakage_warnings
from ...manifests.artifact.underway import Underway
from ...manifests.counts import count_of
from ...manifests.errors import InputError
from ...manifests.files.sealed import Json
from ..learning.lesson import Batch, Lesson, Losses
from ..learning.loop import Course, train
from ..learning.schedules import Schedule
from ..scores.verdict import NO_OBJECTS, floor_warnings
from ..stage import Findings
from ..students.linear import PatchClassifier, share_loss
from .config import TrainConfig
from .given import TrainingData, checkpoint_facts, checkpoint_files
from .judging import HELD_OUT, STUDENT, ids_to_hold_out, score_classifier, score_summary
from .patches import Patches

REPORTS = 10  # of the progress of a training


def train_classifier(config: TrainConfig, given: TrainingData, underway: Underway) -> Findings:
    published, features, truth = given.published, given.features, given.truth
    fitted = find_training_ids(given.dataset)
    held_out = ids_to_hold_out(published, truth, fitted.seen, config.seed)
    left_out = frozenset(held_out)
    fitting = [identifier for identifier in published.ids if identifier not in left_out]
    if not fitting:
        raise InputError(
            f"{published.place} keeps {count_of(len(held_out), 'picture')}, all held out for scoring; publish more"
        )
    features.require(published.ids)
    published.refuse_undecided(fitting)
    classifier = make_classifier(features.sight.width, published.num_classes, config.hidden, config.seed)
    course = Course(steps=config.steps, steps_per_epoch=-(-config.steps // REPORTS), seed=config.seed)
    lines = train(make_lesson(config, classifier, Patches(features, published), fitting), course, underway)
    scores = score_summary(score_classifier(classifier, features, published, truth, held_out), config.seed)
    return Findings(
        files={
            **checkpoint_files(classifier.state_dict(), lines),
            SEEN: training_ids_json(fitting, [], sorted(published.ground_truth), []),
        },
        facts={
            **checkpoint_facts(config, given).as_json(),
            "hidden": config.hidden,
            "num_classes": published.num_classes,
            "fitting": len(fitting),
            "judged": scores,
        },
        warnings=[*leakage_warnings(given.dataset, fitted), *_warnings(given, scores)],
    )


def make_classifier(width: int, num_classes: int, hidden: int, seed: int) -> PatchClassifier:
    """Leaves the caller's random state as it is."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(np.random.SeedSequence((seed, 2)).generate_state(1)[0]))
        return PatchClassifier(width, num_classes, hidden)


def make_lesson(config: TrainConfig, classifier: PatchClassifier, patches: Patches, ids: Sequence[str]) -> Lesson:
    """Every picture comes once per epoch, in an order of its own."""

    @lru_cache(maxsize=2)
    def order(epoch: int) -> np.ndarray:
        return np.random.default_rng([config.seed, 3, epoch]).permutation(len(ids))

    def batch(step: int) -> Batch:
        drawn = [divmod(step * config.batch + place, len(ids)) for place in range(config.batch)]
        chosen = [ids[int(order(epoch)[at])] for epoch, at in drawn]
        tokens_BTD, shares_BKT = patches.read_batch(chosen)
        return Batch(len(chosen), {"tokens": tokens_BTD, "shares": shares_BKT}, lambda: chosen)

    def losses(step: int, read: Batch) -> Losses:
        return Losses(share_loss(classifier(read.tensors["tokens"]), read.tensors["shares"]), {})

    return Lesson(
        modules={"student": classifier},
        optimiser=torch.optim.Adam(classifier.parameters()),
        batch=batch,
        losses=losses,
        learning_rate=Schedule(start=config.learning_rate, end=0.0, steps=config.steps),
    )


def _warnings(given: TrainingData, scores: Mapping[str, Json]) -> list[str]:
    if any(line["miou"]["estimate"] is not None for line in scores["lines"]):
        lines = {line["name"]: line["miou"] for line in scores["lines"]}
        floor = {NO_OBJECTS: lines[NO_OBJECTS]}
        return floor_warnings(lines[STUDENT], floor, scores["pictures"], "publish better masks, or more of them")
    why = "there is no ground truth"
    if scores["pictures"]:
        why = f"the masks of {count_of(scores['pictures'], 'held-out picture')} are void (255) everywhere"
    elif given.truth is not None and len(given.truth):
        why = f"no class has {HELD_OUT // 2 + 1} pictures with ground truth that was not used for training"
    remedy = "pass as --images an index of these pictures with some masks"
    return [f"{why}, so it is unknown whether the labels of {given.published.place} are good enough; {remedy}"]
