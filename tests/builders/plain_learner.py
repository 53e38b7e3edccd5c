"""CST's learner written out step by step from its description, slow and in any float type, to compare with."""

import math

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, group_norm, interpolate, relu


def plain_logits(
    state: dict[str, Tensor], x: Tensor, mask: Tensor | None, grid: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """`state` has the published names. Everything is held whole: all 145 tokens attended to, hidden ones by −1e9."""
    for number, pool in enumerate((4, 3)):
        x = _block(_below(state, f"corrtransformer.{number}."), x, mask, pool)
    for conv, norm in ((0, 1), (3, 4)):
        x = relu(_norm(state, f"linear.{norm}", _conv(state, f"linear.{conv}", x)))
    of_class, of_patches = (x[..., token].reshape(len(x), -1, *grid) for token in (0, 1))
    of_class = relu(_conv(state, "decoder1_cls.2", relu(_conv(state, "decoder1_cls.0", of_class))))
    of_class = avg_pool2d(of_class, 3, 2, 1)
    of_class = _conv(state, "decoder2_cls.2", relu(_conv(state, "decoder2_cls.0", of_class)))
    of_patches = relu(_conv(state, "decoder1_seg.2", relu(_conv(state, "decoder1_seg.0", of_patches))))
    of_patches = interpolate(of_patches, (2 * grid[0], 2 * grid[1]), mode="bilinear", align_corners=True)
    of_patches = _conv(state, "decoder2_seg.2", relu(_conv(state, "decoder2_seg.0", of_patches)))
    return of_class.mean(dim=(2, 3)), of_patches


def _block(state: dict[str, Tensor], x: Tensor, mask: Tensor | None, pool: int) -> Tensor:
    shortcut = relu(_norm(state, "attn.short_cut.2", _pooled(_conv(state, "attn.short_cut.0", x), pool)))
    query, key, value = _conv(state, "attn.qkv", x).chunk(3, dim=1)
    query, key, value = (part.reshape(len(x), 8, -1, *part.shape[2:]) for part in (_pooled(query, pool), key, value))
    logits = torch.einsum("bhetp,bhets->bhtps", query, key)
    if mask is not None:
        side = math.isqrt(x.shape[-1] - 1)
        seen = interpolate(mask[:, None].to(x.dtype), (side, side), mode="bilinear", align_corners=True).flatten(1)
        hidden = torch.cat([torch.zeros(len(x), 1), (seen == 0).float()], dim=1).bool()
        logits = logits.masked_fill(hidden[:, None, None, None], -1e9)
    found = torch.einsum("bhtps,bhets->bhetp", logits.softmax(dim=-1), value).flatten(1, 2)
    found = _conv(state, "attn.agg.2", relu(_norm(state, "attn.agg.0", found)))
    joined = _norm(state, "attn.out_norm", relu(_norm(state, "attn.agg.3", found)) + shortcut)
    fed = _conv(state, "ff.ff.3", relu(_norm(state, "ff.ff.1", _conv(state, "ff.ff.0", joined))))
    return _norm(state, "ff.out_norm", fed + joined)


def _pooled(x: Tensor, pool: int) -> Tensor:
    side = math.isqrt(x.shape[-1] - 1)
    cells = avg_pool2d(x[..., 1:].reshape(-1, 1, side, side), pool)
    return torch.cat([x[..., :1], cells.reshape(*x.shape[:-1], -1)], dim=-1)


def _conv(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    weight = state[f"{name}.weight"]
    return conv2d(x, weight, state.get(f"{name}.bias"), padding=weight.shape[-1] // 2)


def _norm(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return group_norm(x, 4, state[f"{name}.weight"], state[f"{name}.bias"])


def _below(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
