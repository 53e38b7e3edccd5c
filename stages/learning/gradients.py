"""Averages gradients over processes during the backward pass.

DistributedDataParallel needs one call of one module per step, with every parameter in use. A lesson calls a network
part by part, freezes parts for an epoch, and omits heads. This class allows that and overlaps equally well: a bucket is
sent as soon as its last gradient is ready.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor, distributed

from .processes import detect_lost_processes

BUCKET_BYTES = 25 * 2**20  # DistributedDataParallel's


class Averaging:
    """Replaces every gradient of a step by its mean over all processes.

    All processes must send the same parameters in the same order to avoid a deadlock, but gradients arrive in any
    order. So buckets are fixed before a step and sent in sequence. They hold the parameters that had a gradient in the
    previous step, which are the same for all processes; other gradients are sent at the end.
    """

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self._parameters = parameters[::-1]  # roughly the order in which gradients arrive
        self._expected = self._parameters

    @contextmanager
    def over_processes(self) -> Iterator[None]:
        """Wraps a backward pass that starts without gradients."""
        if not distributed.is_initialized():
            yield
            return
        expected = [parameter for parameter in self._expected if parameter.requires_grad]
        sending = _Sending(expected)
        hooks: list[Any] = [p.register_post_accumulate_grad_hook(sending.note_gradient) for p in expected]  # type: ignore[no-untyped-call]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
        known = set(expected)
        self._expected = [parameter for parameter in self._parameters if parameter.grad is not None]
        sending.finish([parameter for parameter in self._expected if parameter not in known])


class _Sending:
    """The buckets of one step."""

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self._buckets = _buckets(parameters)
        self._missing = [set(bucket) for bucket in self._buckets]
        self._bucket_of = {parameter: missing for missing in self._missing for parameter in missing}
        self._next = 0
        self._sent: list[tuple[list[Tensor], Tensor, distributed.Work]] = []

    def note_gradient(self, parameter: Tensor) -> None:
        self._bucket_of[parameter].discard(parameter)
        while self._next < len(self._buckets) and not self._missing[self._next]:
            self._send(self._buckets[self._next])
            self._next += 1

    def finish(self, late: Sequence[Tensor]) -> None:
        """Sends the remaining gradients and waits for all of them."""
        self._send(chain(*self._buckets[self._next :], late))
        count = distributed.get_world_size()
        for gradients, together, work in self._sent:
            with detect_lost_processes():
                work.wait()
            together.div_(count)
            means = torch.split(together, [gradient.numel() for gradient in gradients])
            for gradient, mean in zip(gradients, means, strict=True):
                gradient.copy_(mean.view_as(gradient))

    def _send(self, parameters: Iterable[Tensor]) -> None:
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if gradients:
            together = torch.cat([gradient.flatten() for gradient in gradients])
            with detect_lost_processes():
                self._sent.append((gradients, together, distributed.all_reduce(together, async_op=True)))


def _buckets(parameters: Sequence[Tensor]) -> list[list[Tensor]]:
    buckets: list[list[Tensor]] = []
    size = 0
    for parameter in parameters:
        if not buckets or size >= BUCKET_BYTES:
            buckets.append([])
            size = 0
        buckets[-1].append(parameter)
        size += parameter.numel() * parameter.element_size()
    return buckets
