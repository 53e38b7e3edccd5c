"""Train CST's learner on pairs of pictures, drawn by image-level labels.

Source: CST, main.py and model/cst.py: torch's own initialisation, Adam at one rate, no decay, no warm-up, no clipping.
Its number of steps could not be found.
"""

import json
from dataclasses import replace

import numpy as np
import torch

from ...manifests.artifact.checkpoints import SEEN, training_ids_json
from ...manifests.artifact.leakage import FittedOn, find_training_ids, leakage_warnings
from ...manifests.artifact.underway import Underway
from ...manifests.classes import IGNORE
from ...manifests.errors import InputError
from ..learning.lesson import Batch, Lesson, Losses, no_metrics
from ..learning.loop import Course, train
from ..learning.schedules import Schedule
from ..stage import Findings
from ..students.episodes import Episode, Pool, training_episode
from ..students.learner import Learner
from ..students.official import official_state
from ..vision.backbone import find_device
from .config import TrainConfig
from .given import TrainingData, checkpoint_facts, checkpoint_files
from .pairs import Pairs, count_undecided, mean_losses, read_pairs
from .pool import Drawn, draw_pools
from .selection import Kept, Watch, watch_held_out, watch_upstream
from .targets import Supervise, target_builder

LOOKS = 10  # at least, at the score that the kept step is chosen by
UNDECIDED = "undecided"
CHOSEN_ON = {
    "held-out": "the loss on held-out pictures of the classes learned",
    "upstream": "ground truth of the test episodes, as in the original: scores on them are flattered",
}


def train_learner(config: TrainConfig, given: TrainingData, underway: Underway) -> Findings:
    supervise = target_builder(config.supervision, given.published, given.truth, given.features.sight)
    drawn = draw_pools(config, given.published, given.truth)
    given.features.require([*drawn.fitting, *drawn.stopping])
    fitted = None
    if config.supervision in ("published", "mixed"):
        given.published.refuse_undecided(drawn.fitting)
        fitted = find_training_ids(given.dataset)
    if config.supervision == "mask":
        _refuse_void(given, drawn)
    learner = make_learner(given.features.sight.channels, config.seed).to(find_device(config.device))
    kept = Kept(learner)
    course = course_of(config, drawn.pool)
    watch = _watch(config, given, drawn, learner, kept, supervise)
    lines = train(make_lesson(config, given, drawn.pool, learner, kept, supervise, watch), course, underway)
    chosen = learner if config.select == "last" else kept.learner
    return Findings(
        files={**checkpoint_files(official_state(chosen), lines), SEEN: _make_seen_file(config, given, drawn, fitted)},
        facts={
            **replace(checkpoint_facts(config, given), classes=drawn.pool.classes, select=config.select).as_json(),
            "channels": given.features.sight.channels,
            "fitting": len(drawn.fitting),
            **({"chosen_on": CHOSEN_ON[config.select]} if config.select != "last" else {}),
            "kept_step": config.steps if config.select == "last" else int(kept.step) + 1,
            # Of the pairs that metric lines count: a long training has lines for some of its steps only.
            "undecided_share": sum(json.loads(line).get(UNDECIDED, 0) for line in lines) / (len(lines) * config.batch),
        },
        warnings=[] if fitted is None else leakage_warnings(given.dataset, fitted),
    )


def make_learner(channels: int, seed: int) -> Learner:
    """Leaves the caller's random state as it is."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(np.random.SeedSequence((seed, 4)).generate_state(1)[0]))
        return Learner(channels)


def course_of(config: TrainConfig, pool: Pool) -> Course:
    """The original's epoch, after which it may keep the weights; a shorter one if there would be too few looks."""
    epoch = max(1, pool.episodes_per_epoch // config.batch)
    looks = config.steps if config.select == "upstream" else -(-config.steps // LOOKS)
    return Course(steps=config.steps, steps_per_epoch=min(epoch, looks), seed=config.seed)


def make_lesson(
    config: TrainConfig,
    given: TrainingData,
    pool: Pool,
    learner: Learner,
    kept: Kept,
    supervise: Supervise,
    watch: Watch,
) -> Lesson:
    features, device = given.features, find_device(config.device)

    def batch(step: int) -> Batch:
        places = range(step * config.batch, (step + 1) * config.batch)
        episodes = [training_episode(pool, config.seed, place) for place in places]
        pairs = read_pairs(features, supervise, config.reads_keys, episodes)
        tensors = {name: getattr(pairs, name) for name in Pairs.__slots__}
        ids = [identifier for episode in episodes for identifier in (episode.query, episode.supports[0][0])]
        return Batch(len(episodes), tensors, lambda: ids)

    def losses(step: int, read: Batch) -> Losses:
        pairs = Pairs(**read.tensors)
        total, presence, segmentation = mean_losses(learner, pairs, features.sight, device)
        parts = {"presence": presence, "segmentation": segmentation}
        if config.supervision in ("published", "mixed"):
            parts[UNDECIDED] = total.new_tensor(count_undecided(pairs))
        return Losses(total, parts)

    return Lesson(
        modules={"student": learner, **({} if config.select == "last" else {"kept": kept})},
        optimiser=torch.optim.Adam(learner.parameters()),
        batch=batch,
        losses=losses,
        watch=watch,
        learning_rate=Schedule(start=config.learning_rate, end=config.learning_rate, steps=config.steps),
        device=device,
    )


def _watch(
    config: TrainConfig, given: TrainingData, drawn: Drawn, learner: Learner, kept: Kept, supervise: Supervise
) -> Watch:
    if config.select == "last":
        return no_metrics

    def read(episode: Episode) -> Pairs:
        return read_pairs(given.features, supervise, config.reads_keys, [episode])

    arguments = (learner, kept, given.features.sight, read, drawn.choosing, find_device(config.device))
    if config.select == "held-out":
        return watch_held_out(*arguments)
    if given.truth is None:
        raise InputError("--select upstream needs ground truth of the test episodes; pass --images with masks")
    return watch_upstream(*arguments, given.truth)


def _refuse_void(given: TrainingData, drawn: Drawn) -> None:
    """Void ground truth would be learned as background."""
    assert given.truth is not None
    if all((given.truth.mask(identifier) == IGNORE).all() for identifier in drawn.fitting):
        raise InputError(
            "every pixel of every mask to learn from is void (255), so nothing can be learned; pass as --images an "
            "index with other masks, or choose another --supervision"
        )


def _make_seen_file(config: TrainConfig, given: TrainingData, drawn: Drawn, fitted: FittedOn | None) -> bytes:
    """Ground truth was seen where it supervised, where what made the dataset's masks was fitted on it, and where a step
    was chosen by it."""
    truth = set(given.published.ground_truth) if config.supervision in ("published", "mixed") else set[str]()
    if config.supervision == "mask":
        assert given.truth is not None
        truth = set(given.truth.ids)

    stopping = [each for each in drawn.stopping if config.select == "upstream" or each in truth]
    fitting = truth.intersection(drawn.fitting) | (fitted.seen if fitted else frozenset())
    return training_ids_json(drawn.fitting, drawn.stopping, sorted(fitting), stopping)
