"""Metric lines as curves in TensorBoard, for whoever asks for them. No artifact holds or knows of them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ...manifests.artifact.underway import Show, no_progress
from ...manifests.errors import ConfigError, EnvironmentFault

_FLUSH_S = 30  # a killed run loses what came after


@contextmanager
def open_curves(directory: str) -> Iterator[Show]:
    """What shows the values of a step; without a directory, nothing."""
    if not directory:
        yield no_progress
        return
    drawn = _Curves(directory)
    try:
        yield drawn.show
    finally:
        drawn.close()


class _Curves:
    """Its file begins with the first step that is shown, so that a run with nothing to do leaves none."""

    def __init__(self, directory: str) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ConfigError(
                "--tensorboard needs the package tensorboard, which is not installed; install it with "
                "`pip install 'maskmill[tensorboard]'`, or leave the option out"
            ) from error
        self._open, self._directory = SummaryWriter, directory
        self._writer: Any = None

    def show(self, step: int, values: Mapping[str, object]) -> None:
        with self._catch_write_errors():
            if self._writer is None:
                # From this step on an earlier run may have drawn what was lost when it was killed: not shown twice.
                self._writer = self._open(self._directory, purge_step=step, flush_secs=_FLUSH_S)
            for name, value in values.items():
                if isinstance(value, int | float):
                    self._writer.add_scalar(name.replace(" ", "/"), value, step)  # a tag takes no space

    def close(self) -> None:
        if self._writer is not None:
            with self._catch_write_errors():
                self._writer.close()

    @contextmanager
    def _catch_write_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise EnvironmentFault(f"cannot write curves to {self._directory}: {error.strerror or error}") from error
