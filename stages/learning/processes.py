"""Several processes at one training: each has its part of every batch, and together they compute what one process would
with the whole batch, to rounding.

Gradients are averaged; what is looked at across a batch is gathered; random numbers are drawn for the whole batch by
every process, which keeps those of its own rows. All hold the same weights at every step. Without torchrun everything
here is of one process and changes no byte.

Letters: P processes, B rows of this process's part of a batch, W rows that a process wants.
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
    """Those that this process computed with are there no more, or do not answer in time."""


@dataclass(frozen=True, slots=True)
class BatchSlice:
    """Which rows of every batch are this process's: of `count` runs of the same length the one of this index."""

    index: int = 0
    count: int = 1

    def take(self, rows: Tensor, dim: int = 0) -> Tensor:
        """Of something that was made for the whole batch, what belongs to this process."""
        return rows if self.count == 1 else rows.chunk(self.count, dim)[self.index]


WHOLE = BatchSlice()


def own_batch_slice() -> BatchSlice:
    return BatchSlice(torchrun.number(), torchrun.num_processes())


def own_device(device: str) -> str:
    """Of several processes on a machine each takes the CUDA device of its number there."""
    several = torchrun.num_processes() > 1
    return f"cuda:{os.environ['LOCAL_RANK']}" if device == "cuda" and several else device


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """The processes that torchrun started as one group: gloo's for what is on the CPU, NCCL's on CUDA."""
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
    """Around whatever waits for the other processes."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise OthersLost(
            f"process {torchrun.number()} of {torchrun.num_processes()} lost the others: one of them ended, or was not "
            f"heard of for {torchrun.WAIT_S / 60:.0f} minutes; see what it says, and start the same command again"
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
    """[…] of each process as [P, …], the same for all of them. No gradient passes."""
    own = own.detach().contiguous()
    if not distributed.is_initialized():
        return own[None]
    every = [torch.empty_like(own) for _ in range(distributed.get_world_size())]
    with detect_lost_processes():
        distributed.all_gather(every, own)
    return torch.stack(every)


def gather_self(own: Tensor) -> Tensor:
    """In the place of `gather_all`, where the first process computes something that the others do not."""
    return own.detach()[None]


def exchange_rows(own: Tensor, wanted: Sequence[Int64[Tensor, " _"]], part: BatchSlice) -> Tensor:
    """Of a batch of which each process has its part, the rows that this one wants, whoever has them. All know what
    each of them wants: `wanted` has for every process the numbers of rows in the whole batch."""
    mine_W = wanted[part.index]
    if part.count == 1:
        return own[mine_W.to(own.device)]
    first, stop = part.index * len(own), (part.index + 1) * len(own)
    sent = [each[(each >= first) & (each < stop)] - first for each in wanted]
    holder_W = mine_W // len(own)
    order_W = holder_W.argsort(stable=True)  # as they come: from the first process first
    come = torch.empty(len(mine_W), *own.shape[1:], dtype=own.dtype, device=own.device)
    with detect_lost_processes():
        distributed.all_to_all_single(
            come,
            own[torch.cat(sent).to(own.device)].contiguous(),
            output_split_sizes=torch.bincount(holder_W, minlength=part.count).tolist(),
            input_split_sizes=[len(each) for each in sent],
        )
    return come[order_W.argsort().to(own.device)]


def broadcast_bytes(data: bytes) -> bytes:
    """What the first process gives, whatever the others do."""
    if not distributed.is_initialized():
        return data
    is_first = torchrun.number() == 0
    size = torch.tensor(len(data))
    with detect_lost_processes():
        distributed.broadcast(size, src=0)
        held = torch.frombuffer(bytearray(data), dtype=torch.uint8) if is_first else torch.empty(int(size)).byte()
        distributed.broadcast(held, src=0)
    return held.numpy().tobytes()


def gather_texts(own: str) -> list[str]:
    """A text of each process, in their order."""
    data = own.encode()
    sizes_P = gather_all(torch.tensor(len(data)))
    padded = data.ljust(int(sizes_P.max()) + 1)  # never empty
    every = gather_all(torch.frombuffer(bytearray(padded), dtype=torch.uint8))
    return [each.numpy().tobytes()[:size].decode() for each, size in zip(every, sizes_P.tolist(), strict=True)]
