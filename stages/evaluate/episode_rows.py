"""One row per episode: what was asked, what was answered, and the pixels. All scores are made of these rows alone.

Letters: N ways, E episodes, H W pixels.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, UInt8

from ...manifests.artifact import tables
from ...manifests.classes import BACKGROUND
from ...manifests.files.sealed import Json
from ..choices import Void
from ..scores.few_shot import Answered, episode_counts, exact_episodes
from ..scores.iou import Counts
from ..scores.truth import GroundTruth
from ..students.episodes import Episode
from .answering import Answer
from .few_shot_floors import FloorAnswers

COLUMNS = pa.schema(
    [
        ("fold", pa.string()),
        ("episode", pa.int64()),
        ("query", pa.string()),
        ("classes", pa.list_(pa.int64())),
        ("supports", pa.list_(pa.list_(pa.string()))),
        ("present", pa.list_(pa.bool_())),  # as the query's ground truth has it
        ("probabilities", pa.list_(pa.float64())),  # that the class is there
        ("decisions", pa.list_(pa.bool_())),
        ("similarities", pa.list_(pa.float64())),  # of class tokens, which the floor decides by
        ("intersections", pa.list_(pa.int64())),  # pixels painted with the way that are the class
        ("unions", pa.list_(pa.int64())),
        ("predicted", pa.list_(pa.int64())),
        ("true", pa.list_(pa.int64())),
    ]
)


@dataclass(frozen=True, slots=True)
class EpisodeRow:
    """Tuples have one entry per way."""

    probabilities: tuple[float, ...]
    decisions: tuple[bool, ...]
    similarities: tuple[float, ...]
    intersections: tuple[int, ...]
    predicted: tuple[int, ...]
    true: tuple[int, ...]

    def as_json(self) -> dict[str, Json]:
        return {name: list(value) for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, value: Mapping[str, Json]) -> "EpisodeRow":
        return cls(**{name: tuple(each) for name, each in value.items()})


def episode_row(episode: Episode, answer: Answer, truth_HW: UInt8[np.ndarray, "H W"], void: Void) -> EpisodeRow:
    counts = episode_counts(answer.painted_UV, truth_HW, episode.classes, void)
    of_class = dict(zip(counts.classes.tolist(), counts.pixels.tolist(), strict=True))
    both, predicted, true = zip(*(of_class.get(label, (0, 0, 0)) for label in episode.classes), strict=True)
    return EpisodeRow(answer.probabilities, answer.decisions, answer.similarities, both, predicted, true)


def collect_floor_answers(
    episodes: Sequence[Episode],
    answers: FloorAnswers,
    truth: GroundTruth,
    void: Void,
    is_present: Bool[np.ndarray, "E N"],
) -> Answered:
    """Of answers that paint a whole picture alike, or nothing."""
    counts = []
    for episode, way in zip(episodes, answers.painted.tolist(), strict=True):
        truth_HW = truth.mask(episode.query)
        found = episode_counts(np.full_like(truth_HW, way), truth_HW, episode.classes, void)
        kept = found.classes != BACKGROUND
        counts.append(Counts(found.classes[kept], found.pixels[kept]))
    queries = tuple(each.query for each in episodes)
    return Answered(queries, tuple(counts), exact_episodes(answers.is_present, is_present))


def true_presence(episodes: Iterable[Episode], truth: GroundTruth) -> Bool[np.ndarray, "E N"]:
    """A class is there where it has a pixel at the picture's own size: what lists or labels say is not asked."""
    return np.array([np.isin(each.classes, np.unique(truth.mask(each.query))) for each in episodes], bool)


def collect_answers(
    episodes: Sequence[Episode], rows: Sequence[EpisodeRow], is_present: Bool[np.ndarray, "E N"]
) -> Answered:
    """As the scores take it."""
    decisions_EN = np.array([row.decisions for row in rows], bool)
    return Answered(
        tuple(each.query for each in episodes),
        tuple(_counts(episode, row) for episode, row in zip(episodes, rows, strict=True)),
        exact_episodes(decisions_EN, is_present),
    )


def predictions_table(
    folds: Iterable[tuple[str, Sequence[Episode], Sequence[EpisodeRow], Bool[np.ndarray, "E N"]]],
) -> bytes:
    """The rows as Parquet, of each fold by its name."""
    found = [
        {
            "fold": name,
            "episode": number,
            "query": episode.query,
            "classes": list(episode.classes),
            "supports": [list(of_way) for of_way in episode.supports],
            "present": present,
            **row.as_json(),
            "unions": [p + t - b for b, p, t in zip(row.intersections, row.predicted, row.true, strict=True)],
        }
        for name, episodes, rows, is_present in folds
        for number, (episode, row, present) in enumerate(zip(episodes, rows, is_present.tolist(), strict=True))
    ]
    return tables.encode_table(pa.Table.from_pylist(found, COLUMNS))


def _counts(episode: Episode, row: EpisodeRow) -> Counts:
    """By class, ascending, without background, which is no part of any score."""
    order = sorted(range(len(episode.classes)), key=lambda way: episode.classes[way])
    pixels = [(row.intersections[way], row.predicted[way], row.true[way]) for way in order]
    occurring = [place for place, each in enumerate(pixels) if any(each)]
    classes = np.array([episode.classes[order[place]] for place in occurring], np.uint8)
    return Counts(classes, np.array([pixels[place] for place in occurring], np.int64).reshape(-1, 3))
