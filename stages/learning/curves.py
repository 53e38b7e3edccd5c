"""Optional TensorBoard curves of the metric lines. They are not part of any artifact."""

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any

from ...manifests.artifact.underway import Show, no_progress
from ...manifests.errors import ConfigError, EnvironmentFault

_FLUSH_S = 30  # a killed run loses at most this much


@contextmanager
def open_curves(directory: str) -> Iterator[Show]:
    """Gives a function that draws the values of a step; it does nothing without a directory."""
    if not directory:
        yield no_progress
        return
    with closing(_Curves(directory)) as curves:
        yield curves.show


class _Curves:
    """Creates its file at the first step shown, so that a run with nothing to do leaves none."""

    def __init__(self, directory: str) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ConfigError(
                "--tensorboard needs the package tensorboard, which is not installed; run "
                "`pip install 'maskmill[tensorboard]'`, or omit the option"
            ) from error
        self._open, self._directory = SummaryWriter, directory
        self._writer: Any = None

    def show(self, step: int, values: Mapping[str, object]) -> None:
        with self._catch_write_errors():
            if self._writer is None:
                # Purges steps that a killed run drew after its last checkpoint.
                self._writer = self._open(self._directory, purge_step=step, flush_secs=_FLUSH_S)
            for name, value in values.items():
                if isinstance(value, int | float):
                    self._writer.add_scalar(name.replace(" ", "/"), value, step)  # tags cannot contain spaces

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
