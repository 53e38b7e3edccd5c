"""Runs batches through the backbone, and copies their fields to the host while the next batch is computed.

Letters: B pictures of a batch.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from ...manifests.errors import EnvironmentFault
from ..choices import Autocast
from .backbone import Backbone
from .fitting import as_input
from .token_fields import Wanted, token_fields

# A thread with fewer than six rows of a product rounds them differently (measured with MKL, 1 to 128 threads).
ROWS_PER_THREAD = 16
# A layer's output for this many tokens fits a core's cache: ViT-S/8 at 224 takes a quarter less time than in batches of
# 16, ViT-B/16 a sixth less (2 cores).
TOKENS_PER_THREAD = 800

HostFields = dict[str, np.ndarray]


@dataclass(slots=True)
class Extractor:
    """A loaded backbone, and the largest batch that fits its memory."""

    backbone: Backbone
    autocast: Autocast
    dtype: torch.dtype  # of the fields when they leave the device
    micro_batch: int  # pictures

    def launch(self, pixels: UInt8[np.ndarray, "B rows columns 3"], wanted: Wanted) -> "Launched":
        """Starts a batch; asynchronous on CUDA."""
        pictures = torch.from_numpy(pixels)
        if self.backbone.device.type == "cuda":
            pictures = pictures.pin_memory()
        parts: list[dict[str, Tensor]] = []
        while (done := sum(len(next(iter(part.values()))) for part in parts)) < len(pictures):
            try:
                parts.append(self._compute_part(pictures[done : done + self.micro_batch], wanted))
            except torch.OutOfMemoryError as error:
                self._shrink(len(pictures), error)
        fields = {name: torch.cat([part[name] for part in parts]) for name in parts[0]} if len(parts) > 1 else parts[0]
        return Launched({name: _to_host(value) for name, value in fields.items()}, _record_event(self.backbone.device))

    def _compute_part(self, pictures: UInt8[Tensor, "B rows columns 3"], wanted: Wanted) -> dict[str, Tensor]:
        facts, device = self.backbone.facts, self.backbone.device
        images = as_input(pictures.to(device, non_blocking=True), facts.mean, facts.std)
        lower = getattr(torch, self.autocast) if self.autocast != "off" else None
        tokens = len(pictures) * (facts.num_prefix + facts.num_patches)
        with torch.autocast(device.type, lower) if lower else nullcontext(), _limit_threads(tokens):
            fields = token_fields(self.backbone, images, wanted)
        return {name: value.to(self.dtype) for name, value in fields.items()}

    def _shrink(self, batch: int, error: torch.OutOfMemoryError) -> None:
        """Halves the batch from now on, in float32. With autocast a picture's numbers depend on the batch size, so the
        user must choose it."""
        tried = min(self.micro_batch, batch)
        if tried == 1:
            raise EnvironmentFault(
                f"{self.backbone.device} has no room for one picture of this size; choose a smaller --image-size, "
                "or a device with more memory"
            ) from error
        if self.autocast != "off":
            raise EnvironmentFault(
                f"{self.backbone.device} has no room for a batch of {tried}, and with --autocast {self.autocast} "
                f"another batch size would change bytes; choose --batch {tried // 2} with another --out, or --autocast "
                "off"
            ) from error
        self.micro_batch = tried // 2
        torch.cuda.empty_cache()


def fitting_batch(backbone: Backbone, autocast: Autocast, batch: int) -> int:
    """The number of pictures computed at once: the whole batch on a GPU, and with autocast, where bytes depend on
    it."""
    if autocast != "off" or backbone.device.type != "cpu":
        return batch
    tokens = backbone.facts.num_prefix + backbone.facts.num_patches
    return max(1, min(batch, TOKENS_PER_THREAD * torch.get_num_threads() // tokens))


@dataclass(frozen=True, slots=True)
class Launched:
    """Fields that may still be computed and copied."""

    fields: dict[str, Tensor]
    ready: Any  # a CUDA event; None on a CPU, where the fields are complete

    def fetch(self) -> HostFields:
        if self.ready is not None:
            self.ready.synchronize()
        return {name: value.numpy() for name, value in self.fields.items()}


def fetch_one_behind(launches: Iterable[tuple[int, Launched]]) -> Iterator[tuple[int, HostFields]]:
    """Fetches each batch's fields after the next batch is launched, so that the device stays busy."""
    previous: tuple[int, Launched] | None = None
    for start, launched in launches:
        if previous is not None:
            yield previous[0], previous[1].fetch()
        previous = start, launched
    if previous is not None:
        yield previous[0], previous[1].fetch()


@contextmanager
def _limit_threads(rows: int) -> Iterator[None]:
    """Uses fewer threads where all of them would change bytes."""
    before = torch.get_num_threads()
    fitting = max(1, min(before, rows // ROWS_PER_THREAD))
    if fitting < before:
        torch.set_num_threads(fitting)
    try:
        yield
    finally:
        if fitting < before:
            torch.set_num_threads(before)


def _to_host(values: Tensor) -> Tensor:
    if values.device.type != "cuda":
        return values
    return torch.empty(values.shape, dtype=values.dtype, pin_memory=True).copy_(values, non_blocking=True)


def _record_event(device: torch.device) -> Any:
    if device.type != "cuda":
        return None
    event: Any = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream(device))
    return event
