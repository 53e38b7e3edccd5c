"""From a command to plan.json: its rows, fields and units; or why the existing artifact does not fit the command.

A directory with another configuration is refused, and the error names the field that differs. With the same
configuration and more rows, new rows are appended; existing rows keep their unit, their slot and their bytes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any

from ...manifests.artifact import store
from ...manifests.artifact.artifact import ARTIFACT, Artifact, read_summary
from ...manifests.artifact.config import config_json, settings_json
from ...manifests.artifact.fields import Field
from ...manifests.artifact.fingerprint import differences, fingerprint, unit_fingerprint
from ...manifests.artifact.layout import default_unit_rows
from ...manifests.artifact.plan import FieldGroup, Input, Plan, listing_name, missing_units, relative_uri, write_plan
from ...manifests.errors import ConfigError, CorruptArtifact, EnvironmentFault, InputError, StaleArtifact
from ...manifests.files import atomic
from ...manifests.files.digests import FileDigest, fault
from ...manifests.files.place import Place
from ...manifests.files.sealed import Json, digest_of
from ...stages.stage import Known, Stage, WholeStage
from .job import libraries_of, version_of
from .options import RunOptions
from .row_lists import is_listed, remove_old_listings, with_rows, write_segment

# Facts that follow from what fingerprints cover already, and may be added to an artifact later.
NEVER_READ = ("provenance", "family", "key_bias")


@dataclass(frozen=True, slots=True)
class Request:
    stage: Stage
    config: Any
    inputs: Mapping[str, Artifact]
    fields: tuple[Field, ...]
    header: Mapping[str, Json]  # what the artifact's fingerprint covers, under the names that errors use

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.header)

    def field_fingerprint(self, field: Field) -> str:
        basis = (
            {"of": self.fingerprint} if field.basis is None else {"stage": self.stage.name, "basis": dict(field.basis)}
        )
        return fingerprint({**basis, "field": field.name, **field.as_json()})


def ask(stage: Stage, config: Any, inputs: Mapping[str, Artifact]) -> Request:
    return Request(stage, config, inputs, tuple(stage.fields(config, inputs)), header_of(stage, config, inputs))


def merge_existing_fields(request: Request, existing: Plan | None) -> Request:
    """The request with the fields that the artifact already has. Unchanged if the artifact has another configuration,
    which `update_plan` refuses."""
    if existing is None or existing.fingerprint != request.fingerprint:
        return request
    config = request.stage.with_held(request.config, existing.config)
    return replace(request, config=config, fields=tuple(request.stage.fields(config, request.inputs)))


def conflicting_fields(request: Request, existing: Plan) -> list[Field]:
    """The requested fields that the artifact has with another content, such as from other blocks."""
    return [
        field
        for field in request.fields
        if field.name in existing.fields and existing.field_fingerprints[field.name] != request.field_fingerprint(field)
    ]


def header_of(stage: Stage | WholeStage, config: Any, inputs: Mapping[str, Artifact]) -> dict[str, Json]:
    """What decides the bytes of an artifact, under the names that errors use."""
    values = config_json(config)
    reads = stage.reads(config, inputs)
    selects = stage.selects if isinstance(stage, Stage) else ()
    return {
        "stage": stage.name,
        "code_version": stage.code_version,
        "config": {name: value for name, value in values.items() if name not in selects},
        "device": stage.device(config),
        "libraries": {name: version_of(name) for name in libraries_of(stage, config)},
        "inputs": {
            role: {name: _fingerprint_of(inputs[role], name) for name in sorted(names)} for role, names in reads.items()
        },
    }


def update_plan(at: Place, request: Request, existing: Plan | None, options: RunOptions) -> Plan:
    """Writes the parts of the plan, the listing and the arrays' metadata that are new or wrong."""
    if existing is None:
        plan = _new_plan(at, request, options)
    else:
        _refuse_other(at, request, existing, options)
        plan = _with_fields(request, existing, options)
        inputs = inputs_of(at, request.inputs, request.header)
        by_role = attrgetter("role")
        if sorted(inputs, key=by_role) == sorted(plan.inputs, key=by_role):
            inputs = plan.inputs  # in the order in which they were written
        # A part keeps the planned rows, and unchanged inputs give the same rows.
        if options.part is None and (request.stage.observe or inputs != plan.inputs or not is_listed(at, plan)):
            rows = request.stage.plan(request.config, request.inputs, Known(plan.facts))
            plan = with_rows(at, plan, rows, request.stage.command.follows_source, options.update)
            plan = replace(plan, inputs=inputs)
        if options.part is None and request.stage.add_facts:
            plan = replace(plan, facts={**plan.facts, **request.stage.add_facts(request.config, plan.facts)})
    _refuse_full_disk(at, plan)
    if existing is None or plan.as_json() != existing.as_json():
        _unfinish(at)
        write_plan(at, plan)
    _write_metadata(at, plan)
    if options.part is None:
        remove_old_listings(at, plan)
    return plan


def _refuse_full_disk(at: Place, plan: Plan) -> None:
    if not at.is_local:
        return
    needed = 0
    for group in plan.groups:
        rows = len(missing_units(at, plan, group)) * group.unit_rows
        arrays = [field for field in plan.fields_of(group) if field.kind == "array"]
        needed += min(rows, plan.num_rows) * row_bytes(arrays)
    free = atomic.free_bytes(at)
    if needed > free:
        raise EnvironmentFault(
            f"{at} would need {needed / 1e9:.1f} GB more and its disk has {free / 1e9:.1f} GB free; free space, "
            "choose another --out, or store fewer fields (`maskmill plan` shows the size of each)"
        )


def row_bytes(fields: Sequence[Field]) -> int:
    return sum(field.bytes_per_row for field in fields)


def unit_rows_for(stage: Stage, config: Any, fields: Sequence[Field], options: RunOptions) -> int:
    most = stage.max_unit_rows if isinstance(stage.max_unit_rows, int) else stage.max_unit_rows(config)
    return options.unit_rows or default_unit_rows(row_bytes(fields), most, stage.max_unit_bytes)


def _fingerprint_of(artifact: Artifact, field: str) -> str:
    digest = artifact.fingerprints.get(field)
    if digest is None:
        raise ConfigError(
            f"{artifact.place} has no field {field!r}, only {sorted(artifact.fingerprints)}; "
            f"add it with `maskmill {artifact.plan.stage}` and its options"
        )
    return digest


def _new_plan(at: Place, request: Request, options: RunOptions) -> Plan:
    stage = request.stage
    rows = stage.plan(request.config, request.inputs, Known())
    segment = write_segment(at, listing_name(0, 0), rows)
    unit_rows = unit_rows_for(stage, request.config, request.fields, options)
    if not segment.rows:
        raise InputError(f"{stage.name} has no rows to work on: its input is empty; check the path and the options")
    return Plan(
        stage=stage.name,
        code_version=stage.code_version,
        kind=stage.kind,
        config=config_json(request.config),
        device=str(request.header["device"]),
        libraries=request.header["libraries"],
        fingerprint=request.fingerprint,
        inputs=inputs_of(at, request.inputs, request.header),
        fields=_merge_fields({}, request.fields),
        field_fingerprints={field.name: request.field_fingerprint(field) for field in request.fields},
        columns=stage.columns(request.config),
        groups=(FieldGroup("", unit_rows, tuple(field.name for field in request.fields)),),
        segments=(segment,),
        revision=0,
        facts=rows.facts,
        settings=settings_json(request.config),
    )


def inputs_of(at: Place, inputs: Mapping[str, Artifact], header: Mapping[str, Json]) -> tuple[Input, ...]:
    return tuple(
        Input(role, relative_uri(at, artifact.place), artifact.digest, header["inputs"].get(role, {}))
        for role, artifact in inputs.items()
    )


def input_digest(artifact: Artifact, fields: Mapping[str, str]) -> str:
    """Digest of the rows and fields that are read; other fields of the artifact do not change it. "" without rows."""
    if not artifact.has_rows:
        return ""
    read_fields = [artifact.plan.fields[name] for name in sorted(fields)]
    read = [column for one in read_fields for column in (one.columns if one.kind == "columns" else [one.digest_column])]
    columns = list(dict.fromkeys(["id", "status", "reason", *read, *artifact.plan.columns]))
    facts = {name: value for name, value in artifact.plan.facts.items() if name not in NEVER_READ}
    rows = (list(row.values()) for batch in artifact.row_batches(columns) for row in batch.to_pylist())
    return unit_fingerprint({**fields, "": digest_of(facts)}, rows)


def is_as_read(before: Input, now: Artifact) -> bool:
    """Whether an input still has the content that was read."""
    if before.digest == now.digest:
        return True
    has_fields = before.fields.items() <= now.fingerprints.items()
    return bool(before.content) and has_fields and before.content == input_digest(now, before.fields)


def _refuse_other(at: Place, request: Request, existing: Plan, options: RunOptions) -> None:
    refuse_other_header(at, existing, request.header, request.stage.selects)
    for field in conflicting_fields(request, existing):
        raise StaleArtifact(
            f"{at} has {field.name} with {_field_text(existing.fields[field.name])} and this run asks for "
            f"{_field_text(field)}; choose another --out"
        )
    first = existing.groups[0]
    if (
        options.unit_rows
        and options.unit_rows != first.unit_rows
        and {f.name for f in request.fields} <= set(existing.fields)
    ):
        raise StaleArtifact(
            f"{at} was made with unit_rows = {first.unit_rows} and this run asks for {options.unit_rows}; "
            "leave --unit-rows out, or choose another --out"
        )


def refuse_other_header(at: Place, existing: Plan, header: Mapping[str, Json], selects: Sequence[str] = ()) -> None:
    planned = {
        "stage": existing.stage,
        "code_version": existing.code_version,
        "config": {name: value for name, value in existing.config.items() if name not in selects},
        "device": existing.device,
        "libraries": dict(existing.libraries),
        # An input of which no field is read decides no bytes.
        "inputs": {
            read.role: dict(read.fields) for read in existing.inputs if read.fields or read.role in header["inputs"]
        },
    }
    changes = sorted(differences(planned, dict(header)), key=lambda change: change[0] != "stage")
    for name, old, new in changes:  # with another stage every setting differs, so the stage comes first
        raise StaleArtifact(
            f"{at} was made with {name.removeprefix('config.')} = {_value_text(old)} "
            f"and this run asks for {_value_text(new)}; choose another --out, or delete the directory to make it again"
        )


def _field_text(field: Field) -> str:
    facts = {"shape": list(field.shape), "dtype": field.dtype, **field.detail}
    return ", ".join(f"{name} = {_value_text(value)}" for name, value in facts.items())


def _value_text(value: Json) -> str:
    joined = ", ".join(value) if isinstance(value, Mapping) else str(value)
    text = "nothing" if value in (None, "", []) else joined
    return text if len(text) <= 60 else text[:57] + "…"


def _with_fields(request: Request, plan: Plan, options: RunOptions) -> Plan:
    missing = [field for field in request.fields if field.name not in plan.fields]
    if not missing:
        return plan
    unit_rows = unit_rows_for(request.stage, request.config, missing, options)
    group = FieldGroup(missing[0].name, unit_rows, tuple(field.name for field in missing))
    values = config_json(request.config)
    return replace(
        plan,
        # With the fields that existed before, so that a retry of the artifact covers all of them.
        config={**plan.config, **{name: values[name] for name in request.stage.selects}},
        settings=settings_json(request.config),
        fields=_merge_fields(plan.fields, missing),
        field_fingerprints={**plan.field_fingerprints, **{f.name: request.field_fingerprint(f) for f in missing}},
        groups=(*plan.groups, group),
    )


def _merge_fields(existing: Mapping[str, Field], new: Sequence[Field]) -> dict[str, Field]:
    """Sorted as in plan.json, which orders the columns of rows.parquet whichever run finishes."""
    return dict(sorted({**existing, **{field.name: replace(field, basis=None, row_bytes=0) for field in new}}.items()))


def _write_metadata(at: Place, plan: Plan) -> None:
    """Writes each array's zarr.json unless it is right. A finished artifact's is kept byte for byte."""
    vouched = _summary_files(at)
    for group in plan.groups:
        layout = plan.layout(group)
        for field in plan.fields_of(group):
            if field.kind != "array":
                continue
            name = f"{field.name}.zarr/{store.METADATA}"
            expected = store.metadata(field, group.unit_rows, layout.num_slots)
            is_whole = name in vouched and fault(at, name, vouched[name]) is None
            if is_whole or (at.exists(name) and at.read(name) == expected):
                continue
            _unfinish(at)
            atomic.write(at, name, expected)


def _summary_files(at: Place) -> Mapping[str, FileDigest]:
    try:
        summary = read_summary(at)
    except CorruptArtifact:
        summary = None
    return summary.files if summary else {}


def _unfinish(at: Place) -> None:
    """Before a change: no reader may take the artifact for finished while it is made."""
    if at.exists(ARTIFACT):
        atomic.remove(at, ARTIFACT)
