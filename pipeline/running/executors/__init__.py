"""Who runs the units: this process, or workers of a Dask cluster. The same units, and the same bytes."""

from collections.abc import Callable, Iterator

from ....manifests.artifact.layout import Unit
from ....manifests.errors import ConfigError
from ....manifests.files.place import Place
from ..job import Job
from ..options import RunOptions
from ..units import UnitReport
from .inline import run_inline

Report = Callable[[UnitReport], None]
Executor = Callable[[Job, Iterator[Unit], Report], None]


def executor_for(options: RunOptions, at: Place, *inputs: Place) -> Executor:
    """The executor that the options name; refuses what cannot work before anything is started."""
    if not options.on_workers:
        return run_inline
    if options.part is not None:
        raise ConfigError("--part runs its units in this process; leave out --workers, --scheduler and --cluster")
    for each in (at, *inputs):
        if not each.is_shared:
            raise ConfigError(
                f"{each} lives in this process's memory and workers cannot see it; leave out --workers or move it"
            )
    from .clusters import refuse_early
    from .dask import run_on_dask  # dask takes half a second to import

    refuse_early(options)
    return lambda job, units, report: run_on_dask(job, units, report, options)
