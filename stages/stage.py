"""What a stage is: a record of plain functions that the pipeline calls.

Planning fixes the rows. Then each unit runs by itself, anywhere, any number of times: it takes its planned rows and
its input artifacts, and returns what it computed, row by row. It neither writes nor knows where it runs.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import numpy as np
import pyarrow as pa

from ..manifests.artifact.artifact import Artifact
from ..manifests.artifact.facts import ImagesFacts
from ..manifests.artifact.fields import Field
from ..manifests.artifact.layout import MAX_UNIT_BYTES, MAX_UNIT_ROWS, Unit
from ..manifests.artifact.ledger import Record
from ..manifests.artifact.plan import Plan
from ..manifests.artifact.underway import Underway
from ..manifests.classes import ClassTable
from ..manifests.errors import Reason
from ..manifests.files.digests import FileDigest
from ..manifests.files.sealed import Json
from .command import Command

Inputs = Mapping[str, Artifact]
Configs = Mapping[str, Any]  # by step of a recipe


@dataclass(frozen=True, slots=True)
class Known:
    """The facts of an artifact that is being extended."""

    facts: Mapping[str, Json] = field(default_factory=dict)

    @property
    def classes(self) -> ClassTable:
        return ImagesFacts.from_json(self.facts).classes


@dataclass(frozen=True, slots=True)
class RowList:
    """The planned rows of an artifact. `columns` start with id; the batches are read once."""

    columns: Mapping[str, str]
    batches: Iterator[pa.RecordBatch]
    facts: Mapping[str, Json] = field(default_factory=dict)
    key: Sequence[str] = ("id",)  # the columns that identify a row; more than id if an image has several rows


@dataclass(frozen=True, slots=True)
class Work:
    """One unit as a stage sees it: parallel lists, one entry per row."""

    unit: Unit
    ids: Sequence[str]
    listing: pa.Table  # the planned columns
    upstream: Mapping[str, pa.Table]  # role → the rows of these ids; for a gathered role, see `gather_rows`
    inputs: Inputs
    facts: Mapping[str, Json]  # from planning
    fields: Sequence[str]  # to compute: those of the unit's group
    blocked: Sequence[str]  # "" or why the row failed upstream; such a row needs no result
    careful: bool = False  # last try after a worker died: run whatever may crash the process in a child
    gathers: Mapping[str, str] = field(default_factory=dict)  # as in the stage

    def gather_rows(self, role: str) -> list[pa.Table]:
        """For an input with several rows per image: the planned input rows of each row of the unit."""
        counts = [len(positions) for positions in self.listing.column(self.gathers[role]).to_pylist()]
        starts = accumulate(counts, initial=0)
        return [self.upstream[role].slice(start, count) for start, count in zip(starts, counts, strict=False)]


@dataclass(frozen=True, slots=True)
class RowResult:
    """The result of one row. Its scalars are columns of rows.parquet; missing ones keep their planned value."""

    scalars: Mapping[str, Json] = field(default_factory=dict)
    note: str = ""
    reason: Reason | None = None  # None: ok


@dataclass(frozen=True, slots=True)
class UnitResult:
    rows: Sequence[RowResult]
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)  # field → one row each; failed rows are zeroed
    cells: Mapping[str, Sequence[bytes | None]] = field(default_factory=dict)  # table field → one value each
    frames: Mapping[str, pa.Table] = field(default_factory=dict)  # frame field → a table with one row each
    observed: Sequence[str] = ()  # for a stage that reads outside files: the digest of what it read, row by row


@dataclass(frozen=True, slots=True)
class Probe:
    """A short measurement: the seconds that some rows took, once everything was loaded."""

    rows: int
    seconds: float


def no_reads(config: Any, inputs: Inputs) -> Mapping[str, Sequence[str]]:
    return {}


def no_device(config: Any) -> str:
    return ""


def keep_config(config: Any, _: Mapping[str, Any]) -> Any:
    return config


def no_fields(config: Any) -> Sequence[str]:
    return ()


def no_wanted_fields(config: Any, extract: Mapping[str, Any]) -> Sequence[str]:
    return ()


def warn_of_nothing(config: Any, inputs: Inputs, artifact: Artifact) -> Sequence[str]:
    return ()


def notice_nothing(config: Any, inputs: Inputs) -> Sequence[str]:
    return ()


def refuse_nothing(configs: Configs, given: Inputs) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StageBase:
    """What the pipeline knows of any stage. Functions are module-level, so that a stage can be sent to a worker."""

    command: Command
    code_version: int  # increases with every change of its results; a test compares golden outputs
    # Settles the open options of a config; raises ConfigError for a config that cannot work. Called without inputs
    # while a recipe is checked, and again once they exist.
    resolve: Callable[[Any, Inputs], Any] = keep_config
    reads: Callable[[Any, Inputs], Mapping[str, Sequence[str]]] = no_reads  # role → fields, or files of a checkpoint
    # Token fields that a recipe has to extract for a config, given the values of its [extract].
    wants: Callable[[Any, Mapping[str, Any]], Sequence[str]] = no_wanted_fields
    skips: Callable[[Any], Sequence[str]] = no_fields  # roles that a config does not read
    # Raises ConfigError for a combination that cannot work: configs by step, and the artifacts that a recipe names for
    # this step, by role.
    refuse: Callable[[Configs, Inputs], None] = refuse_nothing
    libraries: Sequence[str] | Callable[[Any], Sequence[str]] = ()  # whose versions change numbers
    device: Callable[[Any], str] = no_device

    @property
    def name(self) -> str:
        return self.command.name

    @property
    def kind(self) -> str:
        """The kind of artifact that it writes."""
        return self.command.makes

    @property
    def config(self) -> type[Any]:
        return self.command.config


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage(StageBase):
    """A stage whose rows are computed in units."""

    plan: Callable[[Any, Inputs, Known], RowList]
    fields: Callable[[Any, Inputs], Sequence[Field]]
    columns: Callable[[Any], Mapping[str, str]]  # a row's scalars, including planned columns that readers need
    run_unit: Callable[[Work, Any, Any], UnitResult]  # work, config, the result of `prepare`
    prepare: Callable[[Any, Inputs], Any] | None = None  # once per process: loads the model
    probe: Callable[[Any, Inputs], Probe] | None = None  # computes a few rows, to estimate the time of all
    # For stages that read outside files: the digest of every row's sources now. Given a record and the time it was
    # written, rows whose sources have the recorded size and are no newer may keep their recorded digest.
    observe: Callable[[Work, Any, Record | None, float], Sequence[str]] | None = None
    # Facts that an artifact made by an older version lacks; a run adds them.
    add_facts: Callable[[Any, Mapping[str, Json]], Mapping[str, Json]] | None = None
    selects: Sequence[str] = ()  # config fields that choose which fields are made but do not change their content
    # A config, and the stored config of the artifact that it extends → a config that also makes the stored fields, so
    # that units which are made again are complete.
    with_held: Callable[[Any, Mapping[str, Json]], Any] = keep_config
    max_unit_rows: int | Callable[[Any], int] = MAX_UNIT_ROWS
    max_unit_bytes: int = MAX_UNIT_BYTES
    gathers: Mapping[str, str] = field(default_factory=dict)  # role → planned column of positions in its row list
    blank: Callable[[Sequence[str]], pa.Table] | None = None  # the frame of failed ids
    # Files that describe the finished artifact to readers outside this package.
    describe: Callable[[Plan, Mapping[str, Json], Mapping[str, FileDigest]], Mapping[str, bytes]] | None = None
    # Warnings about a finished run, from its config, its inputs and the artifact, which lacks only its warnings.
    warn: Callable[[Any, Inputs, Artifact], Sequence[str]] = warn_of_nothing
    # What a user should know of a config and its inputs; no reason to doubt the result, and so no warning.
    notice: Callable[[Any, Inputs], Sequence[str]] = notice_nothing


@dataclass(frozen=True, slots=True)
class Findings:
    """The result of a stage without units."""

    files: Mapping[str, bytes]
    facts: Mapping[str, Json] = field(default_factory=dict)
    warnings: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class WholeStage(StageBase):
    """A stage without units: it computes a few files in one go."""

    compute: Callable[[Any, Inputs, Underway], Findings]  # in several processes at once under torchrun
    takes_long: bool = False  # if its inputs have changed, a run is refused instead of overwriting the result


def rows_of_input(inputs: Inputs, role: str, facts: Mapping[str, Json] | None = None) -> RowList:
    """The most common row list: one row per row of an input, in its order, by default with the input's facts."""
    artifact = inputs[role]
    return RowList(
        {"id": "string"}, iter(artifact.row_batches(["id"])), artifact.plan.facts if facts is None else facts
    )
