"""A stage without units, computed by all processes that torchrun started.

The first runs it as a single process would. The others compute with it and read the same inputs. They never read or
write `--out`, so it need not be visible on other machines.
"""

from collections.abc import Mapping
from typing import Any

from ...manifests.artifact.artifact import open_artifact
from ...manifests.artifact.underway import Show, SilentUnderway, no_progress
from ...manifests.files.torchrun import number
from ...stages.stage import WholeStage
from .job import make_reproducible
from .run import Outcome
from .whole import run_whole


def run_together(
    stage: WholeStage,
    config: Any,
    inputs: Mapping[str, str],
    out: str,
    break_lock: bool = False,
    show: Show = no_progress,
) -> Outcome | None:
    """The outcome of `run_whole` in the first process, None in the others."""
    if number() == 0:
        return run_whole(stage, config, inputs, out, break_lock, show)
    make_reproducible(stage, config)
    stage.compute(
        config,
        {role: open_artifact(uri, stage.command.role(role).kind) for role, uri in inputs.items()},
        SilentUnderway(),
    )
    return None
