import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as arrays

from maskmill.manifests.errors import ConfigError
from maskmill.stages.manifest.quality import measure_quality
from maskmill.stages.manifest.quality_rules import Quality, Rule, parse_rule

SHAPES = arrays.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=7)


@st.composite
def pictures(draw):
    shape = draw(SHAPES)
    labels = arrays.arrays(np.uint8, shape, elements=st.sampled_from([0, 0, 1, 1, 2, 255]))
    soft = arrays.arrays(np.float32, shape, elements=st.floats(-0.5, 1.5, width=32))
    return draw(labels), draw(soft), draw(labels), draw(labels)


def slow_components(mask):
    left, sizes = {(int(r), int(c)) for r, c in np.argwhere(mask)}, []
    while left:
        edge, size = [left.pop()], 0
        while edge:
            row, column = edge.pop()
            size += 1
            around = {(row + r, column + c) for r in (-1, 0, 1) for c in (-1, 0, 1)} & left
            left -= around
            edge.extend(around)
        sizes.append(size)
    return sizes


def slow_entropy(value):
    p = min(max(float(value), 0), 1)
    return -sum(q * math.log2(q) for q in (p, 1 - p) if q > 0)


def slow_mean(values):
    values = [float(value) for value in values]
    return sum(values) / len(values) if values else None


def slow_iou(one, other):
    either = [p for p in np.ndindex(one.shape) if one[p] == 1 or other[p] == 1]
    return sum(one[p] == other[p] == 1 for p in either) / len(either) if either else None


def slow_quality(label, soft, before, other):
    """Class 1, pixel by pixel."""
    height, width = label.shape
    pixels = [(row, column) for row in range(height) for column in range(width)]
    inside = [p for p in pixels if label[p] == 1]
    outside = [p for p in pixels if label[p] not in (1, 255)]
    border = [(r, c) for r, c in pixels if r in (0, height - 1) or c in (0, width - 1)]
    sizes = slow_components(label == 1)
    return {
        "area": len(inside) / len(pixels),
        "border_touch": sum(label[p] == 1 for p in border) / len(border),
        "num_components": len(sizes),
        "largest_share": max(sizes) / len(inside) if inside else None,
        "mean_inside": slow_mean(soft[p] for p in inside),
        "mean_outside": slow_mean(soft[p] for p in outside),
        "entropy_inside": slow_mean(slow_entropy(soft[p]) for p in inside),
        "entropy_outside": slow_mean(slow_entropy(soft[p]) for p in outside),
        "agreement": slow_iou(label, before),
        "method_agreement": slow_iou(label, other),
    }


def as_dict(quality: Quality) -> dict[str, Any]:
    return {name: getattr(quality, name) for name in Quality.__slots__}


@given(pictures())
def test_every_measure_is_what_it_says(picture):
    label, *rest = picture
    found = as_dict(measure_quality(label, 1, *rest))
    for name, expected in slow_quality(label, *rest).items():
        assert found.pop(name) == (None if expected is None else pytest.approx(expected, rel=1e-6, abs=1e-9)), name
    assert found == {}


@given(pictures())
def test_measures_are_plain_numbers(picture):
    found = as_dict(measure_quality(picture[0], 1, *picture[1:]))
    assert all(value is None or type(value) in (float, int) for value in found.values())


@given(pictures())
def test_without_map_and_labels_before_the_rest_is_the_same(picture):
    label, *rest = picture
    known, full = as_dict(measure_quality(label, 1)), as_dict(measure_quality(label, 1, *rest))
    missing = {"mean_inside", "mean_outside", "entropy_inside", "entropy_outside", "agreement", "method_agreement"}
    assert {name for name in known if known[name] != full[name]} <= missing
    assert all(known[name] is None for name in missing)


def test_pieces_that_touch_at_a_corner_are_one():
    assert measure_quality(np.eye(4, dtype=np.uint8), 1).num_components == 1


def test_a_map_that_is_not_finite_is_never_averaged():
    soft = np.array([[1, np.nan]], np.float32)
    with pytest.raises(AssertionError, match="finite"):
        measure_quality(np.ones((1, 2), np.uint8), 1, soft)


def quality(**changes: Any) -> Quality:
    usual: dict[str, Any] = {
        "area": 0.3,
        "border_touch": 0.1,
        "num_components": 2,
        "largest_share": 0.9,
        "mean_inside": 0.8,
        "mean_outside": 0.2,
        "entropy_inside": 0.4,
        "entropy_outside": 0.3,
        "agreement": 0.7,
        "method_agreement": 0.6,
    }
    return Quality(**usual | changes)


@pytest.mark.parametrize(
    ("text", "changes", "expected"),
    [
        ("area>=0.01,area<=0.95,agreement>=0.5", {}, ""),
        ("area>=0.01,area<=0.95", {"area": 0.004}, "area 0.004 < 0.01"),
        ("area>=0.01,area<=0.95", {"area": 0.99}, "area 0.99 > 0.95"),
        ("area > 0.3", {}, "area 0.3 <= 0.3"),
        ("area<0.3", {}, "area 0.3 >= 0.3"),
        ("area>=0.3", {}, ""),
        (" num_components <= 1 , area >= 1e-2 ", {}, "num_components 2 > 1"),
        ("agreement>=0.5,area>=0.5", {"agreement": 0.1}, "agreement 0.1 < 0.5"),  # the first that fails
        ("agreement>=0.5", {"agreement": None}, "agreement is not defined, asked >= 0.5"),
        ("area>=0.01", {"agreement": None}, ""),
        ("area>=0.01", {"area": 0.009999999}, "area 0.009999999 < 0.01"),
        ("mean_inside>=-0.5", {}, ""),
        ("num_components<=1000", {"num_components": 1234}, "num_components 1234 > 1000"),
        ("", {"area": 0.0}, ""),
        ("  ", {"area": 0.0}, ""),
    ],
)
def test_a_rule_keeps_or_says_what_failed(text, changes, expected):
    assert parse_rule(text).refusal(quality(**changes)) == expected


def test_a_rule_names_what_it_needs():
    assert parse_rule("area>=0.1,area<=0.9,agreement>=0.5").names == {"area", "agreement"}
    assert parse_rule("") == Rule()


@given(
    st.sampled_from(["area", "largest_share", "mean_inside"]),
    st.sampled_from([">=", "<=", ">", "<"]),
    st.integers(0, 4),
    st.integers(0, 4),
)
def test_a_condition_means_what_it_reads(name, sign, value, bound):
    refused = parse_rule(f"{name}{sign}{bound / 4}").refusal(quality(**{name: value / 4}))
    holds = {">=": value >= bound, "<=": value <= bound, ">": value > bound, "<": value < bound}[sign]
    assert (refused == "") == holds


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("aera>=0.1", "'aera'.*area"),
        ("components<=3", "components.*num_components"),
        ("zzz>=0.1", "zzz.*area, border_touch"),
        ("area=0.1", "'='.*>=, <=, >, <"),
        ("area=>0.1", "'=>'.*>=, <=, >, <"),
        ("area!!0.1", "'!!'.*>="),
        ("area>=big", "'big'"),
        ("area>=nan", "'nan'"),
        ("area<=inf", "'inf'"),
        ("area>=50", "area.*50"),
        ("area>=-0.1", "area.*-0.1"),
        ("area", "'area'"),
        ("area>=0.1,", "''"),
        ("area>=0.1 area<=0.9", "area"),
        (">=0.1", "'>=0.1'"),
    ],
)
def test_a_rule_that_cannot_be_read_is_refused_in_one_sentence(text, said):
    with pytest.raises(ConfigError, match=said) as caught:
        parse_rule(text)
    message = str(caught.value)
    assert "\n" not in message
    assert not message.endswith(".")
