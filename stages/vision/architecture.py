"""Fits weights to a model: converts published names and sizes to timm's, or refuses them and lists the differences.

Letters: P positions, D model width.
"""

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import timm
from timm.models import model_entrypoint
from torch import Tensor, nn

from ...manifests.errors import ConfigError
from ..choices import Positions
from .checkpoints import StateDict
from .positions import num_prefix_positions, resample_as_dino

# Prefixes of tensors in a file that are not part of the backbone.
_HEADS = (
    *("head.", "head_dist.", "heads.", "fc.", "classifier.", "projector.", "predictor.", "prototypes."),
    *("dino_head.", "ibot_head.", "lm_head.", "pre_logits.", "attn_pool."),
)
_DECODERS = ("decoder_", "decoder.", "mask_token")
_SHOWN = 3


def load_state(model: Any, backbone: str, state: StateDict, grid: tuple[int, int], positions: Positions) -> None:
    """Loads every tensor of the model; raises ConfigError for missing or unexpected tensors, shapes or types.

    Accepts any float type, but no integers, which torch would accept.
    """
    renamed = convert_state(model, backbone, state, grid, positions)
    _refuse_differences(backbone, model.state_dict(), renamed)
    model.load_state_dict(renamed, strict=True)


def convert_state(
    model: Any, backbone: str, state: StateDict, grid: tuple[int, int], positions: Positions
) -> StateDict:
    """Tensors under timm's names, in the shapes of the model, without heads and decoders; the given mapping is kept."""
    state = dict(state)
    if any(name.startswith("decoder") for name in state):  # MAE's; timm would detect DINOv2 by the mask token
        state = {name: tensor for name, tensor in state.items() if not name.startswith(_DECODERS)}
    if positions == "dino" and "pos_embed" in state:
        table_1PD = state["pos_embed"]
        state["pos_embed"] = resample_as_dino(table_1PD.float(), grid, num_prefix_positions(table_1PD.shape[1]))
        # Otherwise timm may assume that the table has the training size.
        model.pretrained_model_args = {"img_size": _size_px(model, grid)}
    known = set(model.state_dict())
    if "blocks.0.ls1.gamma" in known:
        state = {re.sub(r"\bgamma_([12])$", r"ls\1.gamma", name): tensor for name, tensor in state.items()}
    try:
        state = _filter_of(backbone)(state, model)
    except (RuntimeError, KeyError, ValueError, AttributeError) as error:
        reason = (str(error).splitlines() or [""])[0][:160]
        raise ConfigError(f"weights do not fit {backbone} ({reason}); give weights of that architecture") from error
    state = _rename_norm(state, known)
    return {name: t for name, t in state.items() if name in known or not name.startswith((*_HEADS, *_DECODERS))}


def _size_px(model: Any, grid: tuple[int, int]) -> tuple[int, int]:
    rows_px, columns_px = model.patch_embed.feat_ratio(as_scalar=False)
    return grid[0] * rows_px, grid[1] * columns_px


def _filter_of(backbone: str) -> Callable[[StateDict, nn.Module], StateDict]:
    """timm's converter for the official files of a model family."""
    module = sys.modules[model_entrypoint(backbone.partition(".")[0]).__module__]
    return getattr(module, "checkpoint_filter_fn", lambda state, model: state)


def _rename_norm(state: StateDict, known: set[str]) -> StateDict:
    """timm calls the last norm `norm` (before pooling) or `fc_norm` (after it); files may use either name."""
    for ours, theirs in (("norm.", "fc_norm."), ("fc_norm.", "norm.")):
        if f"{ours}weight" in known and f"{ours}weight" not in state and f"{theirs}weight" not in known:
            state = {ours + n.removeprefix(theirs) if n.startswith(theirs) else n: t for n, t in state.items()}
    return state


def _refuse_differences(backbone: str, expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> None:
    both = [(name, expected[name], given[name]) for name in expected if name in given]
    other_shapes = [f"{name} {tuple(got.shape)} for {tuple(t.shape)}" for name, t, got in both if got.shape != t.shape]
    no_floats = [
        f"{name} {str(got.dtype).removeprefix('torch.')}"
        for name, t, got in both
        if t.is_floating_point() and not got.is_floating_point()
    ]
    faults = [
        _list_names("missing", [name for name in expected if name not in given]),
        _list_names("unexpected", [name for name in given if name not in expected]),
        _list_names("of another shape", other_shapes),
        _list_names("not of floats", no_floats),
    ]
    if any(faults):
        raise ConfigError(
            f"weights are of another architecture than {backbone}: {'; '.join(filter(None, faults))}; "
            f"name the backbone that they belong to (timm {timm.__version__})"
        )


def _list_names(what: str, names: Sequence[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{what} {', '.join(names[:_SHOWN])}{more}"
