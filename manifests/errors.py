"""All errors a user may see, each with a fixed exit code.

A message is one sentence: `X is not a Y: found A, expected B; do C`.
Errors take one positional argument, so that they can be unpickled in another process.
"""

from enum import StrEnum


class MaskmillError(Exception):
    """Base of every error that the user can act on; any other exception is a bug (exit 1)."""

    exit_code = 1


class ConfigError(MaskmillError, ValueError):
    """An option or a combination of options that cannot work."""

    exit_code = 2


class InputError(MaskmillError, ValueError):
    """A dataset, list or file from the user that cannot be used."""

    exit_code = 2


class MissingArtifact(MaskmillError, FileNotFoundError):
    """There is no artifact at the given path."""

    exit_code = 2


class UnfinishedArtifact(MaskmillError, RuntimeError):
    """An artifact without artifact.json: its run was stopped, failed or is still running."""

    exit_code = 2


class StaleArtifact(MaskmillError, RuntimeError):
    """The artifact was made with another configuration, code version or list of images."""

    exit_code = 3


class CorruptArtifact(MaskmillError, RuntimeError):
    """Stored bytes differ from the bytes that were written."""

    exit_code = 4


class TooManyFailed(MaskmillError, RuntimeError):
    """More rows failed than --max-bad allows."""

    exit_code = 5


class EnvironmentFault(MaskmillError, OSError):
    """A fault of the machine, not the data: full disk, permissions, network, lost workers."""

    exit_code = 7


class Diverged(MaskmillError, ArithmeticError):
    """The training loss is not finite."""

    exit_code = 8


class ArtifactBusy(MaskmillError, RuntimeError):
    """Another run holds the artifact."""

    exit_code = 75


class Terminated(BaseException):
    """SIGTERM, raised in the main thread so that files and locks are cleaned up."""


class Reason(StrEnum):
    """Why one row failed. Other rows are not affected."""

    MISSING = "missing"  # listed, but the file does not exist
    UNREADABLE = "unreadable"  # the file exists but cannot be read
    OUTSIDE_ROOT = "outside_root"  # a link that points outside the dataset
    UNDECODABLE = "undecodable"  # not a picture
    TRUNCATED = "truncated"  # the picture file is cut off
    DTYPE = "dtype"  # the range of pixel values is unknown (float)
    TOO_LARGE = "too_large"  # more pixels than the limit
    TOO_SMALL = "too_small"  # a side below the limit
    ASPECT = "aspect"  # aspect ratio above the limit
    CHANGED = "changed"  # the bytes differ from those that were indexed
    MASK_MISSING = "mask_missing"
    MASK_UNDECODABLE = "mask_undecodable"
    MASK_SIZE = "mask_size"  # neither the picture's size nor its size before EXIF rotation
    MASK_VALUES = "mask_values"  # values outside the class table
    NOT_FINITE = "not_finite"  # NaN or infinity in a result
    CRASHED = "crashed"  # the decoder crashed or timed out
    WORKER_LOST = "worker_lost"  # the process died on this unit at every try
    ERROR = "error"  # the unit raised at every try; see the log


class RowFailed(Exception):
    """One row cannot be computed. It is caught at the row, and the reason is recorded with it."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail
