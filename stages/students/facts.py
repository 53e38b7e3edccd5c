"""The facts about its training in a student's checkpoint; `train` writes them and `evaluate` reads them."""

from dataclasses import dataclass

from ...manifests.artifact.artifact import Artifact
from ...manifests.artifact.facts import Facts
from ...manifests.classes import ClassTable
from .features import FeatureSpec

STUDENT = "student"


@dataclass(frozen=True, slots=True, kw_only=True)
class StudentFacts(Facts):
    """All fields are optional for a reader: a checkpoint may be of another kind, and a file has no facts."""

    kind: str | None = None
    student: str | None = None  # linear or cst
    supervision: str | None = None
    sight: FeatureSpec | None = None
    class_table: ClassTable = ClassTable()
    steps: int | None = None
    classes: tuple[int, ...] | None = None  # learned classes, as its dataset numbers them
    select: str | None = None  # how the kept step was chosen


def student_facts(checkpoint: Artifact) -> StudentFacts:
    return StudentFacts.from_json(checkpoint.summary.counts)
