"""Data-parallel training: each process has its slice of every batch, and together they compute what one process would
compute with the whole batch, up to rounding.

Gradients are averaged, and values needed across a batch are gathered. Every process draws the random numbers of the
whole batch and keeps those of its own rows. All processes hold the same weights at every step. Without torchrun there
is one process, and nothing here changes a byte.

Letters: P processes, B rows of this process's slice of a batch, W rows that a process needs.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from jaxtyping import Int64
from torch import Tensor, distributed
from torch.distributed import PrefixStore  # type: ignore[attr-defined]

from ...manifests.errors import EnvironmentFault
from ...manifests.files import torchrun


class OthersLost(EnvironmentFault):
    """The other processes have ended or do not answer in time."""


@dataclass(frozen=True, slots=True)
class BatchSlice:
    """The rows of every batch that belong to this process: run number `index` of `count` equal runs."""

    index: int = 0
    count: int = 1

    def take(self, rows: Tensor, dim: int = 0) -> Tensor:
        """This process's part of a tensor of the whole batch."""
        return rows if self.count == 1 else rows.chunk(self.count, dim)[self.index]


WHOLE = BatchSlice()


def own_batch_slice() -> BatchSlice:
    return BatchSlice(torchrun.number(), torchrun.num_processes())


def own_device(device: str) -> str:
    """With several processes, the CUDA device of this process's local rank."""
    several = torchrun.num_processes() > 1
    return f"cuda:{os.environ['LOCAL_RANK']}" if device == "cuda" and several else device


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Joins the processes that torchrun started into a group: gloo on the CPU, NCCL on CUDA."""
    if torchrun.num_processes() == 1:
        yield
        return
    torchrun.begin()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    with detect_lost_processes():
        distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
            store=PrefixStore("maskmill/group", torchrun.store()),
            rank=torchrun.number(),
            world_size=torchrun.num_processes(),
            timeout=timedelta(seconds=torchrun.WAIT_S),
        )
    try:
        yield
    finally:
        distributed.destroy_process_group()


@contextmanager
def detect_lost_processes() -> Iterator[None]:
    """Wraps every wait for the other processes."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise OthersLost(
            f"process {torchrun.number()} of {torchrun.num_processes()} lost the others: one of them ended, or was not "
            f"heard of for {torchrun.WAIT_S / 60:.0f} minutes; see its message, then run the same command again"
        ) from error


def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Makes every gradient the mean of those of all processes, in one message after the backward pass.

    DistributedDataParallel wants one call of one module per step whose parameters always take part; a lesson calls a
    network part by part, freezes some of it for an epoch, and leaves heads out. Which parameters have a gradient is
    the same for all processes.
    """
    gradients = [each.grad for each in parameters if each.grad is not None]
    if not (gradients and distributed.is_initialized()):
        return
    together = torch.cat([each.flatten() for each in gradients])
    with detect_lost_processes():
        distributed.all_reduce(together)
    together.div_(distributed.get_world_size())
    for gradient, mean in zip(gradients, torch.split(together, [each.numel() for each in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


def gather_all(own: Tensor) -> Tensor:
    """Stacks […] of every process to [P, …], on all of them. Carries no gradient."""
    own = own.detach().contiguous()
    if not distributed.is_initialized():
        return own[None]
    gathered = [torch.empty_like(own) for _ in range(distributed.get_world_size())]
    with detect_lost_processes():
        distributed.all_gather(gathered, own)
    return torch.stack(gathered)


def gather_self(own: Tensor) -> Tensor:
    """Replaces `gather_all` where the first process computes alone."""
    return own.detach()[None]


def exchange_rows(own: Tensor, wanted: Sequence[Int64[Tensor, " _"]], part: BatchSlice) -> Tensor:
    """Gives the rows that this process needs of a batch that is split over the processes. `wanted` holds, for every
    process, the row numbers in the whole batch; it is the same on all of them."""
    mine_W = wanted[part.index]
    if part.count == 1:
        return own[mine_W.to(own.device)]
    first, stop = part.index * len(own), (part.index + 1) * len(own)
    sent = [rows[(rows >= first) & (rows < stop)] - first for rows in wanted]
    holder_W = mine_W // len(own)
    order_W = holder_W.argsort(stable=True)  # received in the order of the processes
    received = torch.empty(len(mine_W), *own.shape[1:], dtype=own.dtype, device=own.device)
    with detect_lost_processes():
        distributed.all_to_all_single(
            received,
            own[torch.cat(sent).to(own.device)].contiguous(),
            output_split_sizes=torch.bincount(holder_W, minlength=part.count).tolist(),
            input_split_sizes=[len(rows) for rows in sent],
        )
    return received[order_W.argsort().to(own.device)]


def broadcast_bytes(data: bytes) -> bytes:
    """The first process's data, on all processes."""
    if not distributed.is_initialized():
        return data
    is_first = torchrun.number() == 0
    size = torch.tensor(len(data))
    with detect_lost_processes():
        distributed.broadcast(size, src=0)
        buffer = torch.frombuffer(bytearray(data), dtype=torch.uint8) if is_first else torch.empty(int(size)).byte()
        distributed.broadcast(buffer, src=0)
    return buffer.numpy().tobytes()


def gather_texts(own: str) -> list[str]:
    """The text of every process, in order."""
    data = own.encode()
    sizes_P = gather_all(torch.tensor(len(data)))
    padded = data.ljust(int(sizes_P.max()) + 1)  # never empty
    gathered = gather_all(torch.frombuffer(bytearray(padded), dtype=torch.uint8))
    return [text.numpy().tobytes()[:size].decode() for text, size in zip(gathered, sizes_P.tolist(), strict=True)]
