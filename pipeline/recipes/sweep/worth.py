"""Compares the combinations of a sweep: their scores, and no-reference scores without ground truth.

Scores come from the metrics artifact and the checkpoint. The difference to the first scored combination is a paired
bootstrap over the same pictures, which gives a narrower interval than two separate ones.
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
    to: int  # its number
    pictures: int  # scored in both
    miou: ScoreLine
    miou_foreground: ScoreLine


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepRow:
    """One combination; unknown values are None or empty."""

    number: int
    values: Mapping[str, Json]  # of the swept keys
    exit_code: int
    error: str
    warnings: Sequence[str]
    artifacts: Mapping[str, str]  # step → path
    counts: Mapping[str, int]  # pictures: kept, dropped, failed, upstream
    measures: Mapping[str, float]  # no-reference scores: means over the objects of kept pictures
    masks: ScoreLine | None  # the first line of the metrics, with its number of pictures
    coverage: Mapping[str, int]  # of pictures with ground truth
    floors: Sequence[ScoreLine]
    difference: ScoreDifference | None
    student: ScoreLine | None
    student_floors: Sequence[ScoreLine]  # and other lines to compare with
    student_pictures: int


class Judge:
    def __init__(self) -> None:
        self._first: tuple[int, Artifact] | None = None  # number and metrics
        self._counts: dict[str, Counts] = {}  # of the first, by id
        self._known: dict[str, tuple[int, ScoreLine, ScoreLine]] = {}  # metrics → its difference

    def row(self, ran: Ran) -> SweepRow:
        head, metrics = _head(ran.made), _open_made("metrics", ran.made)
        scores = json.loads(metrics.file("metrics.json")) if metrics else {"results": [], "coverage": {}}
        judged = _read_student(ran.made)
        counts, measures = _looks(head) if head and not ran.error else ({}, {})
        return SweepRow(
            number=ran.combination.number,
            values={setting.name: setting.value for setting in ran.combination.settings},
            exit_code=ran.exit_code,
            error=str(ran.error or ""),
            warnings=ran.warnings,
            artifacts={step.stage: step.outcome.at.uri for step in ran.made},
            counts=counts,
            measures=measures,
            masks=next(iter(scores["results"]), None),
            coverage=scores["coverage"],
            floors=[line for line in scores["results"] if is_floor(line["name"])],
            difference=self._difference(ran.combination.number, metrics) if metrics else None,
            student=next(iter(judged["lines"]), None),
            student_floors=judged["lines"][1:],
            student_pictures=judged["pictures"],
        )

    def _difference(self, number: int, metrics: Artifact) -> ScoreDifference | None:
        if self._first is None:
            self._first = number, metrics
            return None
        first = self._first[1]
        config, images = _evaluate_config(first), _input(first, "images")
        if (_evaluate_config(metrics), _input(metrics, "images").digest) != (config, images.digest):
            return None  # other options, or other ground truth
        if metrics.digest not in self._known:
            self._counts = self._counts or _counts(first)
            counts = _counts(metrics) if metrics.digest != first.digest else self._counts
            self._known[metrics.digest] = _difference_lines(self._counts, counts, config)
        return ScoreDifference(self._first[0], *self._known[metrics.digest])


def _difference_lines(
    before: Mapping[str, Counts], after: Mapping[str, Counts], config: EvaluateConfig
) -> tuple[int, ScoreLine, ScoreLine]:
    ids = [identifier for identifier in before if identifier in after]
    intervals = [
        difference_interval(
            [before[identifier] for identifier in ids],
            [after[identifier] for identifier in ids],
            partial(mean_iou, with_background=with_background),
            seed=config.seed,
            num_resamples=config.resamples,
        )
        for with_background in BOTH.values()
    ]
    miou, foreground = (interval.as_json() for interval in intervals)
    return len(ids), miou, foreground


def _counts(metrics: Artifact) -> dict[str, Counts]:
    """The counts of each scored picture, with the options that it was scored with."""
    config, images = _evaluate_config(metrics), _input(metrics, "images")
    view = ScoringOptions(config.class_agnostic, boundary=False, sweep=False)
    pictures, _ = score_predictions(config, _input(metrics, "predicted"), images, GroundTruth(images), view)
    return {picture.id: picture.counts for picture in pictures}


def _evaluate_config(metrics: Artifact) -> EvaluateConfig:
    config: EvaluateConfig = config_from(EvaluateConfig, {**metrics.plan.config, **metrics.plan.settings})
    return dataclasses.replace(config, boundary=False)  # which does not change counts


def _input(artifact: Artifact, role: str) -> Artifact:
    return open_artifact(artifact.plan.input(role).place(artifact.place))


def _open_made(kind: str, made: Sequence[Made]) -> Artifact | None:
    places = [step.outcome.at for step in made if step.outcome.kind == kind]
    return open_artifact(places[-1]) if places else None


def _head(made: Sequence[Made]) -> Artifact | None:
    """The last artifact with a row per picture, as in the report."""
    return next((artifact for kind in KINDS if (artifact := _open_made(kind, made)) is not None), None)


def _read_student(made: Sequence[Made]) -> Mapping[str, Json]:
    """The scores of a student that was scored in training: its line first, then the floors."""
    judged = [
        step.outcome.counts["judged"] for step in made if step.stage == "train" and "judged" in step.outcome.counts
    ]
    return judged[0] if judged else {"pictures": 0, "lines": []}


def _looks(artifact: Artifact) -> tuple[dict[str, int], dict[str, float]]:
    """Counts of pictures and no-reference scores of their masks, without objects of the ground truth."""
    states = {"kept": 0, "dropped": 0, "failed": 0, "upstream": 0}
    sums, numbers = dict[str, float](), Counter[str]()
    for row in rows_of(artifact):
        states[row.status] += 1
        for each in row.objects if row.status == "kept" else ():
            for name, value in each.measures.items() if each.source != _TRUTH else ():
                sums[name] = sums.get(name, 0.0) + value
                numbers[name] += 1
    return states, {name: sums[name] / numbers[name] for name in measures_of(artifact.plan.kind) if name in sums}
