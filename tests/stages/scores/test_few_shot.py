"""Scores of few-shot episodes against the published ones, and against sums written out."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from maskmill.stages.evaluate.few_shot_floors import (
    all_foreground,
    choose_threshold,
    cls_similarity,
    constant,
    nearest_cls,
)
from maskmill.stages.scores.few_shot import Answered, episode_counts, exact_episodes, few_shot_scores, mean_of_folds
from maskmill.stages.scores.iou import sum_counts


def golden_answers(golden: dict[str, Any]) -> Answered:
    counts = []
    for painted, target, classes in zip(golden["prediction"], golden["target"], golden["support_classes"], strict=True):
        truth = np.array([0, *classes], np.uint8)[target]
        counts.append(episode_counts(painted, truth, classes.tolist(), "background"))
    is_exact = exact_episodes(golden["predicted_present"], golden["class_present"])
    return Answered(tuple(f"query{n}" for n in range(len(counts))), tuple(counts), is_exact)


@pytest.fixture(scope="module", params=[1, 2])
def golden(reference, request):
    with np.load(reference / f"golden/fscs_metrics_{request.param}way.npz") as arrays:
        return dict(arrays)


def test_scores_are_the_published_ones(golden):
    found = few_shot_scores(golden_answers(golden), num_resamples=50)
    assert found.miou.estimate == pytest.approx(float(golden["miou"]) / 100, abs=1e-6)
    assert found.exact_ratio.estimate == pytest.approx(float(golden["exact_ratio"]) / 100, abs=1e-6)
    assert [each.label for each in found.classes] == golden["novel_classes"].tolist()
    assert (found.num_episodes, found.num_queries) == (40, 40)


def test_a_mean_over_episodes_would_not_pass(golden):
    """The published mIoU is of sums over episodes."""
    answered = golden_answers(golden)
    alone = [
        few_shot_scores(Answered((query,), (counts,), np.array([True])), num_resamples=1).miou.estimate
        for query, counts in zip(answered.queries, answered.counts, strict=True)
    ]
    known = [each for each in alone if each is not None]
    assert abs(np.mean(known) - float(golden["miou"]) / 100) > 0.01


episodes = st.lists(st.tuples(st.integers(0, 4), st.integers(1, 3), st.integers(0, 10**6)), min_size=1, max_size=8)


def drawn(query: int, way: int, seed: int) -> tuple[str, list[int], np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    classes = (1 + generator.choice(9, way, replace=False)).tolist()
    truth = generator.choice(np.array([0, 255, 77, *classes], np.uint8), (4, 5))
    return f"q{query}", classes, generator.integers(0, way + 1, (4, 5), np.uint8), truth


@given(episodes, st.sampled_from(["background", "ignore"]))
def test_iou_is_of_sums_per_class_without_background(asked, void):
    both: dict[int, int] = {}
    union: dict[int, int] = {}
    counts, queries = [], []
    for query, classes, painted, truth in (drawn(*each) for each in asked):
        queries.append(query)
        counts.append(episode_counts(painted, truth, classes, void))
        used = np.ones_like(truth, bool) if void == "background" else truth != 255
        for way, label in enumerate(classes, 1):
            there, found = (truth == label) & used, (painted == way) & used
            both[label] = both.get(label, 0) + int((there & found).sum())
            union[label] = union.get(label, 0) + int((there | found).sum())
    shares = {label: both[label] / union[label] for label in both if union[label]}
    scored = few_shot_scores(Answered(tuple(queries), tuple(counts), np.ones(len(queries), bool)), num_resamples=5)
    assert {each.label: each.iou for each in scored.classes} == pytest.approx(shares)
    if shares:
        assert scored.miou.estimate == pytest.approx(np.mean(list(shares.values())))
    else:
        assert scored.miou.estimate is None
    assert scored.num_queries == len(set(queries))


def test_void_is_background_or_left_out():
    """Half of the picture is void and painted: a false positive in the one rule, nothing in the other."""
    truth, painted = np.zeros((2, 4), np.uint8), np.zeros((2, 4), np.uint8)
    truth[0], truth[1, :2] = 255, 5
    painted[0], painted[1, :2] = 1, 1
    scored = {}
    for void in ("background", "ignore"):
        counts = episode_counts(painted, truth, [5], void)
        scored[void] = few_shot_scores(Answered(("q",), (counts,), np.array([True])), num_resamples=1).miou.estimate
    assert scored == {"background": pytest.approx(2 / 6), "ignore": pytest.approx(1)}


def test_truth_of_void_alone_scores_what_is_painted():
    truth, painted = np.full((2, 2), 255, np.uint8), np.ones((2, 2), np.uint8)
    ignored = episode_counts(painted, truth, [5], "ignore")
    assert len(ignored.classes) == 0
    answered = Answered(("q",), (ignored,), np.array([False]))
    assert few_shot_scores(answered, num_resamples=3).miou.estimate is None
    assert few_shot_scores(answered, num_resamples=3).exact_ratio.estimate == 0
    assert episode_counts(painted, truth, [5], "background").pixels.tolist() == [[0, 0, 4], [0, 4, 0]]


def test_painting_a_class_that_is_not_there_costs():
    truth, nothing = np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.uint8)
    right = np.full((2, 2), 5, np.uint8), np.ones((2, 2), np.uint8)
    counts = [episode_counts(right[1], right[0], [5], "background"), episode_counts(nothing, truth, [5], "background")]
    fired = [counts[0], episode_counts(np.ones((2, 2), np.uint8), truth, [5], "background")]
    for found, expected in ((counts, 1), (fired, 0.5)):
        answered = Answered(("a", "b"), tuple(found), np.array([True, True]))
        assert few_shot_scores(answered, num_resamples=1).miou.estimate == pytest.approx(expected)


def test_an_episode_is_exact_where_every_way_is():
    found = np.array([[True, False], [True, True], [False, False]])
    true = np.array([[True, False], [True, False], [True, True]])
    assert exact_episodes(found, true).tolist() == [True, False, False]


def coin(num: int, copies: int) -> Answered:
    """Every other picture right, each asked `copies` times."""
    right = np.full((2, 2), 5, np.uint8)
    one = [episode_counts(np.full((2, 2), n % 2, np.uint8), right, [5], "background") for n in range(num)]
    return Answered(
        tuple(f"q{n}" for n in range(num)) * copies, tuple(one * copies), np.tile(np.arange(num) % 2 == 1, copies)
    )


def width(interval):
    return interval.high - interval.low


def test_a_picture_asked_again_makes_nothing_surer():
    once, often = (few_shot_scores(coin(60, copies), num_resamples=400) for copies in (1, 4))
    for name in ("miou", "exact_ratio"):
        assert getattr(often, name).estimate == pytest.approx(0.5)
        assert width(getattr(often, name)) == pytest.approx(width(getattr(once, name)), rel=0.15)


def test_the_mean_of_folds_is_surer_than_a_fold():
    fold = coin(80, 1)
    alone, (miou, ratio) = few_shot_scores(fold, num_resamples=800), mean_of_folds([fold] * 4, num_resamples=800)
    for one, mean in ((alone.miou, miou), (alone.exact_ratio, ratio)):
        assert mean.estimate == pytest.approx(0.5)
        assert width(mean) == pytest.approx(width(one) / 2, rel=0.25)


def test_the_mean_of_folds_weighs_folds_alike():
    small, large = coin(10, 1), coin(400, 1)
    wrong = Answered(large.queries, large.counts, np.zeros(400, bool))
    assert mean_of_folds([small, wrong], num_resamples=20)[1].estimate == pytest.approx(0.25)


def test_floors_paint_one_way_or_nothing():
    assert constant(2, 3, is_present=True).is_present.tolist() == [[True] * 3] * 2
    assert constant(2, 3, is_present=False).painted.tolist() == [0, 0]
    floor = all_foreground(3, 2)
    assert floor.is_present.all()
    assert floor.painted.tolist() == [1, 1, 1]
    nearest = nearest_cls(np.array([[0.2, 0.6], [0.1, 0.3], [0.5, 0.5]]), 0.5)
    assert nearest.is_present.tolist() == [[False, True], [False, False], [True, True]]
    assert nearest.painted.tolist() == [2, 0, 1]


def test_all_foreground_scores_the_share_of_the_class():
    truth = np.array([[5, 0, 0, 0]], np.uint8)
    floor = all_foreground(1, 1)
    counts = episode_counts(np.full_like(truth, floor.painted[0]), truth, [5], "background")
    assert few_shot_scores(Answered(("q",), (counts,), np.array([True])), num_resamples=1).miou.estimate == 0.25
    assert sum_counts([counts]).classes.tolist() == [0, 5]


def test_similarity_is_the_mean_cosine_over_shots():
    query, supports = np.array([1.0, 0.0], np.float16), np.array([[2.0, 0.0], [0.0, 3.0], [-1.0, 0.0]], np.float16)
    assert cls_similarity(query, supports[:1]) == pytest.approx(1)
    assert cls_similarity(query, supports) == pytest.approx(0)
    assert cls_similarity(np.zeros(2, np.float16), supports) == 0


@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=30))
def test_no_threshold_is_right_more_often_than_the_chosen(pairs):
    similarity = np.array([value for value, _ in pairs], np.float64)
    is_present = np.array([present for _, present in pairs])

    def right(threshold):
        return int(((similarity >= threshold) == is_present).sum())

    chosen = choose_threshold(similarity, is_present)
    others = [-np.inf, np.inf, *np.arange(-1, 8) + 0.5]
    assert right(chosen) == max(right(each) for each in others)
    lower = [each for each in others if ((similarity >= each) & (similarity < chosen)).any()]
    assert all(right(each) < right(chosen) for each in lower)
