"""Checks every file of an artifact against the digest that was written with it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from ...manifests.artifact import ledger, store
from ...manifests.artifact.artifact import ARTIFACT, Summary, read_summary
from ...manifests.artifact.fingerprint import ids_digest
from ...manifests.artifact.plan import PLAN, FieldGroup, Plan, read_plan, read_unit_rows
from ...manifests.errors import CorruptArtifact
from ...manifests.files.digests import FileDigest, fault
from ...manifests.files.lock import LOCK
from ...manifests.files.place import Place, place


@dataclass(frozen=True, slots=True)
class Verdict:
    at: Place
    finished: bool
    files: int  # read and right
    faults: tuple[str, ...]  # one sentence each
    strangers: tuple[str, ...]  # files that belong to nothing; no reader looks at them

    @property
    def exit_code(self) -> Literal[0, 2, 4]:
        return 4 if self.faults else 0 if self.finished else 2


def verify(uri: str) -> Verdict:
    at = place(uri)
    faults: list[str] = []
    try:
        plan = read_plan(at)
        summary = read_summary(at)
    except CorruptArtifact as error:
        return Verdict(at, True, 0, (str(error),), ())
    expected = {PLAN, LOCK, *(segment.listing for segment in plan.segments)}
    if summary is not None:
        expected.add(ARTIFACT)
        faults += _faults_of_summary(at, plan, summary)
        expected |= set(summary.files)
    for group in plan.groups:
        for names, wrong in _check_units(at, plan, group, summary is not None):
            expected |= names
            faults += wrong
        expected |= {f"{field.name}.zarr/{store.METADATA}" for field in plan.fields_of(group) if field.kind == "array"}
    strangers = [name for name in at.names() if name not in expected and not name.startswith("log/")]
    return Verdict(at, summary is not None, len(expected) - 1 - len(faults), tuple(faults), tuple(strangers))


def _faults_of_summary(at: Place, plan: Plan, summary: Summary) -> Iterator[str]:
    if FileDigest.of(at.read(PLAN)).sha256 != summary.plan_sha256:
        yield f"{at.path(PLAN)} is not the plan whose digest {ARTIFACT} holds"
    for name, digest in summary.files.items():
        if wrong := fault(at, name, digest):
            yield wrong
    for group in plan.groups:
        layout = plan.layout(group)
        for field in plan.fields_of(group):
            name = f"{field.name}.zarr/{store.METADATA}"
            if field.kind == "array" and at.exists(name):
                wrong = store.metadata_fault(at.read(name), field, group.unit_rows, layout.num_slots)
                if wrong:
                    yield f"{at.path(name)} does not fit the plan: {wrong}"
        try:
            if ledger.ledger_digest(at, group.ledger, layout.num_units) != summary.ledgers[group.ledger]:
                yield f"{at.path(group.ledger)} has other records than those whose digest {ARTIFACT} holds"
        except FileNotFoundError:
            continue  # reported with its unit


def _check_units(at: Place, plan: Plan, group: FieldGroup, finished: bool) -> Iterator[tuple[set[str], list[str]]]:
    """For each unit its files, and what is wrong with them."""
    for unit in plan.layout(group).units():
        name = ledger.record_name(group.ledger, unit.index)
        names = {name, *(field.shard(unit.index) for field in plan.fields_of(group))}
        try:
            record = ledger.read_record(at, group.ledger, unit.index)
        except CorruptArtifact as error:
            yield names, [str(error)]
            continue
        if record is None:
            yield names, [f"{at.path(name)} is missing"] if finished else []
            continue
        wrong = [text for file, digest in record.files.items() if (text := fault(at, file, digest))]
        try:
            if ids_digest(read_unit_rows(at, plan, unit).column("id").to_pylist()) != ids_digest(record.rows["id"]):
                wrong.append(f"{at.path(name)} has other rows than were planned")
        except CorruptArtifact as error:
            wrong.append(str(error)) if not finished else None  # a finished artifact's listings are reported once
        yield names, wrong
