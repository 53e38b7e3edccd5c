"""What tells the combinations of a sweep apart: their scores, and what is known without ground truth.

Scores are those of the metrics artifact and of the checkpoint. Beside them stands the difference to the first
combination that was judged, with both drawn together on the same pictures: it is surer than two intervals of their own.
"""

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from ....manifests.artifact.artifact import Artifact, open_artifact
from ....manifests.artifact.config import config_from
from ....manifests.files.sealed import Json
from ....stages.evaluate.config import EvaluateConfig
from ....stages.evaluate.judging import ScoringOptions
from ....stages.evaluate.stage import score_predictions
from ....stages.scores.intervals import difference_interval
from ....stages.scores.iou import Counts, mean_iou
from ....stages.scores.truth import GroundTruth
from ...report.artifact_rows import KINDS, measures_of, rows_of
from ...report.scores import is_floor
from ..chain import Made
from .running import Ran

BOTH = {"miou": True, "miou_foreground": False}  # name → with background
_TRUTH = "gt"
ScoreLine = Mapping[str, Json]


@dataclass(frozen=True, slots=True)
class ScoreDifference:
    """To the first combination that was judged."""

    to: int  # its number
    pictures: int  # judged in both
    miou: ScoreLine
    miou_foreground: ScoreLine


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepRow:
    """One combination. What is not known is None or empty."""

    number: int
    values: Mapping[str, Json]  # of the keys that are swept
    exit_code: int
    error: str
    warnings: Sequence[str]
    artifacts: Mapping[str, str]  # step → where
    counts: Mapping[str, int]  # pictures: kept, dropped, failed, upstream
    measures: Mapping[str, float]  # means over the objects of kept pictures; none of them asks for ground truth
    masks: ScoreLine | None  # what was made is worth: the first line of the metrics
    coverage: Mapping[str, int]  # of the pictures with ground truth
    floors: Sequence[ScoreLine]
    difference: ScoreDifference | None
    student: ScoreLine | None
    student_floors: Sequence[ScoreLine]


class Judge:
    """Makes the rows, one after the other."""

    def __init__(self) -> None:
        self._first: tuple[int, Artifact] | None = None  # number and metrics
        self._counts: dict[str, Counts] = {}  # of the first, by id
        self._known: dict[str, tuple[int, ScoreLine, ScoreLine]] = {}  # metrics → its difference

    def row(self, ran: Ran) -> SweepRow:
        head, metrics = _head(ran.made), _open_made("metrics", ran.made)
        told = json.loads(metrics.file("metrics.json")) if metrics else {"results": [], "coverage": {}}
        student, floors = _student(ran.made)
        counts, measures = _looks(head) if head and not ran.error else ({}, {})
        return SweepRow(
            number=ran.combination.number,
            values={each.name: each.value for each in ran.combination.settings},
            exit_code=ran.exit_code,
            error=str(ran.error or ""),
            warnings=ran.warnings,
            artifacts={each.stage: each.outcome.at.uri for each in ran.made},
            counts=counts,
            measures=measures,
            masks=next(iter(told["results"]), None),
            coverage=told["coverage"],
            floors=[line for line in told["results"] if is_floor(line["name"])],
            difference=self._difference(ran.combination.number, metrics) if metrics else None,
            student=student,
            student_floors=floors,
        )

    def _difference(self, number: int, metrics: Artifact) -> ScoreDifference | None:
        if self._first is None:
            self._first = number, metrics
            return None
        first = self._first[1]
        config, images = _evaluate_config(first), _input(first, "images")
        if (_evaluate_config(metrics), _input(metrics, "images").digest) != (config, images.digest):
            return None  # judged in another way, or by another truth
        if metrics.digest not in self._known:
            self._counts = self._counts or _counts(first)
            counts = _counts(metrics) if metrics.digest != first.digest else self._counts
            self._known[metrics.digest] = _difference_lines(self._counts, counts, config)
        return ScoreDifference(self._first[0], *self._known[metrics.digest])


def _difference_lines(
    before: Mapping[str, Counts], after: Mapping[str, Counts], config: EvaluateConfig
) -> tuple[int, ScoreLine, ScoreLine]:
    ids = [each for each in before if each in after]
    found = [
        difference_interval(
            [before[each] for each in ids],
            [after[each] for each in ids],
            partial(mean_iou, with_background=with_background),
            seed=config.seed,
            num_resamples=config.resamples,
        )
        for with_background in BOTH.values()
    ]
    miou, foreground = (each.as_json() for each in found)
    return len(ids), miou, foreground


def _counts(metrics: Artifact) -> dict[str, Counts]:
    """Of each picture that was judged, as they were judged."""
    config, images = _evaluate_config(metrics), _input(metrics, "images")
    view = ScoringOptions(config.class_agnostic, boundary=False, sweep=False)
    pictures, _ = score_predictions(config, _input(metrics, "predicted"), images, GroundTruth(images), view)
    return {each.id: each.counts for each in pictures}


def _evaluate_config(metrics: Artifact) -> EvaluateConfig:
    config: EvaluateConfig = config_from(EvaluateConfig, {**metrics.plan.config, **metrics.plan.settings})
    return dataclasses.replace(config, boundary=False)  # which changes no count


def _input(artifact: Artifact, role: str) -> Artifact:
    return open_artifact(artifact.plan.input(role).place(artifact.place))


def _open_made(kind: str, made: Sequence[Made]) -> Artifact | None:
    found = [each.outcome.at for each in made if each.outcome.kind == kind]
    return open_artifact(found[-1]) if found else None


def _head(made: Sequence[Made]) -> Artifact | None:
    """The furthest along of what has a row for each picture, as the report takes it."""
    return next((found for kind in KINDS if (found := _open_made(kind, made)) is not None), None)


def _student(made: Sequence[Made]) -> tuple[ScoreLine | None, Sequence[ScoreLine]]:
    """A student that was judged while it was trained, and what its guesses without learning are worth."""
    for each in made:
        lines = each.outcome.counts.get("judged", {}).get("lines", []) if each.stage == "train" else []
        if lines:
            return lines[0], lines[1:]
    return None, []


def _looks(artifact: Artifact) -> tuple[dict[str, int], dict[str, float]]:
    """How many pictures are kept, and how their masks look; objects of the ground truth are left out."""
    states = {"kept": 0, "dropped": 0, "failed": 0, "upstream": 0}
    sums, numbers = dict[str, float](), Counter[str]()
    for row in rows_of(artifact):
        states[row.status] += 1
        for each in row.objects if row.status == "kept" else ():
            for name, value in each.measures.items() if each.source != _TRUTH else ():
                sums[name] = sums.get(name, 0.0) + value
                numbers[name] += 1
    return states, {name: sums[name] / numbers[name] for name in measures_of(artifact.plan.kind) if name in sums}
