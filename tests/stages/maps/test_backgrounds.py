"""Background rules: what a user may write, and the label of every pixel against the rule written out pixel by pixel."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, strategies as st
from hypothesis.extra.numpy import arrays

from builders.mistakes import assert_named
from maskmill.manifests.errors import ConfigError
from maskmill.stages.maps.background_rules import (
    BackgroundRule,
    ConstantScore,
    OwnRow,
    PowerOfRest,
    RowThresholds,
    TwoScores,
    parse_background,
)
from maskmill.stages.maps.backgrounds import PictureMaps, hard_labels, join_levels, levels, soft_scores

shares = st.floats(0, 1)
rules = st.one_of(
    st.just(RowThresholds()),
    st.builds(ConstantScore, shares),
    st.builds(PowerOfRest, st.floats(0.1, 50)),
    st.lists(shares, min_size=2, max_size=2, unique=True).map(lambda pair: TwoScores(*sorted(pair))),
)
coarse = st.integers(0, 8).map(lambda eighths: eighths / 8)  # so that scores meet each other and the thresholds


@st.composite
def row_sets(draw: st.DrawFn, least_label: int = 1) -> PictureMaps:
    """One to four rows of dense labels, several of which may be equal."""
    num_rows = draw(st.integers(1, 4))
    labels = draw(st.lists(st.integers(least_label, num_rows), min_size=num_rows, max_size=num_rows))
    present = sorted(set(labels) | {0})
    size = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    maps_KHW = draw(arrays(np.float32, (num_rows, *size), elements=coarse))
    thresholds_K = draw(arrays(np.float64, num_rows, elements=coarse))
    return PictureMaps(maps_KHW, thresholds_K, np.array([present.index(label) for label in labels], np.uint8))


def written_out(scores: list[tuple[int, float]], background: float) -> int:
    """The label of one pixel: the highest score, if it beats the background and no other class has it too."""
    highest = max((score for _, score in scores), default=-math.inf)
    if not highest > background:
        return 0
    winners = {label for label, score in scores if score == highest}
    return winners.pop() if len(winners) == 1 else 255


def pixel_label(scores: list[tuple[int, float]], thresholds: list[float], rule: BackgroundRule) -> int:
    match rule:
        case RowThresholds():
            pairs = zip(scores, thresholds, strict=True)
            return written_out([(label, score) for (label, score), cut in pairs if score > cut], -math.inf)
        case ConstantScore(score):
            return written_out(scores, float(np.float32(score)))
        case PowerOfRest(exponent):
            rest = np.float32(1 - max(score for _, score in scores))
            return written_out(scores, float(np.power(rest, np.float32(exponent))))
        case TwoScores(low, high):
            certain = pixel_label(scores, thresholds, ConstantScore(high))
            possible = pixel_label(scores, thresholds, ConstantScore(low))
            return certain if certain else (0 if possible == 0 else 255)
    raise AssertionError(rule)


@given(row_sets(), rules)
def test_every_pixel_is_labelled_by_the_rule(rows: PictureMaps, rule: BackgroundRule) -> None:
    label_HW = hard_labels(rows, rule)
    for position in np.ndindex(label_HW.shape):
        scores = [(int(label), float(rows.maps_KHW[k][position])) for k, label in enumerate(rows.labels_K)]
        assert label_HW[position] == pixel_label(scores, list(rows.thresholds_K), rule)


@given(row_sets(least_label=0))
def test_a_background_map_competes_with_the_classes(rows: PictureMaps) -> None:
    assume(0 in rows.labels_K)
    label_HW = hard_labels(rows, OwnRow())
    for position in np.ndindex(label_HW.shape):
        scores = [(int(label), float(rows.maps_KHW[k][position])) for k, label in enumerate(rows.labels_K)]
        background = max(score for label, score in scores if label == 0)
        assert label_HW[position] == written_out([pair for pair in scores if pair[0]], background)


@given(row_sets(), rules)
def test_soft_scores_win_where_the_rule_labels(rows: PictureMaps, rule: BackgroundRule) -> None:
    """Also for thresholds, if they are equal: stretched maps are then in the order of the maps."""
    same = PictureMaps(rows.maps_KHW, np.full_like(rows.thresholds_K, rows.thresholds_K[0]), rows.labels_K)
    for level in levels(rule):
        scores_LHW, label_HW = soft_scores(same, level), hard_labels(same, level)
        assert len(scores_LHW) == 1 + rows.labels_K.max()
        assert scores_LHW.min() >= 0
        assert scores_LHW.max() <= 1
        is_plain = label_HW != 255
        assert np.array_equal(scores_LHW.argmax(axis=0)[is_plain], label_HW[is_plain])


@given(st.floats(0.01, 0.99), arrays(np.float32, (1, 2, 5), elements=st.floats(0, 1, width=32)))
def test_a_threshold_is_stretched_to_one_half(threshold: float, maps_KHW: np.ndarray) -> None:
    maps_KHW[0, 0, :3] = [0, np.float32(threshold), 1]
    background_HW, class_HW = soft_scores(
        PictureMaps(maps_KHW, np.array([threshold]), np.ones(1, np.uint8)), RowThresholds()
    )
    assert np.allclose(class_HW[0, :3], [0, 0.5, 1], atol=1e-6)
    assert np.allclose(background_HW, 1 - class_HW, atol=1e-6)
    order = maps_KHW[0].ravel().argsort(kind="stable")
    assert (np.diff(class_HW.ravel()[order]) >= 0).all()
    double_HW = maps_KHW[0].astype(np.float64)
    inner_HW = np.where(
        double_HW > threshold, 0.5 + 0.5 * (double_HW - threshold) / (1 - threshold), 0.5 * double_HW / threshold
    )
    assert np.allclose(class_HW, inner_HW, atol=1e-6)


@pytest.mark.parametrize("threshold", [-3.0, 0.0, 1.0, 7.0])
def test_maps_and_thresholds_of_any_range_are_stretched_into_0_to_1(threshold: float) -> None:
    maps_KHW = np.array([[[-2, -0.5, 0, 0.3, 1, 4]]], np.float32)
    rows = PictureMaps(maps_KHW, np.array([threshold]), np.ones(1, np.uint8))
    background_HW, class_HW = soft_scores(rows, RowThresholds())
    assert ((class_HW >= 0) & (class_HW <= 1)).all()
    assert np.array_equal(class_HW > background_HW, hard_labels(rows, RowThresholds()) == 1)


def test_a_score_above_one_leaves_no_background() -> None:
    rows = PictureMaps(np.array([[[1.5, 0.5]]], np.float32), np.zeros(1), np.ones(1, np.uint8))
    assert soft_scores(rows, PowerOfRest(0.5))[0, 0] == pytest.approx([0, math.sqrt(0.5)])


def test_two_label_maps_agree_as_in_irn() -> None:
    high, low = (np.array([values], np.uint8) for values in ([0, 0, 0, 2, 2, 255, 0], [0, 1, 255, 0, 1, 1, 0]))
    assert join_levels(high, low).tolist() == [[0, 255, 255, 2, 2, 255, 0]]
    assert levels(TwoScores(0.05, 0.3)) == (ConstantScore(0.3), ConstantScore(0.05))


@given(st.one_of(rules, st.just(OwnRow())))
def test_a_rule_is_read_as_it_is_written(rule: BackgroundRule) -> None:
    assert parse_background(str(rule)) == rule


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("rows", RowThresholds()),
        ("map", OwnRow()),
        (" constant:0.4 ", ConstantScore(0.4)),
        ("power:1", PowerOfRest(1.0)),
        ("two:.05,.3", TwoScores(0.05, 0.3)),
    ],
)
def test_users_write(text: str, rule: BackgroundRule) -> None:
    assert parse_background(text) == rule


@pytest.mark.parametrize(
    "text",
    ["", "row", "rows:", "map:1", "constant", "constant:", "constant:x", "constant:0.1,0.2", "power:1,2", "two:0.3"],
)
def test_another_form_is_refused_with_those_there_are(text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_background(text)
    assert repr(text) in str(refused.value)
    assert_named(str(refused.value), "background rows map constant:SCORE power:EXPONENT two:LOW,HIGH")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("constant:1.2", "0 to 1"),
        ("constant:-0.1", "0 to 1"),
        ("constant:nan", "0 to 1"),
        ("power:0", "above 0"),
        ("power:inf", "above 0"),
        ("power:nan", "above 0"),
        ("two:0.3,0.05", "0.3"),
        ("two:0.3,0.3", "0.3"),
        ("two:nan,0.3", "0 to 1"),
        ("two:0.3,2", "0 to 1"),
    ],
)
def test_a_number_out_of_range_is_refused(text: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=f"background.*{expected}"):
        parse_background(text)


@pytest.mark.parametrize("rule", [RowThresholds(), ConstantScore(0.4), PowerOfRest(1.0)])
def test_a_background_map_is_never_overlooked(rule: BackgroundRule) -> None:
    rows = PictureMaps(np.zeros((2, 1, 1), np.float32), np.zeros(2), np.array([0, 1], np.uint8))
    for labels in (hard_labels, soft_scores):
        with pytest.raises(ConfigError, match="map"):
            labels(rows, rule)


def test_the_rule_map_needs_a_background_map() -> None:
    with pytest.raises(ConfigError, match="class 0"):
        hard_labels(PictureMaps(np.zeros((1, 1, 1), np.float32), np.zeros(1), np.ones(1, np.uint8)), OwnRow())


def test_what_is_given_stays_as_it_is() -> None:
    rows = PictureMaps(
        np.random.default_rng(0).random((2, 4, 4), np.float32), np.full(2, 0.5), np.array([1, 2], np.uint8)
    )
    before = rows.maps_KHW.copy()
    for rule in (RowThresholds(), ConstantScore(0.4), PowerOfRest(2.0)):
        soft_scores(rows, rule)[:] = 7
        hard_labels(rows, rule)
    assert np.array_equal(rows.maps_KHW, before)
