"""Estimates what a run would make: rows, units, files, bytes, and memory per worker."""

from collections.abc import Mapping
from dataclasses import dataclass

from ...manifests.artifact.layout import Layout
from ...manifests.artifact.quantized import scale_name
from ...manifests.artifact.shards import checking_s
from ...manifests.errors import ConfigError
from ...stages.stage import Known, Probe, Stage
from ..running.job import make_reproducible
from ..running.making import Order
from ..running.options import RunOptions
from ..running.planning import ask, row_bytes, unit_rows_for


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
    memory_per_worker_bytes: int  # arrays only: a unit computed, one written, its shards
    measured_rows: int = 0  # rows that were computed here to measure the time; 0 if the stage has no probe
    measured_s: float = 0.0
    pair_bytes: int = 0  # of two pictures, if a student that learns from pairs can read these tokens
    pair_reading_s: float = 0.0  # to check and copy them in memory

    @property
    def pair_backbone_s(self) -> float:
        return 2 * self.measured_s / self.measured_rows

    @property
    def break_even(self) -> float:
        """Bytes per second from which reading stored tokens is faster than computing them; infinite if it never is."""
        saved_s = self.pair_backbone_s - self.pair_reading_s
        return self.pair_bytes / saved_s if saved_s > 0 else float("inf")

    @property
    def hours(self) -> float:
        """In one process on this machine."""
        return self.rows * self.measured_s / self.measured_rows / 3600


def estimate(order: Order, options: RunOptions) -> Estimate:
    """Plans the rows as a run would. Writes nothing."""
    stage, config = order.stage, order.config
    if not isinstance(stage, Stage):
        raise ConfigError(f"{stage.name} computes its result in one go and has no units to plan; leave `plan` out")
    make_reproducible(stage, config)
    request = ask(stage, config, order.inputs)
    rows = sum(batch.num_rows for batch in stage.plan(config, request.inputs, Known()).batches)
    stored = [field for field in request.fields if field.kind != "columns"]
    unit_rows = unit_rows_for(stage, config, stored, options)
    units = Layout(unit_rows, (rows,)).num_units
    per_field = {field.name: rows * field.bytes_per_row for field in stored}
    arrays = sum(field.kind == "array" for field in stored)
    measured = stage.probe(config, request.inputs) if stage.probe and rows else Probe(0, 0.0)
    of_pair = _pair_bytes({field.name: field.bytes_per_row for field in stored})
    return Estimate(
        stage=stage.name,
        kind=stage.kind,
        fingerprint=request.fingerprint,
        rows=rows,
        unit_rows=unit_rows,
        units=units,
        # Besides units and arrays: plan, listing, rows, artifact.json, and an optional description.
        files=units * (len(stored) + 1) + arrays + 4 + (stage.describe is not None),
        bytes_per_field=per_field,
        total_bytes=sum(per_field.values()),
        memory_per_worker_bytes=3 * min(unit_rows, rows) * row_bytes(stored),
        measured_rows=measured.rows,
        measured_s=measured.seconds,
        pair_bytes=of_pair,
        pair_reading_s=checking_s(of_pair) if of_pair and measured.rows else 0.0,
    )


def _pair_bytes(of_row: Mapping[str, int]) -> int:
    """Bytes of the query's tokens and the support's support tokens, with what supervises them: keys of both, the
    support's class query, and the scales of quantized fields."""
    if not {"tokens", "support_tokens"} <= of_row.keys():
        return 0
    times = {"tokens": 1, "support_tokens": 1, "keys": 2, "cls_query": 1}
    return sum(count * (of_row.get(name, 0) + of_row.get(scale_name(name), 0)) for name, count in times.items())
