"""Two small stages that exercise everything an artifact and a run promise, without torch.

`toy`   reads pictures: arrays `square` [3, 4] and `wide` [2, 5], a mean as scalar
`echo`  reads `square`: a table of bytes, and the mean repeated

Faults are injected through a directory named by MASKMILL_TOY_FAULTS: a file `raise-ID` or `kill-ID` holds how many
times the unit with that image raises or kills its process. Every call of a unit is counted in `calls-UNIT`.
"""

import hashlib
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from builders.configs import make_command
from maskmill.manifests.artifact.config import check_config, checks_itself, option
from maskmill.manifests.artifact.fields import Field
from maskmill.manifests.errors import Reason, RowFailed
from maskmill.manifests.files.sealed import Json
from maskmill.manifests.pictures.decoder import decode_picture
from maskmill.manifests.pictures.sources import read_source
from maskmill.stages.stage import Inputs, Known, RowList, RowResult, Stage, UnitResult, Work, rows_of_input

FAULTS = "MASKMILL_TOY_FAULTS"
SHAPES = {"square": (3, 4), "wide": (2, 5)}


@checks_itself
@dataclass(frozen=True, slots=True, kw_only=True)
class Inner:
    power: int = option(1, "Power of pixel values.")

    def __post_init__(self) -> None:
        check_config(self)


@checks_itself
@dataclass(frozen=True, slots=True, kw_only=True)
class ToyConfig:
    scale: float = option(1.0, "Factor of pixel values.")
    word: str = option("a", "Word whose length is added.")
    inner: Inner = option(Inner())
    fields: tuple[str, ...] = option(("square",), "Fields to make.", metavar="FIELD,…")
    threads: int = option(1, "Threads.", changes_bytes=False)

    def __post_init__(self) -> None:
        check_config(self)


def plan(config: ToyConfig, inputs: Inputs, known: Known) -> RowList:
    return rows_of_input(inputs, "images")


def fields(config: ToyConfig, inputs: Inputs) -> Sequence[Field]:
    return [
        Field(name=name, kind="array", shape=SHAPES[name], dtype="float32", chunk=(1, SHAPES[name][1]))
        for name in config.fields
    ]


def with_held(config: ToyConfig, held: Mapping[str, Json]) -> ToyConfig:
    return replace(config, fields=tuple(dict.fromkeys([*held["fields"], *config.fields])))


def columns(config: Any) -> Mapping[str, str]:
    return {"mean": "float64"}


def reads(config: ToyConfig, inputs: Inputs) -> Mapping[str, Sequence[str]]:
    return {"images": ("picture",)}


def run_unit(work: Work, config: ToyConfig, prepared: Any) -> UnitResult:
    inject(work)
    root = work.inputs["images"].plan.facts["root"]
    rows = work.upstream["images"].to_pylist()
    results, pixels = [], np.zeros((len(rows), 20), np.float32)
    for index, row in enumerate(rows):
        if work.blocked[index]:
            results.append(RowResult())
            continue
        try:
            pixels[index] = pixels_of(root, row, config)
            results.append(RowResult({"mean": float(pixels[index].mean())}))
        except RowFailed as failed:
            results.append(RowResult(reason=failed.reason))
    arrays = {name: pixels[:, : a * b].reshape(-1, a, b).copy() for name, (a, b) in SHAPES.items()}
    return UnitResult(results, {name: arrays[name] for name in work.fields})


def pixels_of(root: str, row: Mapping[str, Json], config: ToyConfig) -> np.ndarray:
    data = read_source(root, row["uri"])
    if hashlib.sha256(data).hexdigest() != row["sha256"]:
        raise RowFailed(Reason.CHANGED)
    picture_HW3, _ = decode_picture(data)
    values = np.resize(picture_HW3.astype(np.float32).ravel(), 20)
    return config.scale * values**config.inner.power + len(config.word)


def inject(work: Work) -> None:
    where = os.environ.get(FAULTS)
    if not where:
        return
    calls = Path(where, f"calls-{work.unit.index}")
    calls.write_text(str(int(calls.read_text()) + 1 if calls.exists() else 1))
    for identifier in work.ids:
        name = identifier.replace("/", "-")
        for kind in ("raise", "kill"):
            left = Path(where, f"{kind}-{name}")
            if left.exists() and (number := int(left.read_text())) > 0:
                left.write_text(str(number - 1))
                if kind == "kill":
                    os.kill(os.getpid(), signal.SIGKILL)
                raise ValueError(f"told to raise at {identifier}")


@checks_itself
@dataclass(frozen=True, slots=True, kw_only=True)
class EchoConfig:
    times: int = option(2, "How often to repeat.", at_least=1)

    def __post_init__(self) -> None:
        check_config(self)


def echo_plan(config: EchoConfig, inputs: Inputs, known: Known) -> RowList:
    return rows_of_input(inputs, "toys")


def echo_fields(config: EchoConfig, inputs: Inputs) -> Sequence[Field]:
    return [Field(name="echo", kind="table", row_bytes=100)]


def echo_reads(config: EchoConfig, inputs: Inputs) -> Mapping[str, Sequence[str]]:
    return {"toys": ("square",)}


def echo_unit(work: Work, config: EchoConfig, prepared: Any) -> UnitResult:
    inject(work)
    toys = work.inputs["toys"]
    squares = toys.read("square", toys.positions(work.ids))
    means = work.upstream["toys"].column("mean").to_pylist()
    cells = [square.tobytes() * config.times for square in squares]
    return UnitResult([RowResult({"mean": mean}) for mean in means], cells={"echo": cells})


TOY_COMMAND = make_command("toy", "toys", ToyConfig, {"images": "images"}, "builders.toy:TOY")
ECHO_COMMAND = make_command("echo", "echoes", EchoConfig, {"toys": "toys"}, "builders.toy:ECHO")
TOY = Stage(
    command=TOY_COMMAND,
    code_version=1,
    plan=plan,
    fields=fields,
    columns=columns,
    run_unit=run_unit,
    reads=reads,
    selects=("fields",),
    with_held=with_held,
    libraries=("Pillow",),
)
ECHO = Stage(
    command=ECHO_COMMAND,
    code_version=1,
    plan=echo_plan,
    fields=echo_fields,
    columns=columns,
    run_unit=echo_unit,
    reads=echo_reads,
)
