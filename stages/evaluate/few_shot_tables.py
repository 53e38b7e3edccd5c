"""The tables of few-shot scores: each fold and their mean, with intervals and floors, and the published scores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...manifests.files.sealed import Json
from ..scores.few_shot import Answered, few_shot_scores, mean_of_folds
from .published_scores import PublishedScores

LEARNER = "learner"
FLOORS = ("constant: no class is there", "all foreground, with the first class", "nearest class token")


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldAnswers:
    """One fold, answered by the learner and by the floors of FLOORS."""

    said: Mapping[str, Json]  # about the fold: its name, classes, checkpoint …
    answered: Mapping[str, Answered]  # by name, the learner first


def fold_table(fold: FoldAnswers, seed: int, num_resamples: int) -> dict[str, Json]:
    """A line for the learner and one for each floor."""
    results = []
    for name, answered in fold.answered.items():
        scores = few_shot_scores(answered, seed=seed, num_resamples=num_resamples)
        results.append({"name": name, "miou": scores.miou.as_json(), "exact_ratio": scores.exact_ratio.as_json()})
    return {**fold.said, "results": results}


def class_rows(fold: FoldAnswers, names: Mapping[int, str]) -> list[dict[str, Json]]:
    return [
        {
            "fold": fold.said["name"],
            "result": name,
            "class": scores.label,
            "name": names.get(scores.label, ""),
            "iou": scores.iou,
            "precision": scores.precision,
            "recall": scores.recall,
        }
        for name, answered in fold.answered.items()
        for scores in few_shot_scores(answered, num_resamples=1).classes
    ]


def mean_table(folds: Sequence[FoldAnswers], seed: int, num_resamples: int) -> list[dict[str, Json]]:
    """The mean of each line over the folds; a floor that a fold lacks is left out."""
    results = []
    for name in folds[0].answered:
        if all(name in fold.answered for fold in folds):
            miou, ratio = mean_of_folds([fold.answered[name] for fold in folds], seed=seed, num_resamples=num_resamples)
            results.append({"name": name, "miou": miou.as_json(), "exact_ratio": ratio.as_json()})
    return results


def comparison(published: PublishedScores, mean: Sequence[Mapping[str, Json]]) -> dict[str, Json]:
    """The published scores, the measured ones, and their differences."""
    measured = next(line for line in mean if line["name"] == LEARNER)
    values = {"exact_ratio": published.exact_ratio, "miou": published.miou}
    return {
        name: {
            "published": value,
            "measured": measured[name],
            "difference": None if measured[name]["estimate"] is None else measured[name]["estimate"] - value,
        }
        for name, value in values.items()
    }
