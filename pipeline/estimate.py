"""What a run would make, before it makes anything: rows, units, files, bytes, and memory per worker."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..manifests.artifact import open_artifact
from ..manifests.layout import Layout
from ..stages.stage import Known, Stage
from .job import RunOptions
from .planning import ask, row_bytes, unit_rows_for


@dataclass(frozen=True, slots=True)
class Estimate:
    stage: str
    kind: str
    fingerprint: str
    rows: int
    unit_rows: int
    units: int
    files: int
    bytes_per_field: Mapping[str, int]
    total_bytes: int
    memory_per_worker_bytes: int  # a unit's arrays, computed and encoded; what a stage's model takes comes on top


def estimate(stage: Stage, config: Any, inputs: Mapping[str, str], options: RunOptions) -> Estimate:
    """Lists the rows as a run would, and multiplies. Writes nothing."""
    asked = ask(stage, config, {role: open_artifact(uri, stage.roles[role]) for role, uri in inputs.items()})
    rows = sum(batch.num_rows for batch in stage.plan(config, asked.inputs, Known()).batches)
    stored = [field for field in asked.fields if field.kind != "columns"]
    unit_rows = unit_rows_for(stage, stored, options)
    units = Layout(unit_rows, (rows,)).num_units
    per_field = {field.name: rows * field.bytes_per_row for field in stored}
    arrays = sum(field.kind == "array" for field in stored)
    return Estimate(
        stage=stage.name,
        kind=stage.kind,
        fingerprint=asked.fingerprint,
        rows=rows,
        unit_rows=unit_rows,
        units=units,
        files=units * (len(stored) + 1) + arrays + 4,  # plan, listing, rows and artifact.json
        bytes_per_field=per_field,
        total_bytes=sum(per_field.values()),
        memory_per_worker_bytes=2 * unit_rows * row_bytes(stored),
    )
