"""The quick answer to whether labels are good enough: patches are classified by their last tokens.

Letters: B pictures, T patches, D width of a token, K classes with background as the first.

How it is trained is this project's own.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
import torch

from ...manifests.artifact.checkpoints import SEEN, training_ids_json
from ...manifests.artifact.leakage import find_training_ids, leakage_warnings
from ...manifests.artifact.underway import Underway
from ...manifests.errors import InputError
from ...manifests.files.sealed import Json
from ..learning.lesson import Batch, Lesson, Losses
from ..learning.loop import Course, train
from ..learning.schedules import Schedule
from ..stage import Findings
from ..students.linear import PatchClassifier, share_loss
from .config import TrainConfig
from .given import TrainingData, checkpoint_facts, checkpoint_files
from .judging import HELD_OUT, ids_to_hold_out, score_classifier, score_summary
from .patches import Patches

TOLD = 10  # how often it is said how far a training is


def train_classifier(config: TrainConfig, given: TrainingData, underway: Underway) -> Findings:
    published, features, truth = given.published, given.features, given.truth
    flattered = find_training_ids(given.dataset)
    held_out = ids_to_hold_out(published, truth, flattered.seen, config.seed)
    left_out = frozenset(held_out)
    fitting = [each for each in published.ids if each not in left_out]
    if not fitting:
        raise InputError(f"all {len(held_out)} pictures of {published.place} are held out to judge by; publish more")
    features.require(published.ids)
    published.refuse_undecided(fitting)
    classifier = make_classifier(features.sight.width, published.num_classes, config.hidden, config.seed)
    course = Course(steps=config.steps, steps_per_epoch=-(-config.steps // TOLD), seed=config.seed)
    lines = train(make_lesson(config, classifier, Patches(features, published), fitting), course, underway)
    found = score_summary(score_classifier(classifier, features, published, truth, held_out), config.seed)
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
            "judged": found,
        },
        warnings=[*leakage_warnings(given.dataset, flattered), *_warnings(given, found)],
    )


def make_classifier(width: int, num_classes: int, hidden: int, seed: int) -> PatchClassifier:
    """Touches no random numbers of the caller's."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(np.random.SeedSequence((seed, 2)).generate_state(1)[0]))
        return PatchClassifier(width, num_classes, hidden)


def make_lesson(config: TrainConfig, classifier: PatchClassifier, patches: Patches, ids: Sequence[str]) -> Lesson:
    """Every picture once before any comes again, each time in an order of its own."""

    @lru_cache(maxsize=2)
    def order(epoch: int) -> np.ndarray:
        return np.random.default_rng([config.seed, 3, epoch]).permutation(len(ids))

    def batch(step: int) -> Batch:
        drawn = [divmod(step * config.batch + place, len(ids)) for place in range(config.batch)]
        chosen = [ids[int(order(epoch)[at])] for epoch, at in drawn]
        tokens_BTD, shares_BKT = patches.read_batch(chosen)
        return Batch(len(chosen), {"tokens": tokens_BTD, "shares": shares_BKT}, lambda: chosen)

    def losses(step: int, found: Batch) -> Losses:
        return Losses(share_loss(classifier(found.tensors["tokens"]), found.tensors["shares"]), {})

    return Lesson(
        modules={"student": classifier},
        optimiser=torch.optim.Adam(classifier.parameters()),
        batch=batch,
        losses=losses,
        learning_rate=Schedule(start=config.learning_rate, end=0.0, steps=config.steps),
    )


def _warnings(given: TrainingData, found: Mapping[str, Json]) -> list[str]:
    if any(line["miou"]["estimate"] is not None for line in found["lines"]):
        return []
    why = (
        f"the masks of the {found['pictures']} pictures held out are void alone"
        if found["pictures"]
        else f"no class has {HELD_OUT // 2 + 1} pictures with ground truth that nothing was fitted on"
        if given.truth is not None and len(given.truth)
        else "there is no ground truth"
    )
    sentence = (
        f"{why}, so nothing tells whether the labels of {given.published.place} are good enough; pass as --images an "
        "index of these pictures with some masks"
    )
    return [sentence]
