"""The learners that are scored: checkpoints from `train`, and files of the original training."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load

from ...manifests.artifact.artifact import Artifact
from ...manifests.artifact.checkpoints import WEIGHTS, training_ids
from ...manifests.errors import ConfigError
from ..stage import Inputs
from ..students.facts import STUDENT, StudentFacts, student_facts
from ..students.features import Features
from ..students.learner import Learner
from ..students.official import learner_of
from ..vision.checkpoints import read_state
from .few_shot_config import FewShotConfig, checkpoint_role


@dataclass(frozen=True, slots=True)
class TrainedLearner:
    """A learner, and what is known about its training: nothing, for a file."""

    learner: Learner
    where: str
    facts: StudentFacts
    seen: frozenset[str]  # pictures whose labels or masks it saw, on which a score would be flattered


def load_learners(config: FewShotConfig, inputs: Inputs) -> list[TrainedLearner]:
    """The learners in the order in which they were named."""
    return [
        load_learner_file(file, config.files_sha256[place])
        if file
        else load_learner_checkpoint(inputs[checkpoint_role(place)])
        for place, file in enumerate(config.files)
    ]


def load_learner_checkpoint(checkpoint: Artifact) -> TrainedLearner:
    facts = student_facts(checkpoint)
    if (facts.kind, facts.student) != (STUDENT, "cst"):
        kind = " ".join(filter(None, (facts.kind, facts.student)))
        raise ConfigError(
            f"{checkpoint.place} is not a checkpoint of a student cst: found kind {kind}; give one that "
            "`maskmill train --student cst` has made"
        )
    learner = learner_of(load(checkpoint.file(WEIGHTS)), str(checkpoint.place))
    # A step that was chosen on test episodes, as in the original, is scored on them again, with a warning.
    purposes = ["fitting"] if facts.select == "upstream" else ["fitting", "stopping"]
    seen = training_ids(checkpoint, "labels", purposes) | training_ids(checkpoint, "masks", purposes)
    return TrainedLearner(learner, str(checkpoint.place), facts, seen)


def load_learner_file(path: str, expected_sha256: str) -> TrainedLearner:
    if file_sha256(path) != expected_sha256:
        raise ConfigError(f"{path} has changed since this command started; run it again")
    state, _ = read_state(Path(path))
    return TrainedLearner(learner_of(state, path), path, StudentFacts(), frozenset())


def file_sha256(path: str) -> str:
    try:
        with Path(path).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise ConfigError(
            f"{path} is neither a checkpoint artifact nor a readable file ({error.strerror}); check the path"
        ) from error


def refuse_other_features(trained: TrainedLearner, features: Features) -> None:
    """The features must be those of the training; a file is checked by the channels of its first layer."""
    if trained.facts.sight is not None:
        features.sight.refuse_other(trained.facts.sight, features.where)
    if trained.learner.channels != features.sight.channels:
        raise ConfigError(
            f"{trained.where} takes {trained.learner.channels} channels (blocks × heads), and {features.where} have "
            f"{len(features.sight.blocks)} × {features.sight.heads}; give tokens and support_tokens of the blocks and "
            "the backbone that it was trained on"
        )


def training_classes(trained: TrainedLearner, names: Mapping[int, str]) -> tuple[int, ...]:
    """The learned classes as the images number them, matched by name: the class table of the dataset may have been
    another. Empty for a file."""
    own = trained.facts.class_table.names
    learned = {own[index] for index in trained.facts.classes or ()}
    return tuple(index for index, name in names.items() if name in learned)
