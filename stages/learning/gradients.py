"""Gradients averaged over processes while the backward pass goes on.

Not by DistributedDataParallel: that wants one call of one module per step whose parameters always take part, and a
lesson calls a network part by part, freezes some of it for an epoch, and leaves heads out. This asks none of it and
overlaps as well: a bucket is sent when the last of its gradients has come, while those before are still computed.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor, distributed

from .processes import detect_lost_processes

BUCKET_BYTES = 25 * 2**20  # DistributedDataParallel's


class Averaging:
    """Makes every gradient of a step the mean of those of all processes.

    All must send the same parameters in the same order, or each would wait for another; and gradients come in any. So
    buckets are fixed before a step, and sent one after the other. They are made of what had a gradient in the step
    before, which is the same for all processes; whatever else has one now is sent at the end.
    """

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self._parameters = parameters[::-1]  # about the order in which gradients come
        self._expected = self._parameters

    @contextmanager
    def over_processes(self) -> Iterator[None]:
        """Around a backward pass, before which there were no gradients."""
        if not distributed.is_initialized():
            yield
            return
        expected = [each for each in self._expected if each.requires_grad]
        sending = _Sending(expected)
        hooks: list[Any] = [each.register_post_accumulate_grad_hook(sending.note_gradient) for each in expected]  # type: ignore[no-untyped-call]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
        known = set(expected)
        self._expected = [each for each in self._parameters if each.grad is not None]
        sending.finish([each for each in self._expected if each not in known])


class _Sending:
    """Of one step."""

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self._buckets = _buckets(parameters)
        self._missing = [set(bucket) for bucket in self._buckets]
        self._of = {each: missing for missing in self._missing for each in missing}
        self._next = 0
        self._sent: list[tuple[list[Tensor], Tensor, distributed.Work]] = []

    def note_gradient(self, parameter: Tensor) -> None:
        self._of[parameter].discard(parameter)
        while self._next < len(self._buckets) and not self._missing[self._next]:
            self._send(self._buckets[self._next])
            self._next += 1

    def finish(self, late: Sequence[Tensor]) -> None:
        """Sends what was not sent yet, and waits for everything."""
        self._send(each for each in chain(*self._buckets[self._next :], late))
        count = distributed.get_world_size()
        for gradients, together, work in self._sent:
            with detect_lost_processes():
                work.wait()
            together.div_(count)
            means = torch.split(together, [each.numel() for each in gradients])
            for gradient, mean in zip(gradients, means, strict=True):
                gradient.copy_(mean.view_as(gradient))

    def _send(self, parameters: Iterator[Tensor] | Sequence[Tensor]) -> None:
        gradients = [each.grad for each in parameters if each.grad is not None]
        if gradients:
            together = torch.cat([each.flatten() for each in gradients])
            with detect_lost_processes():
                self._sent.append((gradients, together, distributed.all_reduce(together, async_op=True)))


def _buckets(parameters: Sequence[Tensor]) -> list[list[Tensor]]:
    found: list[list[Tensor]] = []
    size = 0
    for each in parameters:
        if not found or size >= BUCKET_BYTES:
            found.append([])
            size = 0
        found[-1].append(each)
        size += each.numel() * each.element_size()
    return found
