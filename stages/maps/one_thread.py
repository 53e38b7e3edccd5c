"""Limits torch to one thread."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """For work in cache-sized blocks, where one thread already saturates memory and a second one makes each block wait
    if other programs run (measured: thirty times as long); and for work whose bytes depend on the number of threads.
    Use `--workers` for parallelism."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
