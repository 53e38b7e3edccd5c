"""Everything that may go wrong for a user, each with the exit code a script can rely on.

A message is one sentence: what, where, expected and found, what to do.
Errors take one positional argument, so that they unpickle on the other side of a process boundary.
"""

from enum import StrEnum


class MaskmillError(Exception):
    """The root of every error that is the user's to act on; anything else that escapes is a bug (exit 1)."""

    exit_code = 1


class ConfigError(MaskmillError, ValueError):
    """An option or a combination of options that cannot work."""

    exit_code = 2


class InputError(MaskmillError, ValueError):
    """A dataset, list or file given by the user that is not what it should be."""

    exit_code = 2


class MissingArtifact(MaskmillError, FileNotFoundError):
    """No artifact where one was named."""

    exit_code = 2


class UnfinishedArtifact(MaskmillError, RuntimeError):
    """An artifact without artifact.json: its run was stopped, failed, or still goes on."""

    exit_code = 2


class StaleArtifact(MaskmillError, RuntimeError):
    """What lies in the directory was made with another configuration, code version or list of images."""

    exit_code = 3


class CorruptArtifact(MaskmillError, RuntimeError):
    """Bytes that are not the bytes that were written."""

    exit_code = 4


class TooManyFailed(MaskmillError, RuntimeError):
    """More rows failed than --max-bad allows."""

    exit_code = 5


class EnvironmentFault(MaskmillError, OSError):
    """The machine's fault, not the data's: disk full, permission, network, workers lost."""

    exit_code = 7


class Diverged(MaskmillError, ArithmeticError):
    """A training's loss is no number any more."""

    exit_code = 8


class ArtifactBusy(MaskmillError, RuntimeError):
    """Another run holds the artifact."""

    exit_code = 75


class Terminated(BaseException):
    """SIGTERM, raised in the main thread so that files and locks are left in order."""


class Reason(StrEnum):
    """Why one row failed. The neighbours of a failed row are never touched by it."""

    MISSING = "missing"  # listed, but there is no such file
    UNREADABLE = "unreadable"  # the file is there and cannot be read
    OUTSIDE_ROOT = "outside_root"  # a link that leads out of the dataset
    UNDECODABLE = "undecodable"  # not a picture
    TRUNCATED = "truncated"  # a picture that ends too early
    DTYPE = "dtype"  # pixel values whose range is not known (float)
    TOO_LARGE = "too_large"  # more pixels than the limit
    TOO_SMALL = "too_small"  # a side below the limit
    ASPECT = "aspect"  # longer than the limit for its width
    CHANGED = "changed"  # not the bytes that were indexed
    MASK_MISSING = "mask_missing"
    MASK_UNDECODABLE = "mask_undecodable"
    MASK_SIZE = "mask_size"  # neither the picture's size nor its size before EXIF rotation
    MASK_VALUES = "mask_values"  # values outside the class table
    NOT_FINITE = "not_finite"  # NaN or infinity in what was computed
    CRASHED = "crashed"  # its decoder ended or outlasted the process it ran in
    WORKER_LOST = "worker_lost"  # the process died on this unit, at every try
    ERROR = "error"  # the unit raised at every try; the log holds the traceback


class RowFailed(Exception):
    """One row cannot be done, for a reason that is recorded with it; caught at the row, never above the unit."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail
