"""A vision transformer of timm at one size: what is known of it before it is made, and the model itself."""

import difflib
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import timm
import torch
from timm.data.config import resolve_model_data_config
from torch import nn

from ...manifests.artifact.facts import BackboneFacts
from ...manifests.errors import ConfigError
from ..choices import Positions
from . import builtin as builtin  # so that timm knows it
from .architecture import load_state
from .capture import Captured, watch_blocks
from .checkpoints import StateDict

_NEEDED = ("blocks", "patch_embed", "num_prefix_tokens", "forward_features")


@dataclass(frozen=True, slots=True)
class Backbone:
    model: nn.Module  # float32, frozen, in evaluation mode
    facts: BackboneFacts
    norm: nn.Module  # the last, which is applied to tokens of every block
    device: torch.device


def backbone_facts(name: str, rows_px: int, columns_px: int) -> BackboneFacts:
    """Found on a model without numbers, in about a second; raises ConfigError for what is no vision transformer here,
    or a size that its patches do not fill."""
    return _facts(name, rows_px, columns_px)


def training_size(name: str) -> tuple[int, int]:
    """Rows and columns of the pictures that timm's variant of the backbone was trained on."""
    return _patch_and_size(name)[1]


def load_backbone(
    name: str, state: StateDict, rows_px: int, columns_px: int, positions: Positions, device: str = "cpu"
) -> Backbone:
    """The backbone with these weights. Touches no random numbers of the caller's."""
    where = find_device(device)
    facts = backbone_facts(name, rows_px, columns_px)
    with torch.random.fork_rng(devices=[]):
        model = timm.create_model(name, pretrained=False, num_classes=0, img_size=(rows_px, columns_px))
    load_state(model, name, state, facts.grid, positions)
    model.float().eval().requires_grad_(False).to(where)
    return Backbone(model, facts, final_norm(model), where)


def final_norm(model: Any) -> nn.Module:
    """The norm after the last block. Models that pool an average have it as `fc_norm`, after the pooling; applied to
    each token it is the nearest there is. The few models without any give tokens as they leave a block."""
    for found in (getattr(model, "norm", None), getattr(model, "fc_norm", None)):
        if isinstance(found, nn.Module) and not isinstance(found, nn.Identity):
            return found
    return nn.Identity()


def find_device(device: str) -> torch.device:
    """ "cpu", "cuda", or one of several such as "cuda:1"; raises ConfigError where it is not there."""
    kind, _, number = device.partition(":")
    if kind not in ("cpu", "cuda") or (number and not number.isdecimal()) or (kind == "cpu" and number):
        raise ConfigError(f"device is {device} and must be cpu, cuda or cuda:NUMBER")
    if kind == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device is cuda, and torch sees no CUDA device here; choose --device cpu")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        raise ConfigError(f"device is {device}, and there are {torch.cuda.device_count()} here, counted from cuda:0")
    return torch.device(device)


@lru_cache(maxsize=64)
def _facts(name: str, rows_px: int, columns_px: int) -> BackboneFacts:
    patch, _ = _patch_and_size(name)
    _refuse_size(name, patch, rows_px, columns_px)
    grid = (rows_px // patch[0], columns_px // patch[1])
    with torch.random.fork_rng(devices=[]), torch.device("meta"), torch.inference_mode():
        model: Any = timm.create_model(name, pretrained=False, num_classes=0, img_size=(rows_px, columns_px)).eval()
        found, unreadable = _trace_blocks(name, model, torch.zeros(1, 3, rows_px, columns_px))
    last = len(model.blocks) - 1
    _, num_tokens, width = found.tokens[last].shape
    if num_tokens != model.num_prefix_tokens + grid[0] * grid[1]:
        raise _unreadable_error(name, f"its blocks give {num_tokens} tokens for {grid[0]}×{grid[1]} patches")
    _, heads, _, head_width = found.attended[last].key.shape if last in found.attended else (1, 1, 1, width)
    data: dict[str, Any] = resolve_model_data_config(model)  # type: ignore[no-untyped-call]
    return BackboneFacts(
        name=name,
        rows_px=rows_px,
        columns_px=columns_px,
        patch=patch,
        grid=grid,
        width=width,
        depth=last + 1,
        heads=heads,
        key_width=heads * head_width,
        num_prefix=int(model.num_prefix_tokens),
        has_class_token=getattr(model, "cls_token", None) is not None,
        unreadable=tuple(unreadable),
        mean=tuple(data["mean"]),
        std=tuple(data["std"]),
    )


def _trace_blocks(name: str, model: Any, images: torch.Tensor) -> tuple[Captured, list[int]]:
    """Every block's shapes, and the blocks whose queries and keys cannot be read."""
    found = Captured()
    blocks = range(len(model.blocks))
    try:
        unreadable = watch_blocks(
            model,
            images,
            {number: partial(found.attended.__setitem__, number) for number in blocks},
            {number: partial(found.tokens.__setitem__, number) for number in blocks},
        )
    except (RuntimeError, TypeError, AssertionError, NotImplementedError) as error:
        # What timm's networks raise that want more than pictures, or another size of them.
        raise _unreadable_error(name, f"it does not take a batch of pictures alone: {str(error)[:80]}") from error
    for number in unreadable:
        found.attended.pop(number, None)
    if any(not isinstance(tokens, torch.Tensor) or tokens.ndim != 3 for tokens in found.tokens.values()):
        raise _unreadable_error(name, "its blocks do not give a row of tokens")
    return found, unreadable


@lru_cache(maxsize=64)
def _patch_and_size(name: str) -> tuple[tuple[int, int], tuple[int, int]]:
    """Rows and columns of pixels in a patch, and in a picture; raises ConfigError for what is no vision transformer."""
    _refuse_unknown(name)
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        model: Any = timm.create_model(name, pretrained=False, num_classes=0)
    missing = [attribute for attribute in _NEEDED if not hasattr(model, attribute)]
    if missing:
        raise _unreadable_error(name, f"{type(model).__name__} has no {missing[0]}")
    if not hasattr(model.patch_embed, "grid_size") or not hasattr(model.patch_embed, "feat_ratio"):
        raise _unreadable_error(name, f"{type(model).__name__} has no grid of patches of one size")
    rows_px, columns_px = model.patch_embed.feat_ratio(as_scalar=False)
    size_px = model.patch_embed.img_size
    return (int(rows_px), int(columns_px)), (int(size_px[0]), int(size_px[1]))


def _unreadable_error(name: str, why: str) -> ConfigError:
    return ConfigError(
        f"backbone {name} is no vision transformer that can be read here ({why}); choose a plain one such as "
        "vit_small_patch8_224.dino"
    )


def _refuse_unknown(name: str) -> None:
    plain, variants = timm.list_models(), timm.list_pretrained()
    if name in plain or name in variants:
        return
    near = difflib.get_close_matches(name, [*plain, *variants], n=3, cutoff=0.5)
    meant = f"did you mean {', '.join(near)}?" if near else "timm.list_models() lists them"
    raise ConfigError(f"timm {timm.__version__} has no backbone {name}; {meant}")


def _refuse_size(name: str, patch: tuple[int, int], rows_px: int, columns_px: int) -> None:
    if min(rows_px, columns_px) >= 1 and rows_px % patch[0] == 0 and columns_px % patch[1] == 0:
        return
    low = (max(rows_px // patch[0], 1) * patch[0], max(columns_px // patch[1], 1) * patch[1])
    high = (max(-(-rows_px // patch[0]), 1) * patch[0], max(-(-columns_px // patch[1]), 1) * patch[1])
    fitting = " or ".join(f"{rows}x{columns}" for rows, columns in dict.fromkeys((low, high)))
    raise ConfigError(
        f"image size {rows_px}x{columns_px} is not whole patches of {patch[0]}x{patch[1]} pixels, as {name} has; "
        f"choose {fitting}"
    )
