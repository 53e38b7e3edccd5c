"""FOUND: its background seed by hand, and a head that is fitted on tokens with planted objects."""

import json
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load

from builders.configs import make_config
from builders.planted_tokens import TOKENS, PlantedConfig, planted_object
from builders.small_dataset import write_picture
from builders.small_tokens import UNITS_OF_5, Bench
from maskmill.manifests.artifact.artifact import open_artifact
from maskmill.manifests.artifact.checkpoints import WEIGHTS, training_ids
from maskmill.manifests.artifact.tokens import Tokens, open_tokens
from maskmill.manifests.errors import ConfigError
from maskmill.pipeline.running.run import Outcome, run
from maskmill.pipeline.running.whole import run_whole
from maskmill.stages.mask import found_fit
from maskmill.stages.mask.config import FitConfig, MaskConfig
from maskmill.stages.mask.found import (
    background_seeds,
    coarse_foreground,
    connect_neighbours,
    head_weights,
    smooth_masks,
)
from maskmill.stages.mask.found_fit import METRICS, draw_positions
from maskmill.stages.mask.method_fit import FIT
from maskmill.stages.mask.stage import STAGE as MASK
from maskmill.stages.vision.patch_features import read_patches

# Two heads that see four patches; the first is sparser. All numbers are exact in binary.
ATTENTION = torch.tensor([[[0.5, 0.125, 0.125, 0.25], [0.375, 0.25, 0.375, 0.0]]])
ALL = torch.ones(1, 4, dtype=torch.bool)


def test_the_seed_is_the_patch_with_the_least_attention_of_sparse_heads() -> None:
    """The mean is 1/4; a quarter of the patches is above it in the first head, a half in the second."""
    weights = head_weights(ATTENTION, ALL)
    torch.testing.assert_close(weights, torch.tensor([[3.0, 1.5]]).log())
    assert background_seeds(ATTENTION, ALL, weights).tolist() == [1]
    assert background_seeds(ATTENTION, ALL, torch.ones(1, 2)).tolist() == [3], "without weights"


def test_padding_is_no_seed_and_has_no_part_in_the_mean() -> None:
    valid = torch.tensor([[True, False, True, True]])
    weights = head_weights(ATTENTION, valid)
    torch.testing.assert_close(weights, torch.tensor([[3.0, 1.5]]).log())  # 1 of 3 and 2 of 3
    assert background_seeds(ATTENTION, valid, weights).tolist() == [3]


def test_foreground_is_what_differs_from_the_seed_by_weighted_heads() -> None:
    patches = torch.tensor([[[0.0, 1.0], [1.0, 0.0], [0.25, 1.0], [-1.0, 0.0]]])
    assert coarse_foreground(patches, ATTENTION, ALL, 2).tolist() == [[True, False, False, True]]  # 0.56 at the third
    assert coarse_foreground(patches, ATTENTION, ALL, 1).tolist() == [[True, False, True, True]]  # 0.24


def test_masks_follow_borders_of_features_and_are_kept_where_too_little_would_remain() -> None:
    """A hole in an object of like patches is filled and one in the padding is not; a lone patch does not vanish."""
    grid = (4, 5)
    object_RC = np.zeros(grid, np.bool_)
    object_RC[:, :3] = True
    features = torch.eye(2)[torch.from_numpy(object_RC.astype(np.int64)).flatten()][None]
    valid = torch.ones(1, 20, dtype=torch.bool)
    holed = torch.from_numpy(object_RC).flatten()[None].clone()
    holed[0, 6] = False
    neighbours = connect_neighbours(features, valid, grid)
    smoothed = smooth_masks(holed, neighbours, grid)
    assert np.array_equal(smoothed[0].reshape(grid).numpy(), object_RC)
    valid[0, 6] = False
    neighbours = connect_neighbours(features, valid, grid)
    assert torch.equal(smooth_masks(holed, neighbours, grid), holed)
    alone = torch.zeros(1, 20, dtype=torch.bool)
    alone[0, 0] = True
    assert torch.equal(smooth_masks(alone, neighbours, grid), alone)


# ---- the method, by the commands


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Twelve pictures without labels."""
    bench = Bench(tmp_path_factory.mktemp("planted"))
    names = [f"p{number:02d}" for number in range(12)]
    for seed, name in enumerate(names):
        write_picture(bench.home / f"{name}.png", seed, (20, 16))
    bench.index(dict.fromkeys(names, ("", "train")))
    return bench


def plant(bench: Bench, **asked: Any) -> Tokens:
    out = bench.new_out()
    run(TOKENS, PlantedConfig(**asked), {"images": str(bench.images)}, str(out), UNITS_OF_5)
    return open_tokens(str(out))


def fit(bench: Bench, tokens: Tokens, out: Path, **asked: Any) -> Outcome:
    config = make_config(FitConfig, {"tokens": tokens.artifact}, method="found", **asked)
    return run_whole(FIT, config, {"tokens": tokens.artifact.place.uri, "images": str(bench.images)}, str(out))


def objects_of(bench: Bench, config: PlantedConfig) -> np.ndarray:
    rows = open_artifact(str(bench.images)).rows(["sha256"]).to_pylist()
    return np.stack([planted_object(row["sha256"], config) for row in rows])


@pytest.fixture(scope="module")
def fitted(planted: Bench) -> tuple[Tokens, Path]:
    tokens, model = plant(planted), planted.new_out()
    fit(planted, tokens, model)
    return tokens, model


def test_a_head_finds_planted_objects_without_labels(planted: Bench, fitted: tuple[Tokens, Path]) -> None:
    tokens, model = fitted
    checkpoint = open_artifact(str(model), "checkpoint")
    facts = checkpoint.summary.counts
    assert (facts["kind"], facts["method"], facts["feature"], facts["pictures"]) == ("found", "found", "raw-keys", 12)
    assert training_ids(checkpoint, "labels") == training_ids(checkpoint, "masks") == frozenset()
    lines = [json.loads(line) for line in checkpoint.file(METRICS).splitlines()]
    assert [line["step"] for line in lines] == list(range(500))
    assert lines[-1]["loss"] < 0.1 * lines[0]["loss"]

    maps = planted.mask(tokens, model=model, method="found")
    assert maps.plan.facts["score_kind"] == "probability"
    assert set(maps.rows(["threshold"]).column("threshold").to_pylist()) == {0.5}
    found = maps.read("map", range(12))
    assert np.array_equal(found > 0.5, objects_of(planted, PlantedConfig()))
    assert found.min() >= 0
    assert found.max() <= 1


def test_padding_teaches_nothing(planted: Bench) -> None:
    """Its patches are least attended to: if they were seeds, the picture's background would be foreground."""
    tokens, model = plant(planted, padded_columns=2), planted.new_out()
    fit(planted, tokens, model)
    found = planted.mask(tokens, model=model, method="found").read("map", range(12))[..., :-2] > 0.5
    assert np.array_equal(found, objects_of(planted, PlantedConfig(padded_columns=2))[..., :-2])


def test_a_mirrored_view_is_merged_with_the_first(planted: Bench, fitted: tuple[Tokens, Path]) -> None:
    tokens, model = fitted
    mirrored, out = plant(planted, flip=True), planted.new_out()
    config = make_config(MaskConfig, {"tokens": tokens.artifact}, method="found")
    inputs = {"tokens": tokens, "view2": mirrored}
    places = {role: one.artifact.place.uri for role, one in inputs.items()}
    run(MASK, config, {**places, "images": str(planted.images), "model": str(model)}, str(out), UNITS_OF_5)
    alone = planted.mask(tokens, model=model, method="found").read("map", range(12))
    np.testing.assert_array_equal(open_artifact(str(out)).read("map", range(12)), alone)


def test_a_seed_decides_every_byte_and_a_stopped_fit_resumes(planted: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(found_fit, "STEPS", 60)
    monkeypatch.setattr(found_fit, "COARSE_STEPS", 40)
    tokens, outs = plant(planted), [planted.new_out() for _ in range(4)]
    for out, seed in zip(outs[:3], (0, 0, 1), strict=True):
        fit(planted, tokens, out, seed=seed)
    calls, smooth = count(), smooth_masks

    def stop_once(*given: Any) -> Any:
        if next(calls) == 13:
            raise KeyboardInterrupt
        return smooth(*given)

    monkeypatch.setattr(found_fit, "smooth_masks", stop_once)
    with pytest.raises(KeyboardInterrupt):
        fit(planted, tokens, outs[3])
    fit(planted, tokens, outs[3])
    first, again, other, resumed = ({name: (out / name).read_bytes() for name in (WEIGHTS, METRICS)} for out in outs)
    assert first == again == resumed
    assert first[WEIGHTS] != other[WEIGHTS]


def test_features_of_any_length_are_learned_alike(planted: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(found_fit, "STEPS", 12)
    tokens, models = plant(planted), [planted.new_out(), planted.new_out()]
    fit(planted, tokens, models[0])
    monkeypatch.setattr(found_fit, "read_patches", lambda *given: 64 * read_patches(*given).astype(np.float32))
    fit(planted, tokens, models[1])
    short, long = (load((model / WEIGHTS).read_bytes())["weight"] for model in models)
    np.testing.assert_allclose(64 * long, short, rtol=1e-3, atol=1e-5)


def test_large_stores_are_drawn_from_by_whole_units(planted: Bench, fitted: tuple[Tokens, Path]) -> None:
    """Reading a row checks the file of its unit: rows of few units are cheap to read."""
    artifact = fitted[0].artifact
    drawn = [draw_positions(artifact, "keys", 5, seed).tolist() for seed in range(8)]
    assert {len({position // 5 for position in positions}) for positions in drawn} <= {1, 2}
    assert len({tuple(positions) for positions in drawn}) > 1
    assert draw_positions(artifact, "keys", 100, 0).tolist() == list(range(12))


# ---- refusals


def test_a_checkpoint_is_for_its_feature_and_its_tokens(
    planted: Bench, fitted: tuple[Tokens, Path], bench: Bench
) -> None:
    tokens, model = fitted
    with pytest.raises(ConfigError, match=r"--feature is keys.*raw-keys; leave --feature out"):
        mask_with_feature(planted, tokens, model, "keys")
    with pytest.raises(ConfigError, match=r"weights.*toy.*random:0"):
        bench.mask(bench.tokens(), model=model, method="found")
    with pytest.raises(ConfigError, match=r"`maskmill fit --method found`"):
        planted.mask(tokens, method="found")
    with pytest.raises(ConfigError, match="--side"):
        planted.mask(tokens, method="found", side="corners")


def mask_with_feature(bench: Bench, tokens: Tokens, model: Path, feature: str) -> None:
    """With a feature that these tokens could be compared by if they had a bias."""
    config = make_config(MaskConfig, method="found", feature=feature)
    inputs = {"tokens": tokens.artifact.place.uri, "images": str(bench.images), "model": str(model)}
    run(MASK, config, inputs, str(bench.new_out()), UNITS_OF_5)


def test_fit_learns_from_the_feature_that_is_asked_for_and_mask_takes_it_over(bench: Bench) -> None:
    tokens, model = bench.tokens(fields=("keys", "tokens:3", "cls_attention")), bench.new_out()
    fit(bench, tokens, model, feature="tokens:3")
    checkpoint = open_artifact(str(model), "checkpoint")
    assert checkpoint.summary.counts["feature"] == "tokens:3"
    config = make_config(MaskConfig, {"tokens": tokens.artifact, "model": checkpoint}, method="found")
    assert str(config.feature) == "tokens:3"


def test_tokens_without_attention_name_the_command_that_adds_it(bench: Bench) -> None:
    out = bench.new_out()
    with pytest.raises(ConfigError, match=r"no cls_attention; add it with `maskmill extract.*cls_attention"):
        fit(bench, bench.tokens(fields=("keys",)), out)
    assert not out.exists()


def test_pictures_without_foreground_are_refused(planted: Bench) -> None:
    """Such as pictures of one colour: every patch is as the background."""
    with pytest.raises(ConfigError, match=r"no picture of .* shows foreground.*--feature"):
        fit(planted, plant(planted, has_objects=False), planted.new_out())


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_tokens_that_are_not_finite_are_refused_by_id(
    planted: Bench, fitted: tuple[Tokens, Path], monkeypatch: pytest.MonkeyPatch, value: float
) -> None:

    def spoil(*given: Any) -> np.ndarray:
        patches = read_patches(*given).copy()
        patches[2, 3, 4] = value
        return patches

    monkeypatch.setattr(found_fit, "read_patches", spoil)
    with pytest.raises(ConfigError, match=r"patches of 'p02' in .* are not finite"):
        fit(planted, fitted[0], planted.new_out())


def test_a_head_that_learns_to_call_everything_background_is_refused(
    planted: Bench, fitted: tuple[Tokens, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(found_fit, "smooth_masks", lambda masks, *_: torch.zeros_like(masks))
    monkeypatch.setattr(found_fit, "OWN_WEIGHT", 0.0)
    with pytest.raises(ConfigError, match="finds no foreground in 12 pictures"):
        fit(planted, fitted[0], planted.new_out())


def test_a_feature_is_refused_where_a_method_compares_no_patches() -> None:
    with pytest.raises(ConfigError, match="needs no fitting"):
        make_config(FitConfig, method="ncut", feature="keys")
