"""What patches are compared by: keys with or without the bias of their projection, or tokens."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from builders.biased_weights import write_biased_weights
from builders.small_tokens import BACKBONE, PICTURES, Bench
from maskmill.manifests.artifact.artifact import Artifact
from maskmill.manifests.artifact.config import config_json
from maskmill.manifests.artifact.tokens import Tokens, open_tokens
from maskmill.manifests.errors import ConfigError
from maskmill.stages.choices import Side
from maskmill.stages.extract import stage as extract_stage
from maskmill.stages.mask.config import MaskConfig
from maskmill.stages.mask.merging import Lattice, valid_patch_masks
from maskmill.stages.mask.ncut import maskcut_maps, ncut_map
from maskmill.stages.mask.stage import wants
from maskmill.stages.vision import backbone as vision_backbone
from maskmill.stages.vision.feature_forms import RAW_KEYS

NAMES = ("dino_tiny", "dinov2_tiny")
GRID = (4, 6)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one network under the names of two families; its last keys have a long bias."""
    home = tmp_path_factory.mktemp("weights")
    for name in NAMES:
        write_biased_weights(home / f"{name}.safetensors")
    return home


@pytest.fixture(scope="module")
def tokens_of(bench: Bench, weights: Path) -> Any:
    def tokens(name: str, **asked: Any) -> Tokens:
        return bench.tokens(weights=str(weights / f"{name}.safetensors"), **asked)

    return tokens


def ok_places(maps: Artifact) -> list[int]:
    return [place for place, row in enumerate(maps.rows(["status"]).to_pylist()) if row["status"] == "ok"]


def valid_of(tokens: Tokens, place: int) -> np.ndarray:
    box = tuple(tokens.rows.column("box")[place].as_py())
    return valid_patch_masks([Lattice(GRID, (16, 16), box)])[0].reshape(GRID)


def bias_of(tokens: Tokens) -> np.ndarray:
    return np.array(tokens.facts.key_bias, np.float32)


def test_keys_of_dinov2_lose_their_bias_and_those_of_dino_stay_raw(bench: Bench, tokens_of: Any) -> None:
    new, old = tokens_of("dinov2_tiny"), tokens_of("dino_tiny")
    assert (new.facts.family, old.facts.family) == ("dinov2", "dino")
    assert np.linalg.norm(bias_of(new)) > 8
    cases: list[tuple[Tokens, Any, Side]] = [(new, bias_of(new), "corners"), (old, 0, "largest")]
    for tokens, subtracted, side in cases:
        maps = bench.mask(tokens, method="ncut")
        for place in ok_places(maps):
            keys = torch.from_numpy(tokens.at("keys", [place])[0] - subtracted)
            expected = ncut_map(keys, valid_of(tokens, place), 0.2, side)
            np.testing.assert_array_equal(maps.read("map", [place])[0], expected)


def test_the_choice_is_in_the_name_of_the_maps_but_what_was_always_done_is_not(bench: Bench, tokens_of: Any) -> None:
    new, old = tokens_of("dinov2_tiny"), tokens_of("dino_tiny")
    stored = bench.mask(new, method="ncut").plan.config
    assert (stored["feature"], stored["side"]) == ("keys", "corners")
    assert not {"feature", "side"} & bench.mask(old, method="ncut").plan.config.keys()
    assert "side" not in bench.mask(new, method="maskcut").plan.config  # MaskCut has always cut by corners
    raw = bench.mask(new, method="ncut", feature="raw-keys", side="largest").plan
    assert not {"feature", "side"} & raw.config.keys()
    assert json.dumps(config_json(MaskConfig(method="ncut"))) == json.dumps(
        config_json(MaskConfig(method="ncut", feature=RAW_KEYS, side="largest"))
    )


def test_both_side_rules_are_for_both_methods(bench: Bench, tokens_of: Any) -> None:
    tokens = tokens_of("dinov2_tiny")
    maps = bench.mask(tokens, method="maskcut", side="largest", instances=1)
    for place in ok_places(maps):
        keys = torch.from_numpy(tokens.at("keys", [place])[0] - bias_of(tokens))
        expected = maskcut_maps(keys, valid_of(tokens, place), 0.15, 1, "largest")
        np.testing.assert_array_equal(maps.read("map", [place]), expected)


def test_int8_keeps_more_of_keys_without_their_bias(bench: Bench, tokens_of: Any, weights: Path) -> None:
    exact, short = tokens_of("dinov2_tiny"), tokens_of("dinov2_tiny", dtype="int8")
    assert short.artifact.plan.config["subtracts_key_bias"]
    assert "subtracts_key_bias" not in tokens_of("dino_tiny", dtype="int8").artifact.plan.config
    place = list(PICTURES).index("cat/0")
    keys = exact.at("keys", [place])[0] - bias_of(exact)
    step = np.abs(keys).max(axis=1, keepdims=True) / 127
    assert (np.abs(short.at("keys", [place])[0] - keys) <= step).all()
    # A method that wants raw keys gets them.
    maps = bench.mask(short, method="ncut", feature="raw-keys", side="largest")
    raw = torch.from_numpy(short.at("keys", [place])[0] + bias_of(short))
    np.testing.assert_array_equal(maps.read("map", [place])[0], ncut_map(raw, valid_of(short, place), 0.2))


def test_tokens_of_a_block_are_compared_with_class_tokens(bench: Bench, tokens_of: Any) -> None:
    tokens = tokens_of("dinov2_tiny", fields=("tokens:2+4",))
    maps = bench.mask(tokens, method="cst", supports="0", feature="tokens:4")
    place = list(PICTURES).index("cat/0")
    values = tokens.at("tokens", [place])[0, 1]
    patches, query = values[1:], values[0]
    cosine = patches @ query / np.linalg.norm(patches, axis=1) / np.linalg.norm(query)
    np.testing.assert_allclose(maps.read("map", [place])[0].ravel(), (cosine + 1) / 2, atol=1e-6)
    assert maps.plan.config["feature"] == "tokens:4"
    assert bench.mask(tokens, method="ncut", feature="tokens:4").plan.config["tau"] == 0.4


def test_with_supports_the_class_tokens_of_other_pictures_are_looked_for(bench: Bench, tokens_of: Any) -> None:
    tokens = tokens_of("dinov2_tiny", fields=("tokens:4",))
    maps = bench.mask(tokens, method="cst", supports="all", feature="tokens:4")
    names = list(PICTURES)
    row = next(i for i, r in enumerate(maps.rows(["id", "class"]).to_pylist()) if r["id"] == "dog/9")
    (other,) = (names.index("dog/10"),)  # the only other dog of its split
    query = tokens.at("tokens", [other])[0, 0, 0]
    patches = tokens.at("tokens", [names.index("dog/9")])[0, 0, 1:]
    cosine = patches @ query / np.linalg.norm(patches, axis=1) / np.linalg.norm(query)
    np.testing.assert_allclose(maps.read("map", [row])[0].ravel(), (cosine + 1) / 2, atol=1e-6)


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"method": "cls-attention", "feature": "keys"}, "--feature"),
        ({"method": "cst", "side": "corners"}, "--side"),
        ({"method": "ncut", "feature": "tokens:6"}, "0 to 5"),
        ({"method": "ncut", "feature": "values"}, "raw-keys"),
        ({"method": "cst", "feature": "tokens:1", "per_head": True}, "--per-head"),
        ({"method": "ncut", "feature": "tokens:1"}, "tokens:1"),  # not stored: the message has the command
    ],
)
def test_what_a_method_or_the_tokens_cannot_do_is_one_sentence(
    bench: Bench, tokens_of: Any, asked: dict[str, Any], named: str
) -> None:
    fields = ("keys", "cls_query", "cls_attention")
    with pytest.raises(ConfigError, match=named) as caught:
        bench.mask(tokens_of("dinov2_tiny", fields=fields), **asked)
    assert "\n" not in str(caught.value)


def test_tokens_from_before_the_bias_was_recorded_get_it_without_the_backbone(
    bench: Bench, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = bench.new_out()
    file = str(weights / "dinov2_tiny.safetensors")
    with monkeypatch.context() as old:
        old.setattr(extract_stage, "_tokens_facts", facts_without_bias(extract_stage._tokens_facts))
        old.setattr(extract_stage.STAGE.__class__, "add_facts", None, raising=False)
        bench.extract(out, weights=file)
    with pytest.raises(ConfigError, match="maskmill extract"):
        bench.mask(open_tokens(str(out)), method="ncut")
    maps = bench.mask(open_tokens(str(out)), method="ncut", feature="raw-keys")
    with monkeypatch.context() as no_backbone:
        no_backbone.setattr(vision_backbone, "load_backbone", lambda *_: pytest.fail("the backbone was run"))
        outcome = bench.extract(out, weights=file)
    assert (outcome.units_run, outcome.finished) == (0, True)
    tokens = open_tokens(str(out))
    assert len(tokens.facts.key_bias or ()) == tokens.facts.backbone.key_width
    assert bench.mask(tokens, method="ncut").plan.config["feature"] == "keys"
    again = bench.mask_into(Path(maps.place.uri), tokens, method="ncut", feature="raw-keys")
    assert again.units_run == 0  # the added facts change nothing that was read


def facts_without_bias(make: Any) -> Any:
    def facts(config: Any) -> Any:
        made = make(config)
        return type(made)(made.backbone, made.weights)

    return facts


def test_a_recipe_extracts_what_the_family_of_its_backbone_is_compared_by() -> None:
    for weights, wanted in {
        "x.pth": ["keys", "cls_query"],
        "dino_x.pth": ["keys", "cls_query"],
        "ibot_x.pth": ["tokens:3"],  # the fourth of six blocks
    }.items():
        assert wants(MaskConfig(method="cst"), {"backbone": BACKBONE, "weights": weights}) == wanted
    assert wants(MaskConfig(method="cls-attention"), {"backbone": BACKBONE}) == ["cls_attention"]
