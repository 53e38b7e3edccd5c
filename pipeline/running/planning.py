"""From a command to plan.json: which rows, which fields, which units; or why what lies there is something else.

A directory that holds another configuration is refused by the name of the field that differs. The same configuration
with more rows grows at the end; rows that are there keep their unit, their slot and their bytes.
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


@dataclass(frozen=True, slots=True)
class Request:
    """A command, with everything that decides bytes worked out."""

    stage: Stage
    config: Any
    inputs: Mapping[str, Artifact]
    fields: tuple[Field, ...]
    header: Mapping[str, Json]  # what the artifact's fingerprint covers, under the names that a refusal uses

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


def merge_existing_fields(asked: Request, held: Plan | None) -> Request:
    """A command that means all fields of an artifact; of one that is refused for another configuration, as it is."""
    if held is None or held.fingerprint != asked.fingerprint:
        return asked
    config = asked.stage.with_held(asked.config, held.config)
    return replace(asked, config=config, fields=tuple(asked.stage.fields(config, asked.inputs)))


def conflicting_fields(asked: Request, held: Plan) -> list[Field]:
    """The fields that a command asks for and an artifact holds with another content, such as of other blocks."""
    return [
        field
        for field in asked.fields
        if field.name in held.fields and held.field_fingerprints[field.name] != asked.field_fingerprint(field)
    ]


def header_of(stage: Stage | WholeStage, config: Any, inputs: Mapping[str, Artifact]) -> dict[str, Json]:
    """What decides the bytes of an artifact, under the names that a refusal uses."""
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


def update_plan(at: Place, asked: Request, existing: Plan | None, options: RunOptions) -> Plan:
    """Writes what is new of the plan, the listing and the arrays' metadata; changes nothing that is as it should be."""
    if existing is None:
        plan = _fresh(at, asked, options)
    else:
        _refuse_other(at, asked, existing, options)
        plan = _with_fields(asked, existing, options)
        inputs = inputs_of(at, asked.inputs, asked.header)
        by_role = attrgetter("role")
        if sorted(inputs, key=by_role) == sorted(plan.inputs, key=by_role):
            inputs = plan.inputs  # in the order in which they were written
        # A part takes the rows as they were planned; and inputs that have not changed give the same rows.
        if options.part is None and (asked.stage.observe or inputs != plan.inputs or not is_listed(at, plan)):
            rows = asked.stage.plan(asked.config, asked.inputs, Known(plan.facts))
            plan = with_rows(at, plan, rows, asked.stage.command.follows_source, options.update)
            plan = replace(plan, inputs=inputs)
    _refuse_full_disk(at, plan)
    if existing is None or plan.as_json() != existing.as_json():
        _unfinish(at)
        write_plan(at, plan)
    _write_metadata(at, plan)
    if options.part is None:
        remove_old_listings(at, plan)
    return plan


def _refuse_full_disk(at: Place, plan: Plan) -> None:
    """Refuses, before the first unit, arrays that the disk has no room for."""
    if not at.is_local:
        return
    wanted = 0
    for group in plan.groups:
        rows = len(missing_units(at, plan, group)) * group.unit_rows
        wanted += min(rows, plan.num_rows) * row_bytes([each for each in plan.fields_of(group) if each.kind == "array"])
    free = atomic.free_bytes(at)
    if wanted > free:
        raise EnvironmentFault(
            f"{at} would need {wanted / 1e9:.1f} GB more and its disk has {free / 1e9:.1f} GB free; free space, "
            "choose another --out, or ask for less (`maskmill plan` says which field takes what)"
        )


def row_bytes(fields: Sequence[Field]) -> int:
    return sum(field.bytes_per_row for field in fields)


def unit_rows_for(stage: Stage, config: Any, fields: Sequence[Field], options: RunOptions) -> int:
    most = stage.max_unit_rows if isinstance(stage.max_unit_rows, int) else stage.max_unit_rows(config)
    return options.unit_rows or default_unit_rows(row_bytes(fields), most, stage.max_unit_bytes)


def _fingerprint_of(artifact: Artifact, field: str) -> str:
    found = artifact.fingerprints.get(field)
    if found is None:
        held = sorted(artifact.fingerprints)
        raise ConfigError(
            f"{artifact.place} holds no {field!r}, only {held}; "
            f"add it with `maskmill {artifact.plan.stage}` and its options"
        )
    return found


def _fresh(at: Place, asked: Request, options: RunOptions) -> Plan:
    stage = asked.stage
    rows = stage.plan(asked.config, asked.inputs, Known())
    segment = write_segment(at, listing_name(0, 0), rows)
    unit_rows = unit_rows_for(stage, asked.config, asked.fields, options)
    if not segment.rows:
        raise InputError(f"{stage.name} has nothing to do: its input has no rows; check the path and the options")
    return Plan(
        stage=stage.name,
        code_version=stage.code_version,
        kind=stage.kind,
        config=config_json(asked.config),
        device=str(asked.header["device"]),
        libraries=asked.header["libraries"],
        fingerprint=asked.fingerprint,
        inputs=inputs_of(at, asked.inputs, asked.header),
        fields=_merge_fields({}, asked.fields),
        field_fingerprints={field.name: asked.field_fingerprint(field) for field in asked.fields},
        columns=stage.columns(asked.config),
        groups=(FieldGroup("", unit_rows, tuple(field.name for field in asked.fields)),),
        segments=(segment,),
        revision=0,
        facts=rows.facts,
        settings=settings_json(asked.config),
    )


def inputs_of(at: Place, inputs: Mapping[str, Artifact], header: Mapping[str, Json]) -> tuple[Input, ...]:
    return tuple(
        Input(role, relative_uri(at, artifact.place), artifact.digest, header["inputs"].get(role, {}))
        for role, artifact in inputs.items()
    )


def input_digest(artifact: Artifact, fields: Mapping[str, str]) -> str:
    """What is read of an artifact with rows, whatever fields were added to it or to what it was made from; else ""."""
    if not artifact.has_rows:
        return ""
    held = [artifact.plan.fields[name] for name in sorted(fields)]
    read = [column for each in held for column in (each.columns if each.kind == "columns" else [each.digest_column])]
    columns = list(dict.fromkeys(["id", "status", "reason", *read, *artifact.plan.columns]))
    told = {name: value for name, value in artifact.plan.facts.items() if name != "provenance"}
    rows = (list(row.values()) for batch in artifact.row_batches(columns) for row in batch.to_pylist())
    return unit_fingerprint({**fields, "": digest_of(told)}, rows)


def is_as_read(before: Input, now: Artifact) -> bool:
    """Whether an input is what it was to whoever read it."""
    if before.digest == now.digest:
        return True
    there = before.fields.items() <= now.fingerprints.items()
    return bool(before.content) and there and before.content == input_digest(now, before.fields)


def _refuse_other(at: Place, asked: Request, existing: Plan, options: RunOptions) -> None:
    refuse_other_header(at, existing, asked.header, asked.stage.selects)
    for field in conflicting_fields(asked, existing):
        raise StaleArtifact(
            f"{at} holds {field.name} with {_field_text(existing.fields[field.name])} and this run asks for "
            f"{_field_text(field)}; choose another --out for it"
        )
    first = existing.groups[0]
    if (
        options.unit_rows
        and options.unit_rows != first.unit_rows
        and {f.name for f in asked.fields} <= set(existing.fields)
    ):
        raise StaleArtifact(
            f"{at} was made with unit_rows = {first.unit_rows} and this run asks for {options.unit_rows}; "
            "leave --unit-rows out, or choose another --out"
        )


def refuse_other_header(at: Place, existing: Plan, header: Mapping[str, Json], selects: Sequence[str] = ()) -> None:
    held = {
        "stage": existing.stage,
        "code_version": existing.code_version,
        "config": {name: value for name, value in existing.config.items() if name not in selects},
        "device": existing.device,
        "libraries": dict(existing.libraries),
        "inputs": {each.role: dict(each.fields) for each in existing.inputs if _is_read(each, header)},
    }
    found = sorted(differences(held, dict(header)), key=lambda difference: difference[0] != "stage")
    for name, old, new in found:  # of another stage every setting differs, and only the stage tells why
        raise StaleArtifact(
            f"{at} was made with {name.removeprefix('config.')} = {_value_text(old)} "
            f"and this run asks for {_value_text(new)}; choose another --out, or delete the directory to make it anew"
        )


def _is_read(each: Input, header: Mapping[str, Json]) -> bool:
    """An input of which nothing is read decides no bytes."""
    return bool(each.fields) or each.role in header["inputs"]


def _field_text(field: Field) -> str:
    told = {"shape": list(field.shape), "dtype": field.dtype, **field.detail}
    return ", ".join(f"{name} = {_value_text(value)}" for name, value in told.items())


def _value_text(value: Json) -> str:
    told = ", ".join(value) if isinstance(value, Mapping) else str(value)
    text = "nothing" if value in (None, "", []) else told
    return text if len(text) <= 60 else text[:57] + "…"


def _with_fields(asked: Request, plan: Plan, options: RunOptions) -> Plan:
    """The plan with the fields that it lacks as a group of their own."""
    missing = [field for field in asked.fields if field.name not in plan.fields]
    if not missing:
        return plan
    unit_rows = unit_rows_for(asked.stage, asked.config, missing, options)
    group = FieldGroup(missing[0].name, unit_rows, tuple(field.name for field in missing))
    return replace(
        plan,
        config={**plan.config, **_selections(asked)},
        settings=settings_json(asked.config),
        fields=_merge_fields(plan.fields, missing),
        field_fingerprints={**plan.field_fingerprints, **{f.name: asked.field_fingerprint(f) for f in missing}},
        groups=(*plan.groups, group),
    )


def _merge_fields(held: Mapping[str, Field], new: Sequence[Field]) -> dict[str, Field]:
    """In the order in which plan.json is read again: rows.parquet has its columns in it, whichever run finishes."""
    return dict(sorted({**held, **{each.name: replace(each, basis=None, row_bytes=0) for each in new}}.items()))


def _selections(asked: Request) -> dict[str, Json]:
    """The config's choice of fields with those that were held, so that a retry of the artifact means all of them."""
    values = config_json(asked.config)
    return {name: values[name] for name in asked.stage.selects}


def _write_metadata(at: Place, plan: Plan) -> None:
    """zarr.json of every array, where it is not what it should be. A finished artifact's is kept byte for byte."""
    vouched = _summary_files(at)
    for group in plan.groups:
        layout = plan.layout(group)
        for field in plan.fields_of(group):
            if field.kind != "array":
                continue
            name = f"{field.name}.zarr/{store.METADATA}"
            wanted = store.metadata(field, group.unit_rows, layout.num_slots)
            is_whole = name in vouched and fault(at, name, vouched[name]) is None
            if is_whole or (at.exists(name) and at.read(name) == wanted):
                continue
            _unfinish(at)
            atomic.write(at, name, wanted)


def _summary_files(at: Place) -> Mapping[str, FileDigest]:
    try:
        summary = read_summary(at)
    except CorruptArtifact:
        summary = None
    return summary.files if summary else {}


def _unfinish(at: Place) -> None:
    """Whatever is about to change, no reader may take the artifact for finished meanwhile."""
    if at.exists(ARTIFACT):
        atomic.remove(at, ARTIFACT)
