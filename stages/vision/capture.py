"""What a vision transformer computes on the way: what chosen blocks attend with, and the tokens after them.

Letters: B pictures, N all tokens (prefix and patches), D model width, H heads, E width of a head.

timm's blocks give out neither queries nor keys. A hook on a block's qkv projection would miss the blocks that add the
bias apart, normalise or rotate afterwards, or have three projections. What reaches `scaled_dot_product_attention` is
what the block attends with, whatever it did before, and fused attention stays on.
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
    """What one block attends with. Its attention is softmax(scale · query keyᵀ + bias); nothing here is scaled yet."""

    query: Float[Tensor, "B H N E"]
    key: Float[Tensor, "B H N E"]  # repeated, where several heads share one
    scale: float
    cls_bias: Float[Tensor, "..."] | None  # the first token's row of a bias or mask, broadcast over "B H 1 N"


@dataclass(slots=True)
class Captured:
    """By block, counted from 0."""

    attended: dict[int, Attended] = field(default_factory=dict)
    tokens: dict[int, Float[Tensor, "B N D"]] = field(default_factory=dict)  # before the final norm


class _Enough(Exception):
    """Everything that was wanted has been computed; what comes after need not run."""


def refuse_unreadable(model_name: str, unreadable: Collection[int]) -> None:
    if unreadable:
        raise ConfigError(
            f"blocks {sorted(unreadable)} of {model_name} do not attend by one scaled_dot_product_attention of all "
            "tokens to all, so their queries and keys cannot be read; choose another backbone, or other fields"
        )


def watch_blocks(
    model: nn.Module,
    images: Float[Tensor, "B 3 rows columns"],
    attention: Mapping[int, Callable[[Attended], None]],
    tokens: Mapping[int, Callable[[Tensor], None]],
) -> list[int]:
    """Calls each block's function with what the block computes, as it does; what comes after the last does not run.

    Where nothing else is wanted of the last block than what it attends with, it neither attends nor goes on.
    Gives the blocks that are in `attention` and attend in another way, for whose functions no call may be right.
    """
    blocks: Any = model.blocks
    last = max([*attention, *tokens])
    seen: dict[int, int] = {}
    with ExitStack() as stack:
        for number, tell in attention.items():
            ends_here = number == last and number not in tokens
            reader = partial(_Reader, tell, partial(_count, seen, number), ends_here)
            # Blocks that compute attention and MLP side by side have no module for the one.
            stack.enter_context(_while_running(getattr(blocks[number], "attn", blocks[number]), reader))
        for number, tell_tokens in tokens.items():
            stack.enter_context(_hook_output(blocks[number], tell_tokens, number == last))
        with suppress(_Enough):
            model.forward_features(images)  # type: ignore[operator]
    return sorted(number for number in attention if seen.get(number) != 1)


def _count(seen: dict[int, int], number: int, is_readable: bool) -> None:
    seen[number] = seen.get(number, 0) + (1 if is_readable else 2)


@contextmanager
def _while_running(attend: nn.Module, reader: Callable[[], TorchFunctionMode]) -> Iterator[None]:
    """A new reader is entered whenever the module's forward runs."""
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
        while running:  # the module was left in the middle
            running.pop().__exit__(None, None, None)
        for handle in handles:
            handle.remove()


@contextmanager
def _hook_output(block: nn.Module, tell: Callable[[Tensor], None], ends_here: bool) -> Iterator[None]:
    def after(module: nn.Module, args: Any, output: Tensor) -> None:
        tell(output)
        if ends_here:
            raise _Enough

    handle = block.register_forward_hook(after)
    try:
        yield
    finally:
        handle.remove()


class _Reader(TorchFunctionMode):
    """Sees every torch call while it is entered, and tells what one attention is computed from."""

    def __init__(self, tell: Callable[[Attended], None], count: Callable[[bool], None], ends_here: bool) -> None:
        super().__init__()
        self._tell, self._count, self._ends_here = tell, count, ends_here

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if function is scaled_dot_product_attention:
            attended = _read_attention(*args, **(kwargs or {}))
            self._count(attended is not None)
            if attended is not None:
                self._tell(attended)
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
    """From the arguments of scaled_dot_product_attention; None for another attention than all tokens over all."""
    if query.ndim != 4 or query.shape[2] != key.shape[2] or is_causal:
        return None
    if key.shape[1] != query.shape[1]:  # several heads share a key
        key = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
    return Attended(query, key, query.shape[-1] ** -0.5 if scale is None else scale, _cls_bias(attn_mask, query))


def _cls_bias(mask: Tensor | None, query: Tensor) -> Tensor | None:
    if mask is None:
        return None
    row = mask[..., :1, :]
    if mask.dtype == torch_bool:
        return query.new_zeros(row.shape).masked_fill(~row, float("-inf"))
    return row.clone()  # a view would keep the N×N of every block
