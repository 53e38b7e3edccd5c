"""The inputs of a training, and what every checkpoint of a student holds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from safetensors.torch import save
from torch import Tensor

from ...manifests.artifact.artifact import Artifact
from ...manifests.artifact.checkpoints import WEIGHTS
from ..scores.truth import GroundTruth
from ..students.facts import STUDENT, StudentFacts
from ..students.features import Features
from .config import TrainConfig
from .published import PublishedDataset

METRICS = "metrics.jsonl"


@dataclass(frozen=True, slots=True)
class TrainingData:
    dataset: Artifact
    published: PublishedDataset
    features: Features
    truth: GroundTruth | None  # None without any mask


def checkpoint_files(state: Mapping[str, Tensor], lines: Sequence[str]) -> dict[str, bytes]:
    weights = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    return {WEIGHTS: save(weights), METRICS: "".join(line + "\n" for line in lines).encode()}


def checkpoint_facts(config: TrainConfig, given: TrainingData) -> StudentFacts:
    return StudentFacts(
        kind=STUDENT,
        student=config.student,
        supervision=config.supervision,
        sight=given.features.sight,
        class_table=given.published.table,
        steps=config.steps,
    )
