"""One row per episode: the question, the answer and the pixel counts. All scores follow from these rows alone.

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
        ("present", pa.list_(pa.bool_())),  # by the query's ground truth
        ("probabilities", pa.list_(pa.float64())),  # that the query shows the class
        ("decisions", pa.list_(pa.bool_())),
        ("similarities", pa.list_(pa.float64())),  # cosines of class tokens, by which the floor decides
        ("intersections", pa.list_(pa.int64())),  # pixels of the class that are painted with its way
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
        return cls(**{name: tuple(values) for name, values in value.items()})


def episode_row(episode: Episode, answer: Answer, truth_HW: UInt8[np.ndarray, "H W"], void: Void) -> EpisodeRow:
    counts = episode_counts(answer.painted_UV, truth_HW, episode.classes, void)
    by_class = dict(zip(counts.classes.tolist(), counts.pixels.tolist(), strict=True))
    both, predicted, true = zip(*(by_class.get(label, (0, 0, 0)) for label in episode.classes), strict=True)
    return EpisodeRow(answer.probabilities, answer.decisions, answer.similarities, both, predicted, true)


def collect_floor_answers(
    episodes: Sequence[Episode],
    answers: FloorAnswers,
    truth: GroundTruth,
    void: Void,
    is_present: Bool[np.ndarray, "E N"],
) -> Answered:
    """Counts of answers that paint the whole picture with one way, or nothing."""
    counts = []
    for episode, way in zip(episodes, answers.painted.tolist(), strict=True):
        truth_HW = truth.mask(episode.query)
        picture = episode_counts(np.full_like(truth_HW, way), truth_HW, episode.classes, void)
        is_foreground = picture.classes != BACKGROUND
        counts.append(Counts(picture.classes[is_foreground], picture.pixels[is_foreground]))
    queries = tuple(episode.query for episode in episodes)
    return Answered(queries, tuple(counts), exact_episodes(answers.is_present, is_present))


def true_presence(episodes: Iterable[Episode], truth: GroundTruth) -> Bool[np.ndarray, "E N"]:
    """Whether each class has a pixel in the mask of the query; lists and labels are not read."""
    return np.array([np.isin(each.classes, np.unique(truth.mask(each.query))) for each in episodes], bool)


def collect_answers(
    episodes: Sequence[Episode], rows: Sequence[EpisodeRow], is_present: Bool[np.ndarray, "E N"]
) -> Answered:
    """The learner's answers in the form that the scores take."""
    decisions_EN = np.array([row.decisions for row in rows], bool)
    return Answered(
        tuple(episode.query for episode in episodes),
        tuple(_counts(episode, row) for episode, row in zip(episodes, rows, strict=True)),
        exact_episodes(decisions_EN, is_present),
    )


def predictions_table(
    folds: Iterable[tuple[str, Sequence[Episode], Sequence[EpisodeRow], Bool[np.ndarray, "E N"]]],
) -> bytes:
    """The rows of all folds as Parquet."""
    lines = [
        {
            "fold": name,
            "episode": number,
            "query": episode.query,
            "classes": list(episode.classes),
            "supports": [list(supports) for supports in episode.supports],
            "present": present,
            **row.as_json(),
            "unions": [p + t - b for b, p, t in zip(row.intersections, row.predicted, row.true, strict=True)],
        }
        for name, episodes, rows, is_present in folds
        for number, (episode, row, present) in enumerate(zip(episodes, rows, is_present.tolist(), strict=True))
    ]
    return tables.encode_table(pa.Table.from_pylist(lines, COLUMNS))


def _counts(episode: Episode, row: EpisodeRow) -> Counts:
    """Ascending by class, without background, which no score includes."""
    ways = sorted(zip(episode.classes, row.intersections, row.predicted, row.true, strict=True))
    occurring = [way for way in ways if any(way[1:])]
    classes = np.array([way[0] for way in occurring], np.uint8)
    return Counts(classes, np.array([way[1:] for way in occurring], np.int64).reshape(-1, 3))
