"""What a run says of maps that barely separate, and of a backbone on which comparing patches is poor or unmeasured."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from builders.biased_weights import write_biased_weights
from builders.mistakes import assert_named
from builders.small_tokens import Bench
from maskmill.manifests.artifact.artifact import open_artifact
from maskmill.pipeline.running.run import Outcome
from maskmill.stages.mask.separation import Separation, sample_separations
from maskmill.stages.mask.verdict import warn_of_separations

FIELDS = ("keys", "cls_query", "cls_attention:last")
MaskWith = Callable[..., Outcome]


@pytest.fixture
def mask_with(bench: Bench, tmp_path: Path) -> MaskWith:
    """Masks tokens of a backbone with long biases, whose family its weights' name tells."""

    def mask(weights: str, method: str = "cst", **settings: Any) -> Outcome:
        source = weights
        if not weights.startswith("random:"):
            source = str(write_biased_weights(tmp_path / f"{weights}.safetensors"))
        tokens = bench.tokens(weights=source, fields=FIELDS)
        supports = "0" if method == "cst" else None
        return bench.mask_into(bench.new_out(), tokens, method=method, supports=supports, **settings)

    return mask


def test_raw_keys_that_crowd_together_are_told_with_the_option_that_helps(mask_with: MaskWith) -> None:
    crowded = mask_with("dinov2_tiny", feature="raw-keys")
    assert crowded.exit_code == 6
    assert_named(crowded.warnings[0], "--feature keys")
    assert mask_with("dinov2_tiny", feature="keys").exit_code == 0
    assert mask_with("dino_tiny").exit_code == 0, "raw keys are its own choice, and nothing was measured on them"


def test_flat_attention_is_told_without_an_option_that_the_method_does_not_read(mask_with: MaskWith) -> None:
    outcome = mask_with("random:0", "cls-attention")
    assert outcome.exit_code == 6
    (sentence,) = outcome.warnings
    assert_named(sentence, "--backbone --image-size")
    assert "--feature" not in sentence


def test_the_medians_are_those_of_the_stored_maps(mask_with: MaskWith) -> None:
    maps = open_artifact(mask_with("random:0").at)
    ok = [at for at, row in enumerate(maps.rows().to_pylist()) if row["status"] == "ok"]
    separations = sample_separations(maps)
    assert len(separations) == len(ok)
    assert all(one.inside > one.outside for one in separations)


def test_fewer_than_ten_maps_and_a_barely_separated_half_say_nothing() -> None:
    good, flat = Separation(0.5, 0.4), Separation(0.5, 0.49)
    assert list(warn_of_separations([flat] * 9, "cosine01", "")) == []
    assert list(warn_of_separations([flat] * 10 + [good] * 10, "cosine01", "")) == []
    assert len(list(warn_of_separations([flat] * 11 + [good] * 10, "cosine01", ""))) == 1
    assert list(warn_of_separations([Separation(0.02, 0.01)] * 10, "share_of_max", "")) == []


def test_a_weak_backbone_is_a_warning_where_patches_are_compared(mask_with: MaskWith) -> None:
    weak = mask_with("vit_mae_tiny")
    assert weak.exit_code == 6
    assert_named(weak.warnings[0], "MAE --method cst --backbone")
    assert not [told for told in mask_with("vit_mae_tiny", "cls-attention").warnings if "MAE" in told]


@pytest.mark.parametrize("name", ["my_own", "dinov3_tiny"])
def test_an_unmeasured_backbone_is_a_notice(mask_with: MaskWith, name: str) -> None:
    """Without an exit code."""
    outcome = mask_with(name, feature="keys")
    assert (outcome.exit_code, len(outcome.notices)) == (0, 1)
    assert_named(outcome.notices[0], "--feature")
    assert mask_with(name, "cls-attention").notices == ()


@pytest.mark.parametrize("name", ["random:0", "dinov2_tiny", "dino_tiny", "vit_mae_tiny"])
def test_measured_and_random_backbones_give_no_notice(mask_with: MaskWith, name: str) -> None:
    assert mask_with(name).notices == ()
