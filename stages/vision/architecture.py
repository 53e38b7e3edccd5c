"""Weights made to fit a model: other people's names and sizes turned into timm's, or refused with what differs.

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

# What stands beside a backbone in a file and is not part of it.
_HEADS = (
    *("head.", "head_dist.", "heads.", "fc.", "classifier.", "projector.", "predictor.", "prototypes."),
    *("dino_head.", "ibot_head.", "lm_head.", "pre_logits.", "attn_pool."),
)
_DECODERS = ("decoder_", "decoder.", "mask_token")
_SHOWN = 3


def load_state(model: Any, backbone: str, state: StateDict, grid: tuple[int, int], positions: Positions) -> None:
    """Loads every tensor of the model; raises ConfigError with what is missing, too much, or of another shape or type.

    Floats of any length are taken; torch by itself would take whole numbers for them too.
    """
    renamed = _as_timm(model, backbone, dict(state), grid, positions)
    _refuse_others(backbone, model.state_dict(), renamed)
    model.load_state_dict(renamed, strict=True)


def _as_timm(model: Any, backbone: str, state: StateDict, grid: tuple[int, int], positions: Positions) -> StateDict:
    if any(name.startswith("decoder") for name in state):  # MAE's; timm takes a mask token for a sign of DINOv2
        state = {name: tensor for name, tensor in state.items() if not name.startswith(_DECODERS)}
    if positions == "dino" and "pos_embed" in state:
        table_1PD = state["pos_embed"]
        resampled = resample_as_dino(table_1PD.float(), grid, num_prefix_positions(table_1PD.shape[1]))
        state["pos_embed"] = resampled
        # timm takes a table for one of its own training size where the counts allow it; this says it is not.
        model.pretrained_model_args = {"img_size": _size_px(model, grid)}
    known = set(model.state_dict())
    if "blocks.0.ls1.gamma" in known:
        state = {re.sub(r"\bgamma_([12])$", r"ls\1.gamma", name): tensor for name, tensor in state.items()}
    try:
        state = _filter_of(backbone)(state, model)
    except (RuntimeError, KeyError, ValueError, AttributeError) as error:
        shown = (str(error).splitlines() or [""])[0][:160]
        raise ConfigError(f"weights do not fit {backbone} ({shown}); give weights of that architecture") from error
    state = _rename_norm(state, known)
    return {name: t for name, t in state.items() if name in known or not name.startswith((*_HEADS, *_DECODERS))}


def _size_px(model: Any, grid: tuple[int, int]) -> tuple[int, int]:
    rows_px, columns_px = model.patch_embed.feat_ratio(as_scalar=False)
    return grid[0] * rows_px, grid[1] * columns_px


def _filter_of(backbone: str) -> Callable[[StateDict, nn.Module], StateDict]:
    """timm's own way to read the official files of a family of models."""
    module = sys.modules[model_entrypoint(backbone.partition(".")[0]).__module__]
    found: Callable[[StateDict, nn.Module], StateDict] | None = getattr(module, "checkpoint_filter_fn", None)
    return found or (lambda state, model: state)


def _rename_norm(state: StateDict, known: set[str]) -> StateDict:
    """timm keeps the last norm as `norm` before, or `fc_norm` after pooling; files of one model may have either."""
    for ours, theirs in (("norm.", "fc_norm."), ("fc_norm.", "norm.")):
        if f"{ours}weight" in known and f"{ours}weight" not in state and f"{theirs}weight" not in known:
            state = {ours + n.removeprefix(theirs) if n.startswith(theirs) else n: t for n, t in state.items()}
    return state


def _refuse_others(backbone: str, expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    both = [(name, expected[name], found[name]) for name in expected if name in found]
    differing = [f"{name} {tuple(got.shape)} for {tuple(t.shape)}" for name, t, got in both if got.shape != t.shape]
    no_floats = [
        f"{name} {str(got.dtype).removeprefix('torch.')}"
        for name, t, got in both
        if t.is_floating_point() and not got.is_floating_point()
    ]
    faults = [
        _list_names("missing", [name for name in expected if name not in found]),
        _list_names("unexpected", [name for name in found if name not in expected]),
        _list_names("of another shape", differing),
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
