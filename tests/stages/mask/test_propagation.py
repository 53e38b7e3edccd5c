"""`mask --propagate`: scores that are spread over patches of the picture that are alike."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from builders.configs import make_config
from builders.mistakes import refused
from builders.small_tokens import BACKBONE, PICTURES, Bench
from builders.toy_tokens import TOKENS, TokensConfig
from maskmill.manifests.artifact.artifact import Artifact, open_artifact
from maskmill.manifests.artifact.tokens import Tokens, open_tokens
from maskmill.manifests.errors import ConfigError
from maskmill.pipeline.answers.verify import verify
from maskmill.pipeline.running.options import RunOptions
from maskmill.pipeline.running.run import run
from maskmill.stages.mask import computing, propagation
from maskmill.stages.mask.config import MaskConfig
from maskmill.stages.mask.stage import STAGE, wants
from maskmill.stages.stage import UnitResult, Work

FIELDS = ("keys", "cls_query", "cls_attention")
ATTENTION: dict[str, Any] = {"method": "cls-attention"}
WHOLE = RunOptions(max_bad=1.0)
TOY_GRID = (5, 6)
Change = Callable[[dict[str, np.ndarray]], None]  # of the arrays of a unit


def toys(bench: Bench, change: Change) -> Tokens:
    """Tokens of random numbers, changed."""

    def run_unit(work: Work, config: TokensConfig, prepared: Any) -> UnitResult:
        result = TOKENS.run_unit(work, config, prepared)
        arrays = {name: values.copy() for name, values in result.arrays.items()}
        change(arrays)
        return UnitResult(result.rows, arrays)

    out = bench.new_out()
    run(replace(TOKENS, run_unit=run_unit), TokensConfig(grid=TOY_GRID), {"images": str(bench.images)}, str(out), WHOLE)
    return open_tokens(str(out))


def by_row(maps: Artifact, field: str = "map") -> dict[tuple[Any, ...], np.ndarray]:
    """The maps of rows that are ok."""
    rows = maps.rows(["id", "class", "instance", "status"]).to_pylist()
    pairs = zip(rows, maps.read(field, range(len(rows))), strict=True)
    return {(row["id"], row["class"], row["instance"]): value for row, value in pairs if row["status"] == "ok"}


def valid_of(tokens: Tokens, name: str) -> np.ndarray:
    """The patches of a view, in its direction, that are more than half picture."""
    (row,) = [row for row in tokens.rows.to_pylist() if row["id"] == name]
    top, left, bottom, right = row["box"]
    is_picture = np.zeros((64, 96), bool)
    is_picture[top:bottom, left:right] = True
    return is_picture.reshape(4, 16, 6, 16).mean(axis=(1, 3)) > 0.5


def slow_walk(keys: np.ndarray, scores: np.ndarray, share: float) -> np.ndarray:
    """By the definition, one patch after the other, and without a factor of anything."""
    unit = keys.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    cosine = np.maximum(unit @ unit.T, 0)
    np.fill_diagonal(cosine, 0)
    weight = np.zeros_like(cosine)
    for patch, row in enumerate(cosine):
        for other in np.argsort(-row)[: propagation.NEIGHBOURS]:
            weight[patch, other] = weight[other, patch] = row[other] ** propagation.POWER
    step = weight / weight.sum(axis=1, keepdims=True)
    return (1 - share) * np.linalg.inv(np.eye(len(step)) - share * step) @ scores


# ---- values


@pytest.mark.parametrize("share", [0.5, 0.95, 0.999])
def test_noisy_scores_become_constant_within_clusters(bench: Bench, share: float) -> None:
    """Patches of one cluster are all alike, and those of the other at right angles: what remains of a score's distance
    from its cluster's mean can be said in one line."""
    is_left = np.broadcast_to(np.arange(TOY_GRID[1]) < 2, TOY_GRID)

    def cluster(arrays: dict[str, np.ndarray]) -> None:
        arrays["keys"][:] = 0
        arrays["keys"][:, is_left.ravel(), 1] = 1
        arrays["keys"][:, ~is_left.ravel(), 6] = 3

    tokens = toys(bench, cluster)
    before, after = (by_row(bench.mask(tokens, **ATTENTION, propagate=asked)) for asked in (0, share))
    assert before.keys() == after.keys()
    for row, scores in before.items():
        for part in (is_left, ~is_left):
            mean, rest = scores[part].mean(), (1 - share) / (1 + share / (part.sum() - 1))
            np.testing.assert_allclose(after[row][part], mean + rest * (scores[part] - mean), atol=1e-6)


VIEWS: list[dict[str, Any]] = [{}, {"flip": True}, {"dtype": "int8"}]
METHODS: list[dict[str, Any]] = [ATTENTION, {"supports": "0"}, {"supports": "2"}, {"method": "ncut", "tau": 0.1}]


@pytest.mark.parametrize("view", VIEWS, ids=repr)
@pytest.mark.parametrize("asked", METHODS, ids=lambda asked: "-".join(map(str, asked.values())))
def test_maps_are_what_the_definition_gives(
    bench: Bench, view: dict[str, Any], asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(propagation, "NEIGHBOURS", 3)  # of up to 24 patches
    tokens, share = bench.tokens(fields=FIELDS, **view), 0.8
    before, after = (by_row(bench.mask(tokens, **asked, propagate=spread)) for spread in (0, share))
    assert before.keys() == after.keys()
    changed = padded = 0
    for row, scores in before.items():
        turn = (slice(None), slice(None, None, -1 if view.get("flip") else 1))
        valid, found, given = valid_of(tokens, row[0]), after[row][turn], scores[turn]
        expected = given.copy()
        expected[valid] = slow_walk(tokens.read("keys", [row[0]])[0][valid.ravel()], given[valid], share)
        np.testing.assert_allclose(found, expected, atol=2e-6)
        np.testing.assert_array_equal(found[~valid], given[~valid])
        assert given[valid].min() <= found[valid].min() <= found[valid].max() <= given[valid].max()
        changed, padded = changed + bool((found != given).any()), padded + (not valid.all())
    assert changed > 3
    assert padded > 3


def test_a_constant_map_stays_as_it_is(bench: Bench) -> None:
    def flatten(arrays: dict[str, np.ndarray]) -> None:
        arrays["cls_attention"][:] = 0.1

    tokens = toys(bench, flatten)
    plain, spread = (bench.mask(tokens, **ATTENTION, propagate=share) for share in (0, 0.9))
    for row, scores in by_row(plain).items():
        np.testing.assert_array_equal(by_row(spread)[row], scores)
    assert {row["note"] for row in spread.rows().to_pylist() if row["status"] == "ok"} == {"no_structure"}


def test_equal_scores_within_a_map_never_leave_its_range(bench: Bench) -> None:
    def two_levels(arrays: dict[str, np.ndarray]) -> None:
        arrays["cls_attention"][:] = 0.25
        arrays["cls_attention"][..., :11] = 0.75

    maps = by_row(bench.mask(toys(bench, two_levels), **ATTENTION, propagate=0.999))
    low, high = np.float32(0.25) / np.float32(0.75), 1
    assert maps
    for values in maps.values():
        assert low <= values.min() <= values.max() <= high


def test_patches_that_are_like_no_other_keep_their_score(bench: Bench) -> None:
    """One without keys, and one whose keys are the opposite of all others."""

    def odd_patches(arrays: dict[str, np.ndarray]) -> None:
        arrays["keys"][:] = 1
        arrays["keys"][:, 3], arrays["keys"][:, 7] = 0, -1

    tokens = toys(bench, odd_patches)
    before, after = (by_row(bench.mask(tokens, **ATTENTION, propagate=share)) for share in (0, 0.9))
    for row, scores in before.items():
        np.testing.assert_allclose(after[row].ravel()[[3, 7]], scores.ravel()[[3, 7]], rtol=1e-6)
        assert np.ptp(np.delete(after[row], [3, 7])) < np.ptp(np.delete(scores, [3, 7])) / 4


# ---- what it leaves alone


@pytest.mark.parametrize("asked", METHODS, ids=lambda asked: "-".join(map(str, asked.values())))
def test_a_share_of_nothing_changes_no_byte(bench: Bench, asked: dict[str, Any]) -> None:
    tokens = bench.tokens(fields=FIELDS)
    plain, none = bench.mask(tokens, **asked), bench.mask(tokens, **asked, propagate=0)
    assert "propagate" not in none.plan.config
    assert none.plan.fingerprint == plain.plan.fingerprint
    assert plain.rows().equals(none.rows())
    assert bench.mask(tokens, **asked, propagate=0.5).plan.fingerprint != plain.plan.fingerprint


@pytest.mark.parametrize("asked", [ATTENTION, {"supports": "0"}], ids=["cls-attention", "cst"])
def test_maps_of_heads_stay_as_they_are(bench: Bench, asked: dict[str, Any]) -> None:
    tokens = bench.tokens(fields=FIELDS)
    plain, spread = (bench.mask(tokens, **asked, per_head=True, propagate=share) for share in (0, 0.9))
    for row, heads in by_row(plain, "head_maps").items():
        np.testing.assert_array_equal(by_row(spread, "head_maps")[row], heads)
        assert (by_row(spread)[row] != by_row(plain)[row]).any()


SPOILT = [(ATTENTION, "keys"), (ATTENTION, "cls_attention"), ({"supports": "0"}, "keys")]


@pytest.mark.filterwarnings("ignore:invalid value")  # of the method itself
@pytest.mark.parametrize(("asked", "field"), SPOILT)
def test_what_is_not_finite_fails_its_picture_alone(bench: Bench, asked: dict[str, Any], field: str) -> None:
    def spoil(arrays: dict[str, np.ndarray]) -> None:
        arrays[field][1, ..., 2] = np.inf

    whole, spoilt = toys(bench, lambda arrays: None), toys(bench, spoil)
    expected, found = (by_row(bench.mask(tokens, WHOLE, **asked, propagate=0.9)) for tokens in (whole, spoilt))
    assert set(expected) - set(found) == {("cat/1", None, 0)}
    for row, values in found.items():
        np.testing.assert_array_equal(values, expected[row])


# ---- bits


@pytest.mark.parametrize(
    "asked", [*METHODS, {"method": "maskcut"}], ids=lambda asked: "-".join(map(str, asked.values()))
)
def test_batches_units_and_threads_change_no_bit(
    bench: Bench, asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = bench.tokens(fields=FIELDS)
    expected = by_row(bench.mask(tokens, **asked, propagate=0.9))
    threads = torch.get_num_threads()
    monkeypatch.setattr(computing, "PICTURES_AT_ONCE", 1)
    try:
        torch.set_num_threads(3 - min(threads, 2))
        found = by_row(bench.mask(tokens, RunOptions(unit_rows=2, max_bad=1.0), **asked, propagate=0.9))
    finally:
        torch.set_num_threads(threads)
    assert found.keys() == expected.keys()
    for row, values in expected.items():
        np.testing.assert_array_equal(found[row], values)


# ---- views


@pytest.mark.parametrize("flips", [(False, True), (True, False)])
def test_merged_views_are_spread_over_the_patches_of_the_first(bench: Bench, flips: tuple[bool, bool]) -> None:
    views = [bench.tokens(fields=FIELDS, flip=flip) for flip in flips]
    before, after = (by_row(merge(bench, views, **ATTENTION, propagate=share)) for share in (0, 0.8))
    turn = (slice(None), slice(None, None, -1 if flips[0] else 1))
    for row, scores in before.items():
        valid = valid_of(views[0], row[0])
        keys = views[0].read("keys", [row[0]])[0][valid.ravel()]
        expected = slow_walk(keys, scores[turn][valid], 0.8)
        np.testing.assert_allclose(after[row][turn][valid], expected, atol=2e-6)


def merge(bench: Bench, views: list[Tokens], **asked: Any) -> Artifact:
    first, second = (view.artifact.place.uri for view in views)
    inputs = {"tokens": first, "view2": second, "images": str(bench.images)}
    out = bench.new_out()
    run(STAGE, make_config(MaskConfig, {"tokens": views[0].artifact}, **asked), inputs, str(out), WHOLE)
    return open_artifact(str(out), "maps")


# ---- options


def test_a_method_that_compares_no_patches_reads_them_to_spread_over(bench: Bench) -> None:
    tokens = bench.tokens(fields=("cls_attention", "tokens:4"))
    with pytest.raises(ConfigError, match="keys"):
        bench.mask(tokens, **ATTENTION, propagate=0.5)
    with pytest.raises(ConfigError, match="--propagate"):
        bench.mask(tokens, **ATTENTION, feature="tokens:4")
    maps = bench.mask(tokens, **ATTENTION, propagate=0.5, feature="tokens:4", per_head=True)
    assert maps.plan.config["feature"] == "tokens:4"
    assert verify(maps.place.uri).exit_code == 0
    name = "cat/0"
    valid = valid_of(tokens, name)
    patches = tokens.at("tokens", [list(PICTURES).index(name)])[0, 0, 1:][valid.ravel()]
    scores = by_row(bench.mask(tokens, **ATTENTION))[name, None, 0][valid]
    np.testing.assert_allclose(by_row(maps)[name, None, 0][valid], slow_walk(patches, scores, 0.5), atol=2e-6)


def test_a_recipe_also_extracts_what_scores_are_spread_over() -> None:
    extract: Mapping[str, Any] = {"backbone": BACKBONE, "weights": "x.pth"}
    assert wants(MaskConfig(method="cls-attention"), extract) == ["cls_attention"]
    assert set(wants(MaskConfig(method="cls-attention", propagate=0.5), extract)) == {"keys", "cls_attention"}
    assert wants(MaskConfig(method="cst", propagate=0.5), extract) == wants(MaskConfig(method="cst"), extract)


@pytest.mark.parametrize("share", ["-0.1", "1", "nan"])
def test_a_share_that_is_none_is_one_sentence(capsys: pytest.CaptureFixture[str], tmp_path: Path, share: str) -> None:
    refused(capsys, ["mask", str(tmp_path), "--out", str(tmp_path / "maps"), "--propagate", share], "--propagate")
    with pytest.raises(ConfigError, match=r"propagate.*0\.999"):
        MaskConfig(propagate=float(share))
