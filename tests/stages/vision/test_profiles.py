"""Which family a backbone belongs to, and how its patches are compared by default."""

import pytest
import timm
from safetensors.torch import save_file

from maskmill.stages.vision.backbone import backbone_facts
from maskmill.stages.vision.builtin import NAME
from maskmill.stages.vision.key_bias import key_bias
from maskmill.stages.vision.profiles import PROFILES, family_of
from maskmill.stages.vision.weights import read_weights

SMALLEST = "test_vit.r160_in1k"  # 6 blocks, width 64


@pytest.mark.parametrize(
    ("backbone", "weights", "family"),
    [
        ("vit_small_patch8_224.dino", "", "dino"),
        ("vit_small_patch8_224", "/a/dino_deitsmall8_300ep_pretrain.pth", "dino"),
        ("vit_small_patch14_dinov2", "weights.safetensors", "dinov2"),
        ("vit_small_patch14_dinov2.lvd142m", "timm/vit_small_patch14_dinov2.lvd142m", "dinov2"),
        ("vit_small_patch16_224", "dinov2_vits14_pretrain.pth", "dinov2"),
        ("vit_base_patch14_reg4_dinov2.lvd142m", "", "dinov2-registers"),
        ("vit_base_patch14_224", "dinov2_vitb14_reg4_pretrain.pth", "dinov2-registers"),
        ("vit_small_patch16_dinov3.lvd1689m", "", "dinov3"),
        ("vit_base_patch16_224", "ibot_vitb16_teacher.pth", "ibot"),
        ("vit_base_patch16_224.mae", "", "mae"),
        ("vit_base_patch16_224", "mae_pretrain_vit_base.pth", "mae"),
        ("vit_base_patch16_clip_224.openai", "", "clip"),
        ("vit_base_patch16_siglip_224.webli", "", "clip"),
        ("vit_small_patch16_224.augreg_in21k_ft_in1k", "", "supervised"),
        ("deit_small_patch16_224.fb_in1k", "", "supervised"),
        (NAME, "", "builtin"),
        ("vit_small_patch16_224", "mine.pth", "unknown"),
        ("vit_small_patch8_224.dino", "random:0", "unknown"),
    ],
)
def test_a_family_is_known_by_name(backbone, weights, family):
    assert family_of(backbone, weights) == family


def test_the_weights_own_word_counts_most():
    assert family_of("vit_small_patch14_dinov2", "dino_x.pth", "mae") == "mae"
    assert family_of("vit_small_patch14_dinov2", "x.pth", "a family of tomorrow") == "dinov2"


def test_blocks_are_those_of_the_publications_counted_from_0():
    assert PROFILES["dinov3"].feature_at(12) == "tokens:9"  # their 10th of 12, 20th of 24
    assert PROFILES["dinov3"].feature_at(24) == "tokens:19"
    assert PROFILES["ibot"].feature_at(12) == "tokens:8"
    assert PROFILES["dino"].feature_at(12) == "raw-keys"
    assert PROFILES["dinov2"].feature_at(12) == "keys"


def state_with_bias(value):
    """The smallest backbone, whose last block's projection has these biases."""
    model = timm.create_model(SMALLEST, pretrained=False)
    state = model.state_dict()
    state["blocks.5.attn.qkv.bias"].copy_(value)
    return state


def test_the_bias_of_the_last_block_is_read_from_the_file(tmp_path):
    facts = backbone_facts(SMALLEST, 64, 96)
    given = timm.create_model(SMALLEST, pretrained=False).state_dict()["blocks.5.attn.qkv.bias"].uniform_(-3, 3)
    save_file(state_with_bias(given), tmp_path / "dinov2_tiny.safetensors")
    weights, state = read_weights(SMALLEST, str(tmp_path / "dinov2_tiny.safetensors"))
    assert weights.family == "dinov2"
    bias = key_bias(facts, state, "timm")
    width = facts.key_width
    assert bias == pytest.approx(given[width : 2 * width].tolist(), rel=1e-6)


def test_a_projection_without_bias_or_with_a_norm_behind_it_has_none_to_subtract():
    facts = backbone_facts(SMALLEST, 64, 96)
    assert key_bias(facts, state_with_bias(0.0), "timm") == ()
    normed = "vit_dpwee_patch16_reg1_gap_256"  # qk_norm
    state = timm.create_model(normed, pretrained=False).state_dict()
    assert key_bias(backbone_facts(normed, 64, 64), state, "timm") == ()
