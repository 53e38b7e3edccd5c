"""The stored fields of a picture: keys, class query, class attention, tokens and support tokens.

Letters: B pictures, N all tokens (prefix and patches), T patches, D model width,
H heads, E width of a head, M class token and patches, S the same after resizing for supports.

Fields are reduced block by block, so that queries and keys of at most one block are in memory.
"""

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from ...manifests.artifact.facts import BackboneFacts
from ...manifests.errors import ConfigError
from .backbone import Backbone
from .capture import Attended, refuse_unreadable, watch_blocks

FIELDS = ("keys", "cls_query", "cls_attention", "tokens", "support_tokens")
LAST_ONLY = ("keys", "cls_query")  # stored for the last block only
OF_ATTENTION = ("keys", "cls_query", "cls_attention")
SUPPORT_GRID = (12, 12)  # CST: (400 // 8) // 4 on each side

Wanted = Mapping[str, Sequence[int]]  # field → blocks, counted from 0, in storage order


def field_shapes(facts: BackboneFacts, wanted: Wanted) -> dict[str, tuple[int, ...]]:
    """Of each field, the shape of one picture's values; raises ConfigError for what the backbone cannot give."""
    refuse_unavailable(facts, wanted)
    patches, width = facts.num_patches, facts.width
    block_shapes: dict[str, tuple[int, ...]] = {
        "keys": (patches, facts.key_width),
        "cls_query": (facts.key_width,),
        "cls_attention": (facts.heads, patches),
        "tokens": (1 + patches, width),
        "support_tokens": (1 + SUPPORT_GRID[0] * SUPPORT_GRID[1], width),
    }
    return {
        field: block_shapes[field] if field in LAST_ONLY else (len(blocks), *block_shapes[field])
        for field, blocks in wanted.items()
    }


def refuse_unavailable(facts: BackboneFacts, wanted: Wanted) -> None:
    for field, blocks in wanted.items():
        if field not in FIELDS:
            raise ConfigError(f"there is no field {field}; choose among {', '.join(FIELDS)}")
        if field != "keys" and not facts.has_class_token:
            raise ConfigError(f"backbone {facts.name} has no class token, which {field} needs; it can give keys")
        outside = [number for number in blocks if not 0 <= number < facts.depth]
        if outside or not blocks or len(set(blocks)) != len(blocks):
            raise ConfigError(
                f"{field} has blocks {list(blocks)}; choose one or more different blocks of {facts.name}, which has 0 "
                f"to {facts.depth - 1}"
            )
        if field in LAST_ONLY and list(blocks) != [facts.depth - 1]:
            raise ConfigError(f"{field} has blocks {list(blocks)}; choose the last block only, {facts.depth - 1}")
        if field in OF_ATTENTION:
            refuse_unreadable(facts.name, set(blocks) & set(facts.unreadable))


def token_fields(backbone: Backbone, images: Float[Tensor, "B 3 rows columns"], wanted: Wanted) -> dict[str, Tensor]:
    """The fields of a batch in float32 on the backbone's device, in one forward pass up to the last block needed."""
    refuse_unavailable(backbone.facts, wanted)
    values: dict[str, dict[int, Tensor]] = {field: {} for field in wanted}
    attended = {field: blocks for field, blocks in wanted.items() if field in OF_ATTENTION}
    after = {field: blocks for field, blocks in wanted.items() if field not in OF_ATTENTION}
    with torch.inference_mode():
        unreadable = watch_blocks(
            backbone.model,
            images,
            {
                number: partial(_note_attended, backbone.facts, values, attended, number)
                for number in _all_blocks(attended)
            },
            {number: partial(_note_tokens, backbone, values, after, number) for number in _all_blocks(after)},
        )
    assert not unreadable, f"blocks {unreadable} changed their attention after planning"
    return {
        field: of_block[blocks[0]] if field in LAST_ONLY else torch.stack([of_block[n] for n in blocks], dim=1)
        for field, blocks in wanted.items()
        if (of_block := values[field])
    }


def patch_keys(key: Float[Tensor, "B H N E"], num_prefix: int) -> Float[Tensor, "B T D"]:
    """The keys of the patches, with heads concatenated."""
    return key[:, :, num_prefix:].transpose(1, 2).flatten(2)


def cls_attention(attended: Attended, num_prefix: int) -> Float[Tensor, "B H T"]:
    """The attention of the class token to each patch; the rest of the sum of 1 goes to the prefix tokens."""
    query_BH1E = attended.query[:, :, :1].float() * attended.scale
    # Not by matmul, whose rounding of a single row depends on the batch size.
    logits_BH1N = (query_BH1E * attended.key.float()).sum(dim=-1)[:, :, None]
    if attended.cls_bias is not None:
        logits_BH1N = logits_BH1N + attended.cls_bias.float()
    return logits_BH1N.softmax(dim=-1)[:, :, 0, num_prefix:]


def cls_and_patches(tokens: Float[Tensor, "B N D"], num_prefix: int) -> Float[Tensor, "B M D"]:
    """Drops distillation and register tokens."""
    return torch.cat([tokens[:, :1], tokens[:, num_prefix:]], dim=1)


def resize_for_support(
    tokens: Float[Tensor, "B M D"], grid: tuple[int, int], to: tuple[int, int] = SUPPORT_GRID
) -> Float[Tensor, "B S D"]:
    """Resizes the patches bilinearly with aligned corners; the class token stays first and unchanged."""
    batch, _, width = tokens.shape
    patches_BDRC = tokens[:, 1:].transpose(1, 2).reshape(batch, width, *grid)
    resized_BDS = interpolate(patches_BDRC, to, mode="bilinear", align_corners=True).flatten(2)
    return torch.cat([tokens[:, :1], resized_BDS.transpose(1, 2)], dim=1)


def _all_blocks(wanted: Wanted) -> list[int]:
    return sorted({number for blocks in wanted.values() for number in blocks})


def _note_attended(
    facts: BackboneFacts, values: dict[str, dict[int, Tensor]], wanted: Wanted, number: int, attended: Attended
) -> None:
    if number in wanted.get("keys", ()):
        values["keys"][number] = patch_keys(attended.key, facts.num_prefix).float()
    if number in wanted.get("cls_query", ()):
        values["cls_query"][number] = attended.query[:, :, 0].flatten(1).float()
    if number in wanted.get("cls_attention", ()):
        values["cls_attention"][number] = cls_attention(attended, facts.num_prefix)


def _note_tokens(
    backbone: Backbone, values: dict[str, dict[int, Tensor]], wanted: Wanted, number: int, tokens: Tensor
) -> None:
    normed = cls_and_patches(backbone.norm(tokens).float(), backbone.facts.num_prefix)
    if number in wanted.get("tokens", ()):
        values["tokens"][number] = normed
    if number in wanted.get("support_tokens", ()):
        values["support_tokens"][number] = resize_for_support(normed, backbone.facts.grid)
