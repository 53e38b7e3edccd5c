import pytest
import timm
import torch

from maskmill.manifests.errors import ConfigError
from maskmill.stages.vision.backbone import backbone_facts, find_device, load_backbone

TINY = "vit_tiny_patch16_224"


@pytest.mark.parametrize(
    ("name", "size", "patch", "grid", "width", "heads", "prefix"),
    [
        ("vit_small_patch8_224.dino", (400, 400), (8, 8), (50, 50), 384, 6, 1),
        ("vit_base_patch16_224.dino", (480, 320), (16, 16), (30, 20), 768, 12, 1),
        ("vit_small_patch14_dinov2", (224, 448), (14, 14), (16, 32), 384, 6, 1),
        ("vit_small_patch14_reg4_dinov2", (224, 224), (14, 14), (16, 16), 384, 6, 5),
        ("vit_small_patch16_dinov3", (224, 224), (16, 16), (14, 14), 384, 6, 5),
        ("deit_tiny_distilled_patch16_224", (64, 96), (16, 16), (4, 6), 192, 3, 2),
        ("vit_tiny_r_s16_p8_224", (96, 64), (32, 32), (3, 2), 192, 3, 1),
    ],
)
def test_facts_are_known_without_weights(name, size, patch, grid, width, heads, prefix):
    facts = backbone_facts(name, *size)
    assert (facts.patch, facts.grid, facts.width, facts.heads, facts.num_prefix) == (patch, grid, width, heads, prefix)
    assert (facts.depth, facts.key_width, facts.unreadable, facts.has_class_token) == (12, width, (), True)


def test_normalisation_is_the_weights_own():
    assert backbone_facts("vit_small_patch16_224.dino", 32, 32).mean == (0.485, 0.456, 0.406)
    assert backbone_facts("vit_tiny_patch16_224.augreg_in21k", 32, 32).std == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("vit_smal_patch8_224.dino", "vit_small_patch8_224.dino"),
        ("vit_small_patch16_224.dinno", "vit_small_patch16_224.dino"),
        ("vit_small_patch14_dinov2_reg", "vit_small_patch14_reg4_dinov2"),
        ("hf-hub:timm/vit_small_patch16_224.dino", "vit_small_patch16_224.dino"),
    ],
)
def test_an_unknown_backbone_is_answered_with_near_names(name, near):
    with pytest.raises(ConfigError, match=f"{name}.*{near}"):
        backbone_facts(name, 32, 32)


def test_a_name_like_no_other_gets_no_guess():
    with pytest.raises(ConfigError, match="list_models"):
        backbone_facts("§§§", 32, 32)


@pytest.mark.parametrize("name", ["resnet18", "swin_tiny_patch4_window7_224", "cait_xxs24_224", "samvit_base_patch16"])
def test_what_is_no_plain_vision_transformer_is_refused_by_name(name):
    with pytest.raises(ConfigError, match=f"{name}"):
        backbone_facts(name, 64, 64)


@pytest.mark.parametrize(
    ("name", "size", "fitting"),
    [
        ("vit_small_patch14_dinov2", (400, 400), "392x392 406x406"),
        ("vit_small_patch14_dinov2", (392, 400), "392x392 392x406"),
        (TINY, (9, 33), "16x32 16x48"),
        (TINY, (0, 32), "16x32"),
    ],
)
def test_a_size_that_does_not_fit_is_answered_with_those_that_do(name, size, fitting):
    with pytest.raises(ConfigError, match=fitting.replace(" ", ".*")):
        backbone_facts(name, *size)
    for answer in fitting.split():
        backbone_facts(name, *map(int, answer.split("x")))


def test_a_backbone_is_frozen_float32_and_as_large_as_asked():
    state = dict(timm.create_model(TINY, pretrained=False, num_classes=0).state_dict())
    torch.manual_seed(1)
    before = torch.get_rng_state()
    backbone = load_backbone(TINY, state, 32, 80, "timm")
    assert torch.equal(torch.get_rng_state(), before)
    assert not backbone.model.training
    assert not any(parameter.requires_grad for parameter in backbone.model.parameters())
    assert {parameter.dtype for parameter in backbone.model.parameters()} == {torch.float32}
    assert backbone.model(torch.zeros(1, 3, 32, 80)).shape == (1, 192)
    assert backbone.norm is backbone.model.norm
    assert backbone.facts == backbone_facts(TINY, 32, 80)


def test_a_device_is_one_that_is_there(monkeypatch):
    assert find_device("cpu").type == "cpu"
    for name in ("gpu", "cuda:x", "cpu:1", "", "mps", "cuda:"):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        if name != "cuda:":
            with pytest.raises(ConfigError, match="cpu, cuda"):
                find_device(name)
    with pytest.raises(ConfigError, match=r"cuda:1.*1"):
        find_device("cuda:1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="cpu"):
        find_device("cuda")
