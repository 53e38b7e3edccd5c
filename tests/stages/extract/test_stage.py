"""The stage as a run drives it: what is stored, what is refused, and what becomes of pictures and weights gone bad."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from builders import small_runs
from builders.configs import make_config
from builders.small_dataset import tree, write_dataset, write_picture
from maskmill.manifests.artifact.artifact import open_artifact
from maskmill.manifests.artifact.quantized import dequantize, quantize
from maskmill.manifests.artifact.tokens import Tokens, open_tokens
from maskmill.manifests.errors import ConfigError, EnvironmentFault, InputError, StaleArtifact
from maskmill.pipeline.answers.verify import verify
from maskmill.pipeline.running import job
from maskmill.pipeline.running.options import RunOptions
from maskmill.pipeline.running.planning import ask
from maskmill.pipeline.running.run import retry
from maskmill.stages.extract.config import ExtractConfig
from maskmill.stages.extract.stage import STAGE
from maskmill.stages.vision import computing
from maskmill.stages.vision.token_fields import FIELDS, token_fields

ALL = ("keys", "cls_query", "cls_attention:0-5", "tokens:1+5", "support_tokens:2")
WANTED = {
    "keys": (5,),
    "cls_query": (5,),
    "cls_attention": (0, 1, 2, 3, 4, 5),
    "tokens": (1, 5),
    "support_tokens": (2,),
}
WHOLE = RunOptions(max_bad=1.0)
DTYPES = ("float32", "float16", "int8")


def everything(tokens: Tokens) -> dict[str, np.ndarray]:
    """Every array as it is stored."""
    artifact = tokens.artifact
    return {name: artifact.read(name, range(artifact.plan.num_rows)) for name in artifact.plan.fields}


def same(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> bool:
    return found.keys() == wanted.keys() and all(np.array_equal(found[name], wanted[name]) for name in wanted)


def reasons(tokens: Tokens) -> dict[str, str]:
    return {row["id"]: row["reason"] for row in tokens.rows.to_pylist() if row["status"] != "ok"}


def noting(note: Callable[[torch.Tensor, Any], None]) -> Callable[..., dict[str, torch.Tensor]]:
    """What computes a batch, and tells of it."""

    def given(backbone: Any, images: torch.Tensor, wanted: Any) -> dict[str, torch.Tensor]:
        note(images, wanted)
        return token_fields(backbone, images, wanted)

    return given


# ---- what is stored


def test_what_is_stored_is_what_the_backbone_gives(bench: Any) -> None:
    direct = bench.direct(WANTED)
    assert all(values.std() > 0.001 for values in direct.values()), "nothing but constants would prove nothing"
    tokens = bench.extract(fields=ALL)
    assert set(tokens.fields) == set(FIELDS)
    assert same(everything(tokens), direct)
    half = everything(bench.extract(fields=ALL, dtype="float16"))
    assert {values.dtype for values in half.values()} == {np.dtype(np.float16)}
    assert same(half, {name: values.astype(np.float16) for name, values in direct.items()})
    small = bench.extract(fields=ALL, dtype="int8")
    held = everything(small)
    assert set(held) == {*FIELDS, *(f"{name}_scale" for name in FIELDS)}
    assert set(small.fields) == set(FIELDS)
    for name, values in direct.items():
        bytes_, scale = quantize(values)
        assert np.array_equal(held[name], bytes_)
        assert np.array_equal(held[f"{name}_scale"], scale)
        error = np.abs(small.at(name, range(12)) - values)
        assert (error <= 0.501 * scale[..., None]).all()
        assert np.array_equal(small.at(name, range(12)), dequantize(bytes_, scale))


def test_the_rows_and_facts_of_an_artifact(bench: Any) -> None:
    tokens = bench.extract(fields=ALL)
    assert tokens.rows.column("id").to_pylist() == bench.ids()
    for row in tokens.rows.to_pylist():
        height, width = bench.picture(row["id"]).shape[:2]
        right = round(width * 32 / 16)
        box = [0, 0, 32, right] if right <= 48 else [0, 0, round(height * 48 / width), 48]
        assert (row["status"], row["height"], row["width"], row["box"]) == ("ok", height, width, box)
    assert tokens.blocks("tokens") == (1, 5)
    assert tokens.blocks("keys") == (5,)
    assert (tokens.backbone["name"], tokens.backbone["grid"], tokens.backbone["depth"]) == (
        "test_vit.r160_in1k",
        [2, 3],
        6,
    )
    assert (tokens.weights["source"], tokens.weights["licence"]) == ("random:0", "none")
    assert tokens.weights["sha256"] == bench.config().weights_sha256


def test_what_is_left_open_is_decided_and_written_down() -> None:
    config = make_config(ExtractConfig, backbone="test_vit.r160_in1k", weights="random:0")
    assert config.image_size == (160, 160)
    assert config.fields == ("keys", "cls_query")
    assert (config.fit, config.flip, config.dtype, config.positions, config.autocast, config.batch, config.device) == (
        "pad",
        False,
        "float16",
        "timm",
        "off",
        16,
        "cpu",
    )


def test_positions_are_resampled_as_dino_for_dinos_weights(weights_file: Path) -> None:
    dino = weights_file.with_name("dino_small.safetensors")
    dino.write_bytes(weights_file.read_bytes())
    size = (32, 48)
    assert (
        make_config(ExtractConfig, backbone="test_vit.r160_in1k", weights=str(weights_file), image_size=size).positions
        == "timm"
    )
    assert (
        make_config(ExtractConfig, backbone="test_vit.r160_in1k", weights=str(dino), image_size=size).positions
        == "dino"
    )
    assert (
        make_config(
            ExtractConfig, backbone="test_vit.r160_in1k", weights=str(dino), image_size=size, positions="timm"
        ).positions
        == "timm"
    )
    assert (
        make_config(
            ExtractConfig, backbone="test_vit.r160_in1k", weights=str(weights_file), image_size=size, positions="dino"
        ).positions
        == "dino"
    )


@pytest.mark.parametrize(("fit", "flip"), [("pad", True), ("squash", False), ("squash", True)])
def test_views(bench: Any, fit: str, flip: bool) -> None:
    """A mirrored picture lies at the other side of the view."""
    tokens = bench.extract(fit=fit, flip=flip, fields=("keys", "tokens:0"))
    assert same(everything(tokens), bench.direct({"keys": (5,), "tokens": (0,)}, fit, flip))
    for row in tokens.rows.to_pylist():
        height, width = bench.picture(row["id"]).shape[:2]
        right = min(48, round(width * 32 / 16))
        bottom = 32 if right < 48 else round(height * 48 / width)
        wanted = [0, 48 - right, bottom, 48] if fit == "pad" else [0, 0, 32, 48]
        assert row["box"] == wanted
    assert fit == "squash" or {tuple(row["box"]) for row in tokens.rows.to_pylist()} > {(0, 0, 32, 48)}


# ---- the same bytes


def test_batches_and_threads_change_no_byte(bench: Any) -> None:
    wanted = bench.direct(WANTED)
    before = torch.get_num_threads()
    try:
        for threads, batch in [(1, 5), (2, 1), (3, 2)]:
            torch.set_num_threads(threads)
            assert same(everything(bench.extract(fields=ALL, batch=batch)), wanted), (threads, batch)
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


WIDE = """
import sys, torch
from maskmill.pipeline.running.options import RunOptions
from maskmill.pipeline.running.run import run
from maskmill.stages.extract.config import ExtractConfig
from maskmill.stages.extract.stage import STAGE, resolve
images, out, threads, batch = sys.argv[1:]
torch.set_num_threads(int(threads))
config = ExtractConfig(
    backbone="vit_base_patch16_224", weights="random:0", image_size=(64, 64), fields=("tokens:0",), dtype="float32"
)
run(STAGE, resolve(config, {}), {"images": images}, out, RunOptions(unit_rows=int(batch)))
"""


@pytest.mark.slow
@pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"), reason="MKL cannot on this processor"
)
def test_a_wide_backbone_gives_the_same_values_on_any_threads(tmp_path: Path) -> None:
    """MKL by itself does not: processes of their own, because it decides before its first product."""
    small_runs.index(write_dataset(tmp_path / "pictures", 16), tmp_path / "images")
    environment = {name: value for name, value in os.environ.items() if name != "MKL_CBWR"}
    found = []
    for threads, rows in [(1, 16), (2, 16), (2, 3)]:
        out = tmp_path / f"tokens-{threads}-{rows}"
        command = [sys.executable, "-c", WIDE, str(tmp_path / "images"), str(out), str(threads), str(rows)]
        subprocess.run(command, check=True, env=environment)
        found.append(open_tokens(out).at("tokens", range(16)))
    assert all((each == found[0]).all() for each in found)


def test_units_of_another_size_hold_the_same_values(bench: Any) -> None:
    assert same(everything(bench.extract(WHOLE, fields=ALL)), everything(bench.extract(fields=ALL)))


# ---- fields that are added


def test_a_fields_fingerprint_knows_nothing_of_the_others(bench: Any) -> None:
    inputs = {"images": open_artifact(str(bench.images))}

    def prints(*fields: str, **asked: Any) -> dict[str, str]:
        found = ask(STAGE, bench.config(fields=fields, **asked), inputs)
        return {field.name: found.field_fingerprint(field) for field in found.fields}

    together = prints(*ALL)
    for field in ALL:
        name = field.partition(":")[0]
        assert prints(field) == {name: together[name]}
        assert prints(field, batch=4)[name] != together[name]
    assert prints("tokens:1")["tokens"] != together["tokens"]
    assert len(set(together.values())) == len(together)


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_an_added_field_is_computed_alone(bench: Any, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    out = bench.new_out()
    bench.run(out, dtype=dtype)
    before, held = tree(out), everything(open_tokens(str(out)))
    computed: list[set[str]] = []
    monkeypatch.setattr(computing, "token_fields", noting(lambda images, wanted: computed.append(set(wanted))))
    bench.run(out, RunOptions(unit_rows=4, max_bad=1.0), dtype=dtype, fields=("tokens:0", "cls_attention:5", "keys"))
    assert computed == [{"cls_attention", "tokens"}] * 6
    after = tree(out)
    changed = {name for name in before if after[name] != before[name]}
    assert changed == {"plan.json", "rows.parquet", "artifact.json"}
    tokens = open_tokens(str(out))
    assert set(tokens.fields) == {"keys", "cls_query", "tokens", "cls_attention"}
    assert all(np.array_equal(tokens.artifact.read(name, range(12)), values) for name, values in held.items())
    at_once = bench.extract(dtype=dtype, fields=("keys", "cls_query", "tokens:0", "cls_attention:5"))
    assert same(everything(tokens), everything(at_once))
    computed.clear()
    assert bench.run(out, dtype=dtype, fields=("cls_query", "tokens:0")).units_run == 0
    assert not computed
    assert retry(str(out)).units_run == 0
    assert tree(out) == after


def test_other_blocks_of_a_field_that_is_held_are_refused(bench: Any) -> None:
    out = bench.new_out()
    bench.run(out, fields=("keys", "tokens:5"))
    before = tree(out)
    told = r"tokens.*\[1, 7, 64\].*float32.*\[5\].*\[2, 7, 64\].*float32.*\[4, 5\].*--out"
    with pytest.raises(StaleArtifact, match=told):
        bench.run(out, fields=("tokens:4-5",))
    with pytest.raises(StaleArtifact, match=r"tokens.*blocks = \[5\].*blocks = \[4\]"):
        bench.run(out, fields=("tokens:4", "cls_attention"))
    with pytest.raises(StaleArtifact, match=r"dtype.*float32.*int8"):
        bench.run(out, fields=("keys",), dtype="int8")
    assert tree(out) == before


def test_the_last_block_alone_is_read_of_those_that_are_held(bench: Any) -> None:
    out = bench.new_out()
    bench.run(out, fields=("tokens:all", "cls_attention:4-5"))
    before = tree(out)
    for fields in (("tokens",), ("tokens:last", "cls_attention:last")):
        assert bench.run(out, fields=fields).units_run == 0
        assert tree(out) == before
    with pytest.raises(StaleArtifact, match=r"tokens.*\[0, 1, 2, 3, 4, 5\].*\[5\]"):
        bench.run(out, fields=("tokens", "support_tokens"))  # of pairs, for which all that are held would be read


def test_a_unit_that_is_made_again_has_all_fields_that_are_held(own_bench: Any) -> None:
    out = own_bench.new_out()
    own_bench.run(out, fields=("keys", "tokens:4-5"))
    before = tree(out)
    for shard in (out / "tokens.zarr/c").iterdir():
        shutil.rmtree(shard)
    own_bench.run(out, fields=("keys",))
    after = tree(out)
    assert {name for name in before if after[name] != before[name]} <= {"artifact.json"}


# ---- pictures that are bad


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_a_bad_picture_is_its_own_rows_alone(bench: Any, own_bench: Any, dtype: str) -> None:
    ids = own_bench.ids()
    bad = own_bench.spoil()
    tokens = own_bench.extract(fields=ALL, dtype=dtype)
    assert reasons(tokens) == bad
    assert {row["id"] for row in tokens.rows.to_pylist() if row["status"] == "upstream"} == {"cat/0"}
    whole = everything(bench.extract(fields=ALL, dtype=dtype))
    is_bad = np.array([identifier in bad for identifier in ids])
    for name, values in everything(tokens).items():
        assert not values[is_bad].any()
        assert np.array_equal(values[~is_bad], whole[name][~is_bad]), name
    assert verify(str(tokens.artifact.place)).exit_code == 0
    for identifier, reason in bad.items():
        with pytest.raises(InputError, match=rf"'{identifier}'.*{reason}"):
            tokens.read("keys", identifier)


def test_a_batch_of_bad_pictures_is_not_computed(own_bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for identifier in own_bench.ids()[:3]:
        (own_bench.pictures / f"{identifier}.png").write_bytes(b"no picture")
    own_bench.index()
    batches: list[int] = []
    monkeypatch.setattr(computing, "token_fields", noting(lambda images, wanted: batches.append(len(images))))
    own_bench.extract(WHOLE)
    assert batches == [3, 3, 3]


def test_a_changed_picture_is_made_by_retry(own_bench: Any, weights_file: Path) -> None:
    """The plan of the artifact has all that a retry needs: the seed, or where the weights lie."""
    kept = (own_bench.pictures / "dog/3.png").read_bytes()
    for weights in ("random:0", str(weights_file)):
        quiet, out = own_bench.new_out(), own_bench.new_out()
        own_bench.run(quiet, weights=weights)
        write_picture(own_bench.pictures / "dog/3.png", 99)
        assert own_bench.run(out, weights=weights).counts["reasons"] == {"changed": 1}
        (own_bench.pictures / "dog/3.png").write_bytes(kept)
        assert own_bench.run(out, weights=weights).units_run == 0
        assert retry(str(out)).units_run == 1
        assert tree(out) == tree(quiet)
        assert json.loads((out / "plan.json").read_bytes())["settings"] == {"weights": weights, "device": "cpu"}


def test_a_path_of_weights_is_kept_absolute(
    own_bench: Any, weights_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(weights_file.parent)
    assert own_bench.config(weights=weights_file.name).weights == str(weights_file)


# ---- numbers that are no numbers


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_no_numbers_fail_every_row(bench: Any, weights_file: Path, dtype: str, bad: float) -> None:
    state = load_file(weights_file)
    state["blocks.5.attn.qkv.bias"][64] = bad  # of the first value of every key
    save_file(state, weights_file)
    tokens = bench.extract(weights=str(weights_file), dtype=dtype, fields=("keys", "cls_query", "tokens:0"))
    assert reasons(tokens) == dict.fromkeys(bench.ids(), "not_finite")
    assert not any(values.any() for values in everything(tokens).values())


def with_a_bad_value(value: float, at: int) -> Callable[..., dict[str, torch.Tensor]]:
    """The fields of a batch, with one value of the picture at a place among all pictures replaced."""
    seen = 0

    def given(backbone: Any, images: torch.Tensor, wanted: Any) -> dict[str, torch.Tensor]:
        nonlocal seen
        found = {name: values.clone() for name, values in token_fields(backbone, images, wanted).items()}
        if seen <= at < seen + len(images):
            found["cls_query"][at - seen, 7] = value
        seen += len(images)
        return found

    return given


@pytest.mark.parametrize(("dtype", "value"), [*((each, np.nan) for each in DTYPES), ("float16", 70_000.0)])
def test_one_value_that_is_no_number_fails_one_row(
    bench: Any, dtype: str, value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """70,000 is more than float16 can hold."""
    whole = everything(bench.extract(dtype=dtype))
    monkeypatch.setattr(computing, "token_fields", with_a_bad_value(value, 4))
    tokens = bench.extract(dtype=dtype)
    assert reasons(tokens) == {bench.ids()[4]: "not_finite"}
    for name, values in everything(tokens).items():
        assert not values[4].any()
        assert np.array_equal(np.delete(values, 4, 0), np.delete(whole[name], 4, 0))


# ---- weights that are not what they were


def test_weights_that_have_changed_are_refused(
    own_bench: Any, weights_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = own_bench.new_out()
    write_picture(own_bench.pictures / "dog/3.png", 99)
    own_bench.run(out, weights=str(weights_file))
    before = tree(out)
    first = hashlib.sha256(weights_file.read_bytes()).hexdigest()
    state = load_file(weights_file)
    state["norm.bias"] += 1
    save_file(state, weights_file)
    monkeypatch.setattr(job, "_prepared", {})  # as in a process that has not loaded the model
    second = hashlib.sha256(weights_file.read_bytes()).hexdigest()
    with pytest.raises(StaleArtifact, match=f"weights_sha256.*{first[:57]}.*{second[:57]}"):
        own_bench.run(out, weights=str(weights_file))
    with pytest.raises(ConfigError, match=rf"{weights_file}.*{second[:12]}.*{first[:12]}"):
        retry(str(out), RunOptions(max_bad=1.0))
    weights_file.unlink()
    with pytest.raises(ConfigError, match=rf"{weights_file}") as gone:
        retry(str(out), RunOptions(max_bad=1.0))
    assert "\n" not in str(gone.value)
    assert tree(out) == before


def test_a_finished_artifact_needs_no_weights(own_bench: Any, weights_file: Path) -> None:
    out = own_bench.new_out()
    own_bench.run(out, weights=str(weights_file))
    weights_file.unlink()
    assert retry(str(out)).units_run == 0
    assert open_tokens(str(out)).read("keys", "cat/0").shape == (6, 64)


# ---- a device without room


def limited(most: int, batches: list[int]) -> Callable[..., dict[str, torch.Tensor]]:
    """A device that has room for so many pictures at once."""

    def given(backbone: Any, images: torch.Tensor, wanted: Any) -> dict[str, torch.Tensor]:
        batches.append(len(images))
        if len(images) > most:
            raise torch.OutOfMemoryError("told to be full")
        return token_fields(backbone, images, wanted)

    return given


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_a_device_without_room_takes_less_at_once(bench: Any, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    quiet = bench.extract(dtype=dtype, batch=8, options=WHOLE)
    batches: list[int] = []
    monkeypatch.setattr(computing, "token_fields", limited(3, batches))
    assert tree(Path(bench.extract(dtype=dtype, batch=8, options=WHOLE).artifact.place.uri)) == tree(
        Path(quiet.artifact.place.uri)
    )
    assert batches == [8, 4, 2, 2, 2, 2, 2, 2]


def test_a_shorter_type_may_not_take_less_at_once(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(computing, "token_fields", limited(3, []))
    out = bench.new_out()
    told = "cpu.*8.*--autocast bfloat16.*--batch 4.*--out.*--autocast off"
    with pytest.raises(EnvironmentFault, match=told):
        bench.run(out, WHOLE, batch=8, autocast="bfloat16")
    assert not list(out.glob("keys.zarr/c/*"))


def test_one_picture_that_is_too_many(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(computing, "token_fields", limited(0, []))
    with pytest.raises(EnvironmentFault, match=r"cpu.*one picture"):
        bench.run(bench.new_out(), batch=4)


def test_autocast_computes_in_a_shorter_type(bench: Any) -> None:
    exact = everything(bench.extract())
    for lower in ("bfloat16", "float16"):
        found = everything(bench.extract(autocast=lower))
        assert all(values.dtype == np.float32 for values in found.values())
        for name, values in found.items():
            error = np.abs(values - exact[name]).max()
            assert 0 < error < 0.05 * np.abs(exact[name]).max(), (lower, name)


# ---- what it costs


def test_files_and_bytes_are_those_of_the_arrays(bench: Any) -> None:
    """At the model's own size, where a picture has a sixth of a megabyte; what stands beside the arrays does not grow
    with it."""
    out = bench.new_out()
    bench.run(out, RunOptions(unit_rows=6), image_size=(160, 160), fields=("keys", "tokens:all"))
    files = [path for path in out.rglob("*") if path.is_file() and path.parent.name != "log"]
    arrays = 12 * 4 * (100 * 64 + 6 * 101 * 64)
    assert len(files) <= (2 + 1) * 2 + 10
    assert sum(path.stat().st_size for path in files) <= 1.01 * arrays
