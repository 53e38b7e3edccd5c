"""The bias of a block's key projection, read from the weights without running the backbone.

Letters: N tokens, D model width, K key width (heads one after the other), H heads, E width of a head.

The block's attention is built alone and asked for the keys of tokens of zeros. That finds the bias wherever a family
keeps it, in one projection, in three, or beside them. Keys that are normalised after projection have no bias that can
be subtracted; nor do rotated keys, whose bias turns with the position.
"""

from typing import Any

import timm
import torch
from torch import nn

from ...manifests.artifact.facts import BackboneFacts
from ..choices import Positions
from .architecture import convert_state
from .capture import read_keys
from .checkpoints import StateDict

_NUM_TOKENS = 4
_LINEAR = 1e-4  # of the keys' size: further from linear is normalised


def key_bias(facts: BackboneFacts, state: StateDict, positions: Positions) -> tuple[float, ...]:
    """Of the last block; empty if there is none, or none that can be subtracted."""
    number = facts.depth - 1
    if number in facts.unreadable:
        return ()
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        model: Any = timm.create_model(
            facts.name, pretrained=False, num_classes=0, img_size=(facts.rows_px, facts.columns_px)
        ).eval()
    attention = getattr(model.blocks[number], "attn", None)
    if attention is None or getattr(model, "rope", None) is not None:
        return ()
    prefix = f"blocks.{number}.attn."
    tensors = convert_state(model, facts.name, state, facts.grid, positions)
    own = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    return _bias_of(attention.to_empty(device="cpu"), own, facts.width)


def _bias_of(attention: nn.Module, state: StateDict, width: int) -> tuple[float, ...]:
    for buffer in attention.buffers():  # those that are not in the weights, such as the missing bias of EVA's keys
        buffer.zero_()
    attention.load_state_dict(state)
    attention.float()
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        torch.default_generator.manual_seed(0)
        tokens_1ND = torch.randn(1, _NUM_TOKENS, width)
        zero, plus, minus = (read_keys(attention, tokens) for tokens in (0 * tokens_1ND, tokens_1ND, -tokens_1ND))
    if zero is None or plus is None or minus is None:
        return ()
    is_linear = (plus + minus - 2 * zero).abs().max() <= _LINEAR * plus.abs().max()
    bias_K = zero[0, :, 0].flatten()
    return tuple(bias_K.tolist()) if is_linear and bias_K.any() else ()
