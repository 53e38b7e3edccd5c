"""Torch on one thread for a while."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """For work in blocks of a cache's size: one thread is as fast as reading them, and where other programs run, each
    block would wait until a second thread has its turn (measured: thirty times as long). And for what would give other
    bytes with another number of threads; `--workers` is for that."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
