"""The tables of few-shot answers: each fold and their mean, with intervals and floors, and what was published."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...manifests.files.sealed import Json
from ..scores.few_shot import Answered, few_shot_scores, mean_of_folds
from .published_scores import PublishedScores

LEARNER = "learner"
FLOORS = ("constant: no class is there", "all foreground, with the first class", "nearest class token")


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldAnswers:
    """One fold, answered by the learner and, under the names of FLOORS, without looking."""

    said: Mapping[str, Json]  # of the fold: its name, classes, checkpoint …
    answered: Mapping[str, Answered]  # the learner first


def fold_table(fold: FoldAnswers, seed: int, num_resamples: int) -> dict[str, Json]:
    """A line for the learner and for each floor."""
    results = []
    for name, answered in fold.answered.items():
        found = few_shot_scores(answered, seed=seed, num_resamples=num_resamples)
        results.append({"name": name, "miou": found.miou.as_json(), "exact_ratio": found.exact_ratio.as_json()})
    return {**fold.said, "results": results}


def class_rows(fold: FoldAnswers, names: Mapping[int, str]) -> list[dict[str, Json]]:
    return [
        {
            "fold": fold.said["name"],
            "result": name,
            "class": each.label,
            "name": names.get(each.label, ""),
            "iou": each.iou,
            "precision": each.precision,
            "recall": each.recall,
        }
        for name, answered in fold.answered.items()
        for each in few_shot_scores(answered, num_resamples=1).classes
    ]


def mean_table(folds: Sequence[FoldAnswers], seed: int, num_resamples: int) -> list[dict[str, Json]]:
    """Each line the mean of the folds'; a floor that a fold does not have is left out."""
    results = []
    for name in folds[0].answered:
        if all(name in fold.answered for fold in folds):
            miou, ratio = mean_of_folds([fold.answered[name] for fold in folds], seed=seed, num_resamples=num_resamples)
            results.append({"name": name, "miou": miou.as_json(), "exact_ratio": ratio.as_json()})
    return results


def comparison(published: PublishedScores, mean: Sequence[Mapping[str, Json]]) -> dict[str, Json]:
    """What was published, what was measured here, and the difference of the two."""
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
