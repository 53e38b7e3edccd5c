"""A stage without units, computed by as many processes as torchrun started.

The first runs it as if it were alone. The others compute with it: they read the same inputs, and neither look at what
is in `--out` nor write there, so on other machines it need not be.
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
    """What `run_whole` gives, to the first process alone."""
    if number() == 0:
        return run_whole(stage, config, inputs, out, break_lock, show)
    make_reproducible(stage, config)
    stage.compute(
        config,
        {role: open_artifact(uri, stage.command.role(role).kind) for role, uri in inputs.items()},
        SilentUnderway(),
    )
    return None
