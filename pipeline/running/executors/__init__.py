"""What runs the units: this process, or the workers of a Dask cluster. Both write the same bytes."""

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
    """The executor that the options name. Refuses options that cannot work before anything starts."""
    if not options.on_workers:
        return run_inline
    if options.part is not None:
        raise ConfigError("--part runs its units in this process; leave out --workers, --scheduler and --cluster")
    for one in (at, *inputs):
        if not one.is_shared:
            raise ConfigError(
                f"{one} is in the memory of this process and workers cannot read it; leave out --workers or move it"
            )
    from .clusters import refuse_early
    from .dask import run_on_dask  # dask takes half a second to import

    refuse_early(options)
    return lambda job, units, report: run_on_dask(job, units, report, options)
