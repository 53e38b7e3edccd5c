"""Cores, and the threads that numeric libraries may take of them."""

import os
import sys

_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def num_cores() -> int:
    """The cores this process may use: in a container or a batch job fewer than the machine has."""
    from dask.system import cpu_count  # knows affinity and the quotas of cgroups

    return cpu_count()


def thread_settings(threads: int) -> dict[str, str]:
    """The environment in which numeric libraries take so many threads."""
    return dict.fromkeys(_VARIABLES, str(threads))


def use_threads(threads: int) -> None:
    """Sets the threads of libraries loaded from now on, and of torch if it is loaded already."""
    os.environ.update(thread_settings(threads))
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
