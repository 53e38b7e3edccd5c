"""What is captured against timm's own unfused attention and its own intermediate tokens, for every family of ViT."""

from functools import cache, partial
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import _get_current_function_mode_stack

from maskmill.manifests.errors import ConfigError
from maskmill.stages.vision import capture as capturing
from maskmill.stages.vision.backbone import Backbone, backbone_facts, final_norm, load_backbone
from maskmill.stages.vision.token_fields import FIELDS, field_shapes, refuse_unavailable, token_fields

# One of each kind: bias apart (BEiT), registers, rotated (DINOv3, EVA-02, mixed), split projections and shared keys
# (Sapiens 2), distillation token, convolutional stem, normalised queries, attention beside the MLP.
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "dino": ("vit_small_patch16_224.dino", {}),
    "dinov2": ("vit_small_patch14_dinov2", {}),
    "dinov2 registers": ("vit_small_patch14_reg4_dinov2", {}),
    "dinov3": ("vit_small_patch16_dinov3", {}),
    "eva02": ("eva02_tiny_patch14_224", {}),
    "mae": ("vit_base_patch16_224.mae", {"embed_dim": 96, "num_heads": 3}),
    "deit": ("deit_tiny_patch16_224", {}),
    "deit distilled": ("deit_tiny_distilled_patch16_224", {}),
    "deit3": ("deit3_small_patch16_224", {}),
    "augreg": ("vit_tiny_patch16_224.augreg_in21k", {}),
    "rope mixed": ("vit_small_patch16_rope_mixed_224", {}),
    "beit": ("beit_base_patch16_224", {"embed_dim": 96, "num_heads": 3}),
    "hybrid": ("vit_tiny_r_s16_p8_224", {}),
    "normed queries": ("vit_tiny_patch16_224", {"qk_norm": True}),
    "split, shared keys": ("vit_base_patch16_sapiens2", {"embed_dim": 96, "num_heads": 4, "num_kv_heads": (2,) * 3}),
}
DEPTH = 3
ROWS, COLUMNS = 6, 7


@cache
def backbone(family: str) -> Any:
    """Three blocks, every weight random: what is initialised to 0 or 1 would hide what is left out."""
    name, smaller = FAMILIES[family]
    facts = backbone_facts(name, ROWS * patch_of(name), COLUMNS * patch_of(name))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        model: Any = timm.create_model(
            name, num_classes=0, depth=DEPTH, img_size=(facts.rows_px, facts.columns_px), **smaller
        ).eval()
        for parameter in model.parameters():
            parameter.data.add_(0.05 * torch.randn_like(parameter))
    model.requires_grad_(False)
    attend = model.blocks[0].attn
    changed = {
        "depth": DEPTH,
        "width": model.embed_dim,
        "heads": attend.num_heads,
        "key_width": model.embed_dim,
    }
    fields = {field: getattr(facts, field) for field in facts.__dataclass_fields__}
    return Backbone(model, type(facts)(**{**fields, **changed}), final_norm(model), torch.device("cpu"))


def patch_of(name: str) -> int:
    return 32 if "_r_" in name else 14 if "patch14" in name else 16


@cache
def images(family: str) -> torch.Tensor:
    facts = backbone(family).facts
    return torch.randn(2, 3, facts.rows_px, facts.columns_px, generator=torch.Generator().manual_seed(3))


@cache
def unfused(family: str) -> list[torch.Tensor]:
    """Attention of all tokens to all, per block, as timm computes it where it does not fuse."""
    model: Any = backbone(family).model
    seen: list[torch.Tensor] = []
    handles = []
    for block in model.blocks:
        block.attn.fused_attn = False
        handles.append(block.attn.attn_drop.register_forward_pre_hook(lambda module, args: seen.append(args[0])))
    try:
        with torch.inference_mode():
            model.forward_features(images(family))
    finally:
        for handle in handles:
            handle.remove()
        for block in model.blocks:
            block.attn.fused_attn = True
    return seen


@pytest.mark.parametrize("family", FAMILIES)
def test_class_attention_is_that_of_unfused_attention(family):
    given = backbone(family)
    found = token_fields(given, images(family), {"cls_attention": (2, 0, 1)})["cls_attention"]
    expected = torch.stack([unfused(family)[n][:, :, 0, given.facts.num_prefix :] for n in (2, 0, 1)], dim=1)
    assert found.shape == (2, 3, given.facts.heads, ROWS * COLUMNS)
    assert found.std() > 1e-4  # attention that is the same everywhere would compare equal to itself
    assert (found - expected).abs().max() <= 1e-5
    # What is left of 1 went to the class token and its like, which nothing here may have dropped before the softmax.
    assert (found.sum(-1) < 1 - 1e-4).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_keys_and_class_query_are_those_that_attention_is_made_of(family):
    """Reconstructed from the two stored fields up to what both lack: the prefix tokens' share, and a bias."""
    given = backbone(family)
    found = token_fields(given, images(family), {"keys": (2,), "cls_query": (2,)})
    heads = given.facts.heads
    keys_BHTE = found["keys"].unflatten(2, (heads, -1)).transpose(1, 2)
    query_BHE = found["cls_query"].unflatten(1, (heads, -1))
    logits = (keys_BHTE @ query_BHE[..., None])[..., 0] * query_BHE.shape[-1] ** -0.5
    if family == "beit":
        logits = logits + given.model.blocks[2].attn._get_rel_pos_bias()[:, :, 0, 1:]
    expected = unfused(family)[2][:, :, 0, given.facts.num_prefix :]
    assert (logits.softmax(-1) - expected / expected.sum(-1, keepdim=True)).abs().max() <= 1e-5


def test_keys_in_place_of_queries_are_told_apart(monkeypatch):
    genuine = capturing._read_attention
    swap = lambda query, key, value, *rest, **named: genuine(key, query, value, *rest, **named)  # noqa: E731
    monkeypatch.setattr(capturing, "_read_attention", swap)
    with pytest.raises(AssertionError):
        test_class_attention_is_that_of_unfused_attention("dino")


def test_heads_in_another_order_are_told_apart():
    given, pictures = backbone("dino"), images("dino")
    found = token_fields(given, pictures, {"cls_attention": (2,)})["cls_attention"][:, 0]
    expected = unfused("dino")[2][:, :, 0, 1:]
    assert (found.roll(1, dims=1) - expected).abs().max() > 1e-4


@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_are_timms_own_intermediates(family):
    given = backbone(family)
    facts = given.facts
    found = token_fields(given, images(family), {"tokens": (0, 2)})["tokens"]
    with torch.inference_mode():
        last = given.model.forward_features(images(family))
        if isinstance(given.model.norm, nn.Identity):
            last = given.model.fc_norm(last)
    expected = torch.cat([last[:, :1], last[:, facts.num_prefix :]], dim=1)
    assert found.shape == (2, 2, 1 + ROWS * COLUMNS, facts.width)
    assert torch.allclose(found[:, 1], expected, atol=1e-6)
    assert not torch.allclose(found[:, 0], found[:, 1], atol=1e-2)


def test_tokens_of_earlier_blocks_are_normed_by_the_last_norm():
    given, pictures = backbone("dino"), images("dino")
    with torch.inference_mode():
        blocks = given.model.get_intermediate_layers(pictures, n=[0, 1, 2], norm=True, return_prefix_tokens=True)
    expected = torch.stack([torch.cat([prefix, patches], dim=1) for patches, prefix in blocks], dim=1)
    assert torch.allclose(token_fields(given, pictures, {"tokens": (0, 1, 2)})["tokens"], expected, atol=1e-6)


def test_support_tokens_are_resized_with_corners_aligned():
    given, pictures = backbone("dinov2 registers"), images("dinov2 registers")
    found = token_fields(given, pictures, {"tokens": (1,), "support_tokens": (1,)})
    tokens, support = found["tokens"][:, 0].numpy(), found["support_tokens"][:, 0].numpy()
    assert support.shape == (2, 145, given.facts.width)
    assert np.array_equal(support[:, 0], tokens[:, 0])
    grid, small = tokens[:, 1:].reshape(2, ROWS, COLUMNS, -1), support[:, 1:].reshape(2, 12, 12, -1)
    for row in range(12):
        for column in range(12):
            down, right = row * (ROWS - 1) / 11, column * (COLUMNS - 1) / 11
            top, left = min(int(down), ROWS - 2), min(int(right), COLUMNS - 2)
            a, b = down - top, right - left
            expected = (1 - a) * ((1 - b) * grid[:, top, left] + b * grid[:, top, left + 1])
            expected = expected + a * ((1 - b) * grid[:, top + 1, left] + b * grid[:, top + 1, left + 1])
            assert np.abs(small[:, row, column] - expected).max() < 1e-4


def all_fields():
    return {field: (DEPTH - 1,) if field in ("keys", "cls_query") else (0, 2) for field in FIELDS}


@pytest.mark.parametrize("family", ["dino", "dinov3", "split, shared keys", "hybrid"])
def test_shapes_are_known_beforehand(family):
    given = backbone(family)
    found = token_fields(given, images(family), all_fields())
    assert {name: tuple(values.shape[1:]) for name, values in found.items()} == field_shapes(given.facts, all_fields())
    assert {values.dtype for values in found.values()} == {torch.float32}


def calls_of(given: Any, wanted) -> dict[str, int]:
    """How often the attention's input projection, attention itself and the MLP ran, over all blocks."""
    counts = {"block": 0, "qkv": 0, "attention": 0, "mlp": 0}
    handles = []
    for block in given.model.blocks:
        for name, module in (("block", block), ("qkv", block.attn.qkv), ("attention", block.attn), ("mlp", block.mlp)):
            hook = module.register_forward_pre_hook if name in ("block", "qkv") else module.register_forward_hook
            count = lambda *_, name=name: counts.__setitem__(name, counts[name] + 1)  # noqa: E731
            handles.append(hook(count))
    token_fields(given, images("dino"), wanted)
    for handle in handles:
        handle.remove()
    return counts


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"cls_attention": (0,)}, {"block": 1, "qkv": 1, "attention": 0, "mlp": 0}),
        ({"cls_attention": (1,)}, {"block": 2, "qkv": 2, "attention": 1, "mlp": 1}),
        ({"tokens": (1,)}, {"block": 2, "qkv": 2, "attention": 2, "mlp": 2}),
        ({"cls_attention": (1,), "tokens": (0, 1)}, {"block": 2, "qkv": 2, "attention": 2, "mlp": 2}),
        ({"keys": (2,)}, {"block": 3, "qkv": 3, "attention": 2, "mlp": 2}),
        ({"keys": (2,), "support_tokens": (0,)}, {"block": 3, "qkv": 3, "attention": 2, "mlp": 2}),
    ],
)
def test_what_comes_after_the_last_need_does_not_run(wanted, expected):
    assert calls_of(backbone("dino"), wanted) == expected


def hooks_left(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


@pytest.mark.parametrize("where", ["attn.proj", "mlp", "norm1"])
def test_an_exception_in_the_middle_leaves_nothing_behind(where):
    given, pictures = backbone("dino"), images("dino")

    def fail(*_):
        raise MemoryError("none left")

    handle = given.model.blocks[1].get_submodule(where).register_forward_hook(fail)
    with pytest.raises(MemoryError):
        token_fields(given, pictures, all_fields())
    handle.remove()
    assert hooks_left(given.model) == 0
    assert _get_current_function_mode_stack() == []
    token_fields(given, pictures, {"cls_attention": (0,)})
    assert hooks_left(given.model) == 0
    assert _get_current_function_mode_stack() == []


def class_rows(query, key, value, **named):
    attended: Any = capturing._read_attention(query, key, value, **named)
    logits = attended.query[:, :, :1] @ attended.key.mT * attended.scale
    return (logits if attended.cls_bias is None else logits + attended.cls_bias).softmax(-1)[:, :, 0]


def test_a_boolean_mask_keeps_the_class_token_from_what_it_may_not_see():
    query, key, _ = torch.randn(3, 1, 2, 5, 4, generator=torch.Generator().manual_seed(1)).unbind(0)
    mask = torch.ones(1, 1, 5, 5, dtype=torch.bool)
    mask[..., 0, 3] = False
    eye = torch.eye(5).expand(1, 2, 5, 5)
    expected = scaled_dot_product_attention(query, key, eye, attn_mask=mask)[:, :, 0]
    assert torch.allclose(class_rows(query, key, eye, attn_mask=mask), expected, atol=1e-6)
    assert (expected[..., 3] == 0).all()


def test_keys_that_several_heads_share_are_repeated_as_torch_does():
    generator = torch.Generator().manual_seed(1)
    query, key = torch.randn(1, 6, 5, 4, generator=generator), torch.randn(1, 2, 5, 4, generator=generator)
    eye = torch.eye(5).expand(1, 2, 5, 5)
    expected = scaled_dot_product_attention(query, key, eye, scale=0.9, enable_gqa=True)[:, :, 0]
    assert torch.allclose(class_rows(query, key, eye, scale=0.9, enable_gqa=True), expected, atol=1e-6)


def test_attention_of_another_kind_is_not_taken_for_that_of_all_to_all():
    query = torch.zeros(1, 2, 5, 4)
    assert capturing._read_attention(query, query, query, is_causal=True) is None
    assert capturing._read_attention(query, query[:, :, :3], query[:, :, :3]) is None
    assert capturing._read_attention(query[0], query[0], query[0]) is None


@pytest.mark.parametrize(
    ("name", "size", "wanted", "said"),
    [
        ("vit_base_patch16_siglip_224", 96, {"keys": (11,), "cls_query": (11,)}, "class token.*cls_query"),
        ("vit_base_patch16_siglip_224", 96, {"tokens": (0,)}, "class token.*tokens"),
        ("vit_small_patch16_18x2_224", 96, {"keys": (17,)}, r"\[17\].*vit_small_patch16_18x2_224"),
        ("vit_small_patch16_18x2_224", 96, {"cls_attention": (0, 3)}, r"blocks \[0, 3\]"),
        ("vit_small_patch16_224.dino", 96, {"keys": (3,)}, "keys.*11"),
        ("vit_small_patch16_224.dino", 96, {"tokens": (12,)}, r"\[12\].*0 to 11"),
        ("vit_small_patch16_224.dino", 96, {"tokens": (1, 1)}, "different blocks"),
        ("vit_small_patch16_224.dino", 96, {"tokens": ()}, "one or more"),
        ("vit_small_patch16_224.dino", 96, {"values": (1,)}, "values.*keys"),
    ],
)
def test_what_a_backbone_cannot_give_is_refused_by_name(name, size, wanted, said):
    with pytest.raises(ConfigError, match=said):
        refuse_unavailable(backbone_facts(name, size, size), wanted)


def test_attention_that_is_not_fused_is_refused_by_name():
    model: Any = timm.create_model("vit_tiny_patch16_224", num_classes=0, depth=2, img_size=32).eval()
    model.blocks[1].attn.fused_attn = False
    attended: dict[int, Any] = {}
    note = {number: partial(attended.__setitem__, number) for number in (0, 1)}
    unreadable = capturing.watch_blocks(model, torch.zeros(1, 3, 32, 32), note, {})
    with pytest.raises(ConfigError, match=r"blocks \[1\] of VisionTransformer"):
        capturing.refuse_unreadable("VisionTransformer", unreadable)
    assert hooks_left(model) == 0


def test_keys_can_be_had_without_a_class_token():
    facts = backbone_facts("vit_base_patch16_siglip_224", 96, 96)
    assert field_shapes(facts, {"keys": (11,)}) == {"keys": (36, 768)}


def test_a_loaded_backbone_gives_the_same_bytes_every_time():
    state = dict(timm.create_model("vit_tiny_patch16_224", num_classes=0).state_dict())
    given = load_backbone("vit_tiny_patch16_224", state, 32, 48, "timm")
    pictures = torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(5))
    wanted = {"keys": (11,), "cls_attention": (11,), "tokens": (11,)}
    first, second = token_fields(given, pictures, wanted), token_fields(given, pictures, wanted)
    assert all(torch.equal(first[name], second[name]) for name in wanted)
