"""Cores, and how many of them numeric libraries may use."""

import os
import sys

_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def num_cores() -> int:
    """The cores that this process may use; a container or batch job may have fewer than the machine."""
    from dask.system import cpu_count  # knows affinity and the quotas of cgroups

    return cpu_count()


def thread_settings(threads: int) -> dict[str, str]:
    """The environment variables that limit numeric libraries to this number of threads."""
    return dict.fromkeys(_VARIABLES, str(threads))


def use_threads(threads: int) -> None:
    """Limits the threads of libraries that are loaded later, and of torch if it is loaded already."""
    os.environ.update(thread_settings(threads))
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
