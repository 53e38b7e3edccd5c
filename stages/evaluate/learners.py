"""The learners that are judged: checkpoints that `train` has made, and files of the original training."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load

from ...manifests.artifact.artifact import Artifact
from ...manifests.artifact.checkpoints import WEIGHTS, training_ids
from ...manifests.errors import ConfigError
from ..students.facts import STUDENT, StudentFacts, student_facts
from ..students.features import Features
from ..students.learner import Learner
from ..students.official import learner_of
from ..vision.checkpoints import read_state


@dataclass(frozen=True, slots=True)
class TrainedLearner:
    """A learner, and what is known of its training; of a file nothing is."""

    learner: Learner
    where: str
    facts: StudentFacts
    seen: frozenset[str]  # the pictures whose labels or masks it saw, and that it is not to be judged on


def load_learner_checkpoint(checkpoint: Artifact) -> TrainedLearner:
    facts = student_facts(checkpoint)
    if (facts.kind, facts.student) != (STUDENT, "cst"):
        kind = " ".join(filter(None, (facts.kind, facts.student)))
        raise ConfigError(
            f"{checkpoint.place} is a checkpoint of kind {kind} and a student cst is wanted; give one that "
            "`maskmill train --student cst` has made"
        )
    learner = learner_of(load(checkpoint.file(WEIGHTS)), str(checkpoint.place))
    # A step that was chosen on test episodes, as the original's, is judged on them again, and that is said.
    purposes = ["fitting"] if facts.select == "upstream" else ["fitting", "stopping"]
    seen = training_ids(checkpoint, "labels", purposes) | training_ids(checkpoint, "masks", purposes)
    return TrainedLearner(learner, str(checkpoint.place), facts, seen)


def load_learner_file(path: str, expected_sha256: str) -> TrainedLearner:
    if file_sha256(path) != expected_sha256:
        raise ConfigError(f"{path} has changed since it was looked at; run the same command again")
    state, _ = read_state(Path(path))
    return TrainedLearner(learner_of(state, path), path, StudentFacts(), frozenset())


def file_sha256(path: str) -> str:
    try:
        with Path(path).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise ConfigError(
            f"{path} is neither a checkpoint artifact nor a file that can be read ({error.strerror}); check the path"
        ) from error


def refuse_other_features(judged: TrainedLearner, features: Features) -> None:
    """A learner takes what it was trained on, and its first layer tells how many channels that had."""
    if judged.facts.sight is not None:
        features.sight.refuse_other(judged.facts.sight, features.where)
    if judged.learner.channels != features.sight.channels:
        raise ConfigError(
            f"{judged.where} takes {judged.learner.channels} channels (blocks × heads) and {features.where} have "
            f"{len(features.sight.blocks)} × {features.sight.heads}; give tokens and support_tokens of the blocks and "
            "the backbone that it was trained on"
        )


def training_classes(judged: TrainedLearner, names: Mapping[int, str]) -> tuple[int, ...]:
    """As the images number them, by their names: its dataset may have had another class table. Of a file that is not
    known."""
    own = judged.facts.class_table.names
    learned = {own[index] for index in judged.facts.classes or ()}
    return tuple(index for index, name in names.items() if name in learned)
