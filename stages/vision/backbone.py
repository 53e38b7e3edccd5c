"""A vision transformer of timm at one size: its facts, and the model itself."""

import difflib
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import timm
import torch
from timm.data.config import resolve_model_data_config
from torch import nn

from ...manifests.artifact.facts import BackboneFacts
from ...manifests.errors import ConfigError
from ..choices import Positions
from . import builtin as builtin  # registers it with timm
from .architecture import load_state
from .capture import Captured
from .checkpoints import StateDict
from .summation import fix_summation_order

_NEEDED = ("blocks", "patch_embed", "num_prefix_tokens", "forward_features")


@dataclass(frozen=True, slots=True)
class Backbone:
    model: nn.Module  # float32, frozen, in evaluation mode
    facts: BackboneFacts
    norm: nn.Module  # the last, which is applied to tokens of every block
    device: torch.device


@lru_cache(maxsize=64)
def backbone_facts(name: str, rows_px: int, columns_px: int) -> BackboneFacts:
    """Traces the model on the meta device, in about a second; raises ConfigError for an unsupported backbone, or a size
    that is not whole patches."""
    fix_summation_order()
    patch, _ = _patch_and_size(name)
    _refuse_size(name, patch, rows_px, columns_px)
    grid = (rows_px // patch[0], columns_px // patch[1])
    with torch.random.fork_rng(devices=[]), torch.device("meta"), torch.inference_mode():
        model: Any = timm.create_model(name, pretrained=False, num_classes=0, img_size=(rows_px, columns_px)).eval()
        captured, unreadable = _trace_blocks(name, model, torch.zeros(1, 3, rows_px, columns_px))
    last = len(model.blocks) - 1
    _, num_tokens, width = captured.tokens[last].shape
    if num_tokens != model.num_prefix_tokens + grid[0] * grid[1]:
        raise _unreadable_error(name, f"its blocks give {num_tokens} tokens for {grid[0]}×{grid[1]} patches")
    _, heads, _, head_width = captured.attended[last].key.shape if last in captured.attended else (1, 1, 1, width)
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


def training_size(name: str) -> tuple[int, int]:
    """Rows and columns of the pictures that timm's variant was trained on."""
    return _patch_and_size(name)[1]


def load_backbone(
    name: str, state: StateDict, rows_px: int, columns_px: int, positions: Positions, device: str = "cpu"
) -> Backbone:
    """The backbone with these weights. Leaves torch's global random state unchanged."""
    where = find_device(device)
    facts = backbone_facts(name, rows_px, columns_px)
    with torch.random.fork_rng(devices=[]):
        model = timm.create_model(name, pretrained=False, num_classes=0, img_size=(rows_px, columns_px))
    load_state(model, name, state, facts.grid, positions)
    model.float().eval().requires_grad_(False).to(where)
    return Backbone(model, facts, final_norm(model), where)


def final_norm(model: Any) -> nn.Module:
    """The norm after the last block. For models that pool an average it is `fc_norm`, here applied to each token, which
    is the closest available. The few models without a norm give raw tokens."""
    for norm in (getattr(model, "norm", None), getattr(model, "fc_norm", None)):
        if isinstance(norm, nn.Module) and not isinstance(norm, nn.Identity):
            return norm
    return nn.Identity()


def find_device(device: str) -> torch.device:
    """Parses "cpu", "cuda" or "cuda:1"; raises ConfigError if the device does not exist."""
    kind, _, number = device.partition(":")
    if kind not in ("cpu", "cuda") or (number and not number.isdecimal()) or (kind == "cpu" and number):
        raise ConfigError(f"--device {device} is not a device; it must be cpu, cuda or cuda:NUMBER")
    if kind == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device is cuda, and torch finds no CUDA device here; choose --device cpu")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"--device is {device}, and there are {torch.cuda.device_count()}, counted from cuda:0; choose one of them"
        )
    return torch.device(device)


def _trace_blocks(name: str, model: Any, images: torch.Tensor) -> tuple[Captured, list[int]]:
    """Every block's values on the meta device, and the blocks whose queries and keys cannot be read."""
    captured = Captured()
    blocks = range(len(model.blocks))
    try:
        unreadable = captured.fill(model, images, blocks, blocks)
    except (RuntimeError, TypeError, AssertionError, NotImplementedError) as error:
        # timm's networks raise these if they need more inputs, or another size.
        raise _unreadable_error(name, f"it does not take a batch of pictures alone: {str(error)[:80]}") from error
    for number in unreadable:
        captured.attended.pop(number, None)
    if any(not isinstance(tokens, torch.Tensor) or tokens.ndim != 3 for tokens in captured.tokens.values()):
        raise _unreadable_error(name, "its blocks do not give a row of tokens")
    return captured, unreadable


@lru_cache(maxsize=64)
def _patch_and_size(name: str) -> tuple[tuple[int, int], tuple[int, int]]:
    """Rows and columns of pixels in a patch, and in a picture; raises ConfigError for an unsupported backbone."""
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
        f"backbone {name} is not a supported vision transformer ({why}); choose a plain one such as "
        "vit_small_patch8_224.dino"
    )


def _refuse_unknown(name: str) -> None:
    plain, variants = timm.list_models(), timm.list_pretrained()
    if name in plain or name in variants:
        return
    close = difflib.get_close_matches(name, [*plain, *variants], n=3, cutoff=0.5)
    hint = f"did you mean {', '.join(close)}?" if close else "timm.list_models() lists them"
    raise ConfigError(f"timm {timm.__version__} has no backbone {name}; {hint}")


def _refuse_size(name: str, patch: tuple[int, int], rows_px: int, columns_px: int) -> None:
    if min(rows_px, columns_px) >= 1 and rows_px % patch[0] == 0 and columns_px % patch[1] == 0:
        return
    low = (max(rows_px // patch[0], 1) * patch[0], max(columns_px // patch[1], 1) * patch[1])
    high = (max(-(-rows_px // patch[0]), 1) * patch[0], max(-(-columns_px // patch[1]), 1) * patch[1])
    sizes = " or ".join(f"{rows}x{columns}" for rows, columns in dict.fromkeys((low, high)))
    raise ConfigError(
        f"image size {rows_px}x{columns_px} is not whole patches of {patch[0]}x{patch[1]} pixels, as {name} has; "
        f"choose {sizes}"
    )
