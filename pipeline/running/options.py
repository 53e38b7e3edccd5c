"""How a run works. Only `unit_rows` changes bytes of the artifact."""

from dataclasses import dataclass
from typing import Literal

from ...manifests.artifact.config import check_config, checks_itself, field_for_resolve, option

MAX_BAD = 0.05


@checks_itself
@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    workers: int = option(0, "Local worker processes; 0 runs in this process.", metavar="N", at_least=0)
    scheduler: str = option("", "Run on an existing Dask cluster.", metavar="ADDRESS")
    cluster: str = option("", "Run on batch jobs started through dask-jobqueue (TOML file).", metavar="FILE")
    insecure: bool = option(False, "Allow a scheduler that is neither local nor tls://.")
    part: tuple[int, int] | None = option(
        None, "Run only share I of N of the units, without a scheduler; then `maskmill finish DIR`.", metavar="I/N"
    )
    trust: bool = option(False, "Skip hashing: trust files whose size and date match their record.")
    update: bool = option(False, "Append new pictures and classes; mark vanished pictures as missing.")
    retry_failed: bool = field_for_resolve(False)
    max_bad: float = option(MAX_BAD, "Share of rows that may fail.", metavar="SHARE", at_least=0, at_most=1)
    unit_rows: int = option(0, "Rows per unit; 0 chooses (at most 256 MB).", metavar="N", at_least=0)
    break_lock: bool = option(False, "Take over the lock of a run that died (object stores only).")
    log: Literal["progress", "json", "quiet"] = option(
        "quiet", "Progress on a terminal, a line of JSON per unit, or nothing."
    )

    def __post_init__(self) -> None:
        check_config(self)

    @property
    def on_workers(self) -> bool:
        return bool(self.workers or self.scheduler or self.cluster)
