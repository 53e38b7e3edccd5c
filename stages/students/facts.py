"""What the checkpoint of a student says of its training, as `train` writes it and `evaluate` reads it."""

from dataclasses import dataclass

from ...manifests.artifact.artifact import Artifact
from ...manifests.artifact.facts import Facts
from ...manifests.classes import ClassTable
from .features import FeatureSpec

STUDENT = "student"


@dataclass(frozen=True, slots=True, kw_only=True)
class StudentFacts(Facts):
    """Everything is optional to a reader: a checkpoint may be of another kind, a file says nothing."""

    kind: str | None = None
    student: str | None = None  # linear or cst
    supervision: str | None = None
    sight: FeatureSpec | None = None
    class_table: ClassTable = ClassTable()
    steps: int | None = None
    classes: tuple[int, ...] | None = None  # that were learned, as its dataset numbers them
    select: str | None = None  # how the step that is kept was chosen


def student_facts(checkpoint: Artifact) -> StudentFacts:
    return StudentFacts.from_json(checkpoint.summary.counts)
