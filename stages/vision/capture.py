"""Captures intermediate values of a vision transformer: queries and keys of chosen blocks, and tokens after them.

Letters: B pictures, N all tokens (prefix and patches), D model width, H heads, E width of a head.

timm's blocks do not return queries or keys. A hook on the qkv projection would miss blocks that add the bias
separately, normalise or rotate afterwards, or have three projections. The arguments of `scaled_dot_product_attention`
are what a block really attends with, and fused attention stays enabled.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from jaxtyping import Float
from torch import Tensor, bool as torch_bool, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from ...manifests.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Attended:
    """What one block attends with: its attention is softmax(scale · query keyᵀ + bias)."""

    query: Float[Tensor, "B H N E"]
    key: Float[Tensor, "B H N E"]  # repeated if heads share keys
    scale: float
    cls_bias: Float[Tensor, "..."] | None  # the first token's row of the bias or mask; broadcasts to "B H 1 N"


@dataclass(slots=True)
class Captured:
    """Values by block, counted from 0."""

    attended: dict[int, Attended] = field(default_factory=dict)
    tokens: dict[int, Float[Tensor, "B N D"]] = field(default_factory=dict)  # before the final norm

    def fill(self, model: nn.Module, images: Tensor, attention: Collection[int], tokens: Collection[int]) -> list[int]:
        """Runs the model; returns what `watch_blocks` returns."""
        return watch_blocks(
            model,
            images,
            {number: partial(self.attended.__setitem__, number) for number in attention},
            {number: partial(self.tokens.__setitem__, number) for number in tokens},
        )


class _Enough(Exception):
    """Ends a forward pass once everything needed is computed."""


def refuse_unreadable(model_name: str, unreadable: Collection[int]) -> None:
    if unreadable:
        raise ConfigError(
            f"blocks {sorted(unreadable)} of {model_name} do not compute one scaled_dot_product_attention over all "
            "tokens, so their queries and keys cannot be read; choose another backbone, or other fields"
        )


def watch_blocks(
    model: nn.Module,
    images: Float[Tensor, "B 3 rows columns"],
    attention: Mapping[int, Callable[[Attended], None]],
    tokens: Mapping[int, Callable[[Tensor], None]],
) -> list[int]:
    """Runs the model up to the last block needed, and calls each block's function with its values.

    If only queries and keys of the last block are needed, the run stops before its attention. Returns the blocks of
    `attention` whose attention cannot be read; ignore what their functions received.
    """
    blocks: Any = model.blocks
    last = max([*attention, *tokens])
    seen: dict[int, int] = {}
    with ExitStack() as stack:
        for number, callback in attention.items():
            ends_here = number == last and number not in tokens
            reader = partial(_Reader, callback, partial(_count, seen, number), ends_here)
            # Blocks that compute attention and MLP in parallel have no attention module.
            stack.enter_context(_while_running(getattr(blocks[number], "attn", blocks[number]), reader))
        for number, token_callback in tokens.items():
            stack.enter_context(_hook_output(blocks[number], token_callback, number == last))
        with suppress(_Enough):
            model.forward_features(images)  # type: ignore[operator]
    return sorted(number for number in attention if seen.get(number) != 1)


def read_keys(attention: nn.Module, tokens: Float[Tensor, "B N D"]) -> Float[Tensor, "B H N E"] | None:
    """The keys that one attention module makes of these tokens; None if they cannot be read."""
    kept: list[Attended] = []
    with suppress(_Enough), _Reader(kept.append, lambda is_readable: None, ends_here=True):
        attention(tokens)
    return kept[0].key if kept else None


def _count(seen: dict[int, int], number: int, is_readable: bool) -> None:
    seen[number] = seen.get(number, 0) + (1 if is_readable else 2)


@contextmanager
def _while_running(attend: nn.Module, reader: Callable[[], TorchFunctionMode]) -> Iterator[None]:
    """Enters a new reader for each forward pass of the module."""
    running: list[Any] = []

    def before(module: nn.Module, args: Any) -> None:
        running.append(reader())
        running[-1].__enter__()

    def after(module: nn.Module, args: Any, output: Any) -> None:
        running.pop().__exit__(None, None, None)

    handles = [attend.register_forward_pre_hook(before), attend.register_forward_hook(after)]
    try:
        yield
    finally:
        while running:  # the forward pass ended early
            running.pop().__exit__(None, None, None)
        for handle in handles:
            handle.remove()


@contextmanager
def _hook_output(block: nn.Module, callback: Callable[[Tensor], None], ends_here: bool) -> Iterator[None]:
    def after(module: nn.Module, args: Any, output: Tensor) -> None:
        callback(output)
        if ends_here:
            raise _Enough

    handle = block.register_forward_hook(after)
    try:
        yield
    finally:
        handle.remove()


class _Reader(TorchFunctionMode):
    """Intercepts torch calls, and passes the inputs of attention to `callback`."""

    def __init__(self, callback: Callable[[Attended], None], count: Callable[[bool], None], ends_here: bool) -> None:
        super().__init__()
        self._callback, self._count, self._ends_here = callback, count, ends_here

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if function is scaled_dot_product_attention:
            attended = _read_attention(*args, **(kwargs or {}))
            self._count(attended is not None)
            if attended is not None:
                self._callback(attended)
            if self._ends_here:
                raise _Enough
        return function(*args, **(kwargs or {}))


def _read_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Attended | None:
    """Takes the arguments of scaled_dot_product_attention; None if not all tokens attend to all."""
    if query.ndim != 4 or query.shape[2] != key.shape[2] or is_causal:
        return None
    if key.shape[1] != query.shape[1]:  # heads share keys
        key = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
    return Attended(query, key, query.shape[-1] ** -0.5 if scale is None else scale, _cls_bias(attn_mask, query))


def _cls_bias(mask: Tensor | None, query: Tensor) -> Tensor | None:
    if mask is None:
        return None
    row = mask[..., :1, :]
    if mask.dtype == torch_bool:
        return query.new_zeros(row.shape).masked_fill(~row, float("-inf"))
    return row.clone()  # a view would keep the whole N×N bias alive
