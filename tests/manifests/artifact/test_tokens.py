"""Stored tokens as anybody reads them: by id, checked, lazily, and refused in one sentence."""

import pickle
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import maskmill
from builders import small_runs
from builders.configs import make_command
from builders.small_dataset import write_dataset
from maskmill.manifests.artifact.fields import Field
from maskmill.manifests.artifact.quantized import dequantize, quantize
from maskmill.manifests.artifact.tokens import Tokens, array_names, open_tokens
from maskmill.manifests.errors import (
    ConfigError,
    CorruptArtifact,
    InputError,
    MissingArtifact,
    Reason,
    UnfinishedArtifact,
)
from maskmill.pipeline.running.options import RunOptions
from maskmill.pipeline.running.run import run
from maskmill.stages.stage import Inputs, Known, RowList, RowResult, Stage, UnitResult, Work, rows_of_input

FAILED = "dog/3"
BACKBONE = {"name": "made up", "grid": [2, 3], "patch": [16, 16]}


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeUpConfig:
    dtype: str = "float32"


def values_of(identifier: str) -> dict[str, np.ndarray]:
    chance = np.random.default_rng(int(identifier.partition("/")[2]))
    return {
        "keys": chance.normal(size=(6, 4)).astype(np.float32),
        "tokens": chance.normal(size=(2, 7, 4)).astype(np.float32),
        "cls_query": chance.normal(size=(4,)).astype(np.float32),
    }


def plan(config: MadeUpConfig, inputs: Inputs, known: Known) -> RowList:
    rows = rows_of_input(inputs, "images")
    weights = {"source": "made up", "sha256": "0" * 64, "licence": "none"}
    return RowList(rows.columns, rows.batches, {"backbone": BACKBONE, "weights": weights})


def fields(config: MadeUpConfig, inputs: Inputs) -> Sequence[Field]:
    stored = []
    for name, values in values_of("cat/0").items():
        detail = {"blocks": [3, 5] if name == "tokens" else [5]}
        stored.append(Field(name=name, kind="array", shape=values.shape, dtype=config.dtype, detail=detail))
        if config.dtype == "int8":
            stored.append(Field(name=f"{name}_scale", kind="array", shape=values.shape[:-1], detail=detail))
    return stored


def columns(config: Any) -> Mapping[str, str]:
    return {"box": "ints"}


def run_unit(work: Work, config: MadeUpConfig, prepared: Any) -> UnitResult:
    rows = [
        RowResult(reason=Reason.CHANGED) if each == FAILED else RowResult({"box": [0, 0, 1, 1]}) for each in work.ids
    ]
    arrays: dict[str, np.ndarray] = {}
    for name in values_of("cat/0"):
        stacked = np.stack([values_of(each)[name] for each in work.ids])
        if config.dtype == "int8":
            arrays[name], arrays[f"{name}_scale"] = quantize(stacked)
        else:
            arrays[name] = stacked.astype(config.dtype)
    return UnitResult(rows, arrays)


STAGE = Stage(
    command=make_command("made-up", "tokens", MadeUpConfig, {"images": "images"}),
    code_version=1,
    plan=plan,
    fields=fields,
    columns=columns,
    run_unit=run_unit,
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("tokens")
    small_runs.index(write_dataset(home / "pictures"), home / "images")
    for dtype in ("float32", "float16", "int8"):
        make(home, dtype)
    return home


def make(home: Path, name: str, **options: Any) -> Path:
    config = MadeUpConfig(dtype=name if name in ("float16", "int8") else "float32")
    run(STAGE, config, {"images": str(home / "images")}, str(home / name), RunOptions(unit_rows=4, max_bad=1.0))
    return home / name


@pytest.fixture
def tokens(home: Path) -> Tokens:
    return open_tokens(home / "float32")


def test_it_is_what_the_package_offers(home: Path) -> None:
    assert maskmill.open_tokens is open_tokens
    assert maskmill.Tokens is Tokens
    assert {"open_tokens", "Tokens"} <= set(dir(maskmill))


def test_reading_needs_no_torch(home: Path) -> None:
    script = (
        "import sys, maskmill\n"
        "before = set(sys.modules)\n"
        f"keys = maskmill.open_tokens({str(home / 'float32')!r}).read('keys', 'cat/0')\n"
        "print(keys.shape, {'torch', 'timm', 'dask', 'click'} & set(sys.modules), 'numpy' in before)\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout == "(6, 4) set() False\n"


def test_one_picture_or_several_in_any_order(tokens: Tokens) -> None:
    for name in ("keys", "tokens", "cls_query"):
        assert np.array_equal(tokens.read(name, "dog/7"), values_of("dog/7")[name])
        ids = ["dog/9", "cat/0", "cat/2", "dog/9", "cat/8"]
        assert np.array_equal(tokens.read(name, ids), np.stack([values_of(each)[name] for each in ids]))
        in_order = [f"{('cat', 'dog')[number % 2]}/{number}" for number in range(3)]
        assert np.array_equal(tokens.read(name, in_order), np.stack([values_of(each)[name] for each in in_order]))
        assert tokens.read(name, []).shape == (0, *values_of("cat/0")[name].shape)


def test_signed_bytes_are_restored(home: Path) -> None:
    half, small = open_tokens(home / "float16"), open_tokens(home / "int8")
    assert half.read("keys", "cat/2").dtype == np.float16
    assert np.array_equal(half.read("keys", "cat/2"), values_of("cat/2")["keys"].astype(np.float16))
    assert set(small.fields) == {"keys", "tokens", "cls_query"}
    for name, values in values_of("cat/2").items():
        found = small.read(name, ["dog/9", "cat/2"])[1]
        assert found.dtype == np.float32
        assert np.array_equal(found, dequantize(*quantize(values)))
        assert np.array_equal(small.read(name, "cat/2"), found)


def test_what_is_known_of_them(tokens: Tokens) -> None:
    assert (tokens.backbone, tokens.weights["licence"]) == (BACKBONE, "none")
    assert (tokens.blocks("tokens"), tokens.blocks("keys")) == ((3, 5), (5,))
    rows = tokens.rows.to_pylist()
    assert [row["status"] for row in rows].count("ok") == 9
    assert rows[0]["box"] == [0, 0, 1, 1]


def test_a_row_that_failed_is_refused_by_id_and_zeros_by_position(tokens: Tokens) -> None:
    told = r"'dog/3'.*changed"
    with pytest.raises(InputError, match=told):
        tokens.read("keys", FAILED)
    with pytest.raises(InputError, match=told):
        tokens.read("keys", ["cat/0", FAILED])
    ids = tokens.rows.column("id").to_pylist()
    by_position = tokens.at("keys", range(len(ids)))
    assert not by_position[ids.index(FAILED)].any()
    assert np.array_equal(by_position[ids.index("cat/8")], values_of("cat/8")["keys"])


def test_what_is_not_there_is_told(tokens: Tokens, home: Path) -> None:
    with pytest.raises(InputError, match="'cat/77'"):
        tokens.read("keys", ["cat/0", "cat/77"])
    told = rf"`maskmill extract {home}/images --dtype float32 --fields cls_attention --out {home}/float32`"
    for ask in (lambda: tokens.read("cls_attention", "cat/0"), lambda: tokens.blocks("cls_attention")):
        with pytest.raises(ConfigError, match=told):
            ask()
    with pytest.raises(ConfigError, match="keys_scale"):
        open_tokens(home / "int8").read("keys_scale", "cat/0")
    with pytest.raises(ConfigError, match=r"images\b.*tokens"):
        open_tokens(home / "images")
    with pytest.raises(MissingArtifact, match="nowhere"):
        open_tokens(home / "nowhere")


def test_an_unfinished_artifact_is_refused(home: Path) -> None:
    out = make(home, "unfinished")
    (out / "artifact.json").unlink()
    with pytest.raises(UnfinishedArtifact, match="unfinished"):
        open_tokens(str(out))


def test_a_damaged_shard_is_refused_when_it_is_read(home: Path) -> None:
    out = make(home, "damaged")
    shard = out / "keys.zarr/c/1/0/0"
    data = bytearray(shard.read_bytes())
    data[100] ^= 1
    shard.write_bytes(data)
    tokens = open_tokens(str(out))
    assert np.array_equal(tokens.read("keys", "cat/0"), values_of("cat/0")["keys"])
    assert np.array_equal(tokens.read("tokens", "cat/4"), values_of("cat/4")["tokens"])
    with pytest.raises(CorruptArtifact, match=rf"{shard} "):
        tokens.read("keys", ["cat/0", tokens.rows.column("id").to_pylist()[5]])


def test_they_can_be_sent_to_another_process(tokens: Tokens) -> None:
    again = pickle.loads(pickle.dumps(tokens))
    assert again == tokens
    assert np.array_equal(again.read("keys", "cat/2"), values_of("cat/2")["keys"])


def test_the_arrays_behind_fields(home: Path) -> None:
    assert array_names(open_tokens(home / "float16").artifact, ["keys", "cls_query"]) == ("keys", "cls_query")
    small = open_tokens(home / "int8").artifact
    assert array_names(small, ["keys"]) == ("keys", "keys_scale")
