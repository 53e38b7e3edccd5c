"""What the patches of a picture are compared by: keys without the bias of their projection, raw keys, or tokens.

Letters: R rows, T patches, K width of the feature, H heads, E width of a head.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from ...manifests.artifact.facts import TokensFacts
from ...manifests.artifact.tokens import Tokens
from ...manifests.errors import ConfigError
from ..maps.cst import normalise_queries
from .feature_forms import KEYS, RAW_KEYS, Feature, parse_feature
from .profiles import PROFILES, family_of_tokens

_ROWS_AT_ONCE = 16  # whose tokens are in memory while class tokens are read


def resolve_feature(
    feature: Feature | None, tokens: Tokens, otherwise: str = ", or choose --feature raw-keys"
) -> Feature:
    """The given feature, or that of the backbone's profile, for these tokens. Keys whose projection has no bias are raw
    keys. `otherwise` is another remedy for tokens from before the bias was recorded."""
    facts = tokens.facts
    chosen = feature or parse_feature(PROFILES[family_of_tokens(facts)].feature_at(facts.backbone.depth))
    if chosen.field == "tokens":
        block = facts.backbone.depth - 1 if chosen.block is None else chosen.block
        if not 0 <= block < facts.backbone.depth:
            raise ConfigError(f"--feature is {chosen}; choose a block from 0 to {facts.backbone.depth - 1}")
        return Feature("tokens", block)
    if chosen == KEYS and facts.key_bias is None:
        raise ConfigError(
            f"{tokens.artifact.place} was stored before the bias of keys was recorded; add it, without running the "
            f"backbone, with `{tokens.command(tokens.artifact.plan.config['fields'])}`{otherwise}"
        )
    return RAW_KEYS if chosen == KEYS and not facts.key_bias else chosen


def resolve_keys(tokens: Tokens) -> Feature:
    """How keys are read where only keys will do: without bias, unless the profile's numbers are on raw keys."""
    is_raw = PROFILES[family_of_tokens(tokens.facts)].feature == str(RAW_KEYS)
    return resolve_feature(RAW_KEYS if is_raw else KEYS, tokens, otherwise="")


def fields_of(feature: Feature, has_queries: bool = False) -> tuple[str, ...]:
    """The token fields that hold a feature, and the class queries to compare it with."""
    if feature.field == "tokens":
        return ("tokens",)
    return ("keys", "cls_query") if has_queries else ("keys",)


def require_feature(tokens: Tokens, feature: Feature, fields: Sequence[str]) -> None:
    """Raises ConfigError, with the command that adds it, if the tokens lack a field or the feature's block."""
    tokens.require(fields, {"tokens": str(feature.block)} if feature.block is not None else None)
    if feature.field == "tokens":
        _place_of(tokens, feature)


def read_patches(tokens: Tokens, feature: Feature, positions: Sequence[int]) -> Float[np.ndarray, "R T K"]:
    """By position in the row list; failed rows have no meaning."""
    if feature.field == "tokens":
        return tokens.at("tokens", positions, [_place_of(tokens, feature)])[:, 0, 1:]
    keys_RTK = tokens.at("keys", positions)
    is_stored_without = bool(tokens.artifact.plan.config.get("subtracts_key_bias"))
    if is_stored_without == (feature == KEYS):
        return keys_RTK
    bias_K = np.array(tokens.facts.key_bias, np.float32)
    return keys_RTK.astype(np.float32) + (bias_K if is_stored_without else -bias_K)


def read_queries(tokens: Tokens, feature: Feature, positions: Sequence[int]) -> Float32[Tensor, "R H E"]:
    """What a picture's class looks for among patches: its class query, or its class token. Normalised by head."""
    if feature.field != "tokens":
        return normalise_queries(torch.from_numpy(tokens.at("cls_query", positions)), tokens.facts.backbone.heads)
    place = _place_of(tokens, feature)
    parts = [positions[start : start + _ROWS_AT_ONCE] for start in range(0, len(positions), _ROWS_AT_ONCE)]
    rows = [torch.from_numpy(tokens.at("tokens", part, [place])[:, 0, 0].copy()) for part in parts]
    return normalise_queries(torch.cat(rows), 1)


def num_heads(facts: TokensFacts, feature: Feature) -> int:
    """In how many parts a feature is compared."""
    return 1 if feature.field == "tokens" else facts.backbone.heads


def _place_of(tokens: Tokens, feature: Feature) -> int:
    """Where the block lies among those that are stored."""
    blocks = tokens.blocks("tokens")
    if feature.block not in blocks:
        raise ConfigError(
            f"{tokens.artifact.place} holds tokens of blocks {list(blocks)}, and --feature is {feature}; add them with "
            f"`{tokens.command(['tokens:' + '+'.join(map(str, sorted({*blocks, feature.block or 0})))])}`, or choose "
            "another --feature"
        )
    return blocks.index(feature.block)
