"""One record per unit: the outcome of each row and the digests of the unit's files. It is written after the files.

A unit is done if its record parses, has this run's fingerprint, and its files match the record.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache

from ..errors import CorruptArtifact, Reason
from ..files import sealed
from ..files.digests import FileDigest
from ..files.place import Place
from ..files.sealed import Json

Columns = Mapping[str, list[Json]]


@dataclass(frozen=True, slots=True)
class Record:
    unit: int
    fingerprint: str
    rows: Columns  # id, status, reason, note, the digest of each field, the stage's scalars: one list each
    files: Mapping[str, FileDigest]
    software: Mapping[str, str]
    device: str  # processor model

    def as_json(self) -> dict[str, Json]:
        return {
            "unit": self.unit,
            "fingerprint": self.fingerprint,
            "rows": dict(self.rows),
            "files": {name: digest.as_json() for name, digest in self.files.items()},
            "software": dict(self.software),
            "device": self.device,
        }

    @property
    def is_given_up(self) -> bool:
        """Whether the unit failed as a whole, not single rows; the next run tries it again."""
        pairs = zip(self.rows["status"], self.rows["reason"], strict=True)
        return any(status == "failed" and reason in (Reason.ERROR, Reason.WORKER_LOST) for status, reason in pairs)

    @property
    def num_failed(self) -> int:
        return sum(status == "failed" for status in self.rows["status"])


def record_name(ledger: str, unit: int) -> str:
    return f"{ledger}/{unit // 100:03d}/{unit:05d}.json"


def write_record(place: Place, ledger: str, record: Record) -> None:
    sealed.write(place, record_name(ledger, record.unit), record.as_json())


def read_record(place: Place, ledger: str, unit: int) -> Record | None:
    """A unit's record, or None. Raises CorruptArtifact if it does not parse."""
    name = record_name(ledger, unit)
    try:
        value = sealed.read(place, name)
    except FileNotFoundError:
        return None
    try:
        record = Record(
            unit=int(value["unit"]),
            fingerprint=str(value["fingerprint"]),
            rows=value["rows"],
            files={name: FileDigest.from_json(digest) for name, digest in value["files"].items()},
            software=value["software"],
            device=str(value["device"]),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise CorruptArtifact(f"{place.path(name)} is not a ledger record ({error!r}); run its stage again") from error
    if record.unit != unit:
        raise CorruptArtifact(
            f"{place.path(name)} is the record of unit {record.unit}, expected unit {unit}; run its stage again"
        )
    return record


def records(place: Place, ledger: str, num_units: int) -> Iterator[Record | None]:
    """Every unit's record in order, one in memory at a time."""
    return (read_record(place, ledger, unit) for unit in range(num_units))


def ledger_digest(place: Place, ledger: str, num_units: int) -> str:
    """The digest over the bytes of all records, which artifact.json stores."""
    running = hashlib.sha256()
    for unit in range(num_units):
        running.update(hashlib.sha256(place.read(record_name(ledger, unit))).digest())
    return running.hexdigest()


@cache
def processor_model() -> str:
    """The processor model of this machine: equal bytes are promised on one model only."""
    import platform

    try:
        with open("/proc/cpuinfo", encoding="utf-8") as stream:
            names = [line.partition(":")[2].strip() for line in stream if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()
