"""Everything that the page shows above its pictures."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ...manifests.artifact.artifact import Artifact
from ...manifests.artifact.facts import class_table
from ...manifests.errors import MaskmillError
from ...manifests.published.schema import class_names
from .artifact_rows import KINDS, RANKED_BY, measures_of, rows_of
from .artifact_status import ArtifactStatus, Failures, read_status
from .curves import Training, trainings
from .sampling import Sample, sample
from .scores import EnhancerGain, MetricsScores, StudentScores, gain_of, scores_of, student_scores_of
from .selection import Selection, select_artifacts
from .survey import Survey, survey


@dataclass(frozen=True, slots=True)
class Figures:
    selection: Selection
    steps: Sequence[ArtifactStatus]
    others: Sequence[ArtifactStatus]
    head: Artifact | None  # its pictures are shown
    survey: Survey | None
    sample: Sample | None
    ranked_by: str | None
    classes: Mapping[int, str]
    scores: Sequence[MetricsScores]
    gains: Sequence[EnhancerGain]
    students: Sequence[StudentScores]
    trainings: Sequence[Training]
    remarks: Sequence[str]

    @property
    def first_failures(self) -> list[tuple[str, Failures]]:
        """Stage and reason of first failures, without those upstream."""
        return [(step.stage, reason) for step in self.steps for reason in step.failures if reason.status == "failed"]


def figures(uris: Sequence[str], count: int) -> Figures:
    selection = select_artifacts(uris)
    remarks = list(selection.remarks)
    steps = [read_status(at) for at in selection.chain]
    head = _head(steps)
    surveyed, sampled = None, None
    measures = measures_of(head.plan.kind) if head else ()
    ranked_by = next((name for name in RANKED_BY if name in measures), None)
    if head is not None:
        try:
            surveyed = survey(rows_of(head), measures)
            sampled = sample(rows_of(head), count, ranked_by)
        except MaskmillError as error:
            remarks.append(f"The rows of {head.place} cannot be shown: {error}")
    return Figures(
        selection=selection,
        steps=steps,
        others=[read_status(at) for at in selection.others],
        head=head if sampled else None,
        survey=surveyed,
        sample=sampled,
        ranked_by=ranked_by,
        classes=class_names(class_table(head)) if head else {},
        scores=list(_scores(steps, remarks)),
        gains=[gain for checkpoint in _checkpoints(steps) if (gain := gain_of(checkpoint)) is not None],
        students=[
            scores for checkpoint in _checkpoints(steps) if (scores := student_scores_of(checkpoint)) is not None
        ],
        trainings=list(_trainings(steps, remarks)),
        remarks=remarks,
    )


def _head(steps: Sequence[ArtifactStatus]) -> Artifact | None:
    finished = [step.artifact for step in steps if step.artifact is not None]
    return next((a for kind in KINDS for a in reversed(finished) if a.plan.kind == kind), None)


def _scores(steps: Sequence[ArtifactStatus], remarks: list[str]) -> Iterator[MetricsScores]:
    stages = {step.at: step.stage for step in steps}
    for step in steps:
        if step.artifact is not None and step.artifact.plan.kind == "metrics":
            judged = [read.place(step.at) for read in step.artifact.plan.inputs if read.role == "predicted"]
            try:
                yield scores_of(step.artifact, stages.get(judged[0], "") if judged else "")
            except MaskmillError as error:
                remarks.append(str(error))


def _checkpoints(steps: Sequence[ArtifactStatus]) -> list[Artifact]:
    return [step.artifact for step in steps if step.artifact is not None and step.artifact.plan.kind == "checkpoint"]


def _trainings(steps: Sequence[ArtifactStatus], remarks: list[str]) -> Iterator[Training]:
    for step in steps:
        try:
            yield from trainings([step])
        except (MaskmillError, ValueError) as error:
            remarks.append(f"The curves of {step.at} cannot be drawn: {error}")
