"""`doctor` finds what is wrong by trying it; each fault here is put in, and must be told."""

import errno
import fcntl
import json
import shutil
import sys
from importlib import metadata
from types import SimpleNamespace

import fsspec
import pytest
import torch

from maskmill.cli.main import main
from maskmill.manifests.artifact import shards
from maskmill.manifests.files.place import place
from maskmill.pipeline.answers.doctor import Check, CheckStatus, examine, is_older, parse_requirement


def found(where) -> dict[str, Check]:
    return {check.name: check for check in examine(place(where))}


def test_a_sound_machine_passes_and_nothing_is_left(tmp_path):
    checks = found(tmp_path)
    assert [check for check in checks.values() if check.status == CheckStatus.FAILED] == []
    assert {"python", "maskmill", "torch", "zarr", "crf", "cuda", "threads", "memory"} <= set(checks)
    assert {"disk", "fsync", "lock", "shard"} <= set(checks)
    assert checks["zarr"].found == metadata.version("zarr")
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_is_not_there_yet_is_not_made(tmp_path):
    assert found(tmp_path / "new" / "run")["shard"].status == CheckStatus.OK
    assert list(tmp_path.iterdir()) == []


def test_an_object_store_is_tried_and_left_clean():
    checks = found("memory://doctor-tries-here")
    assert (checks["lock"].status, checks["shard"].status) == (CheckStatus.OK, CheckStatus.OK)
    assert fsspec.filesystem("memory").find("/doctor-tries-here") == []


def test_a_directory_that_cannot_be_written_fails(tmp_path):
    (tmp_path / "file").touch()
    check = found(tmp_path / "file")["directory"]
    assert check.status == CheckStatus.FAILED
    assert str(tmp_path / "file") in check.found


def test_a_kernel_file_system_fails():
    """Not even root may make a directory there."""
    assert found("/proc/maskmill")["directory"].status == CheckStatus.FAILED


def test_a_lock_that_excludes_nobody_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", lambda descriptor, operation: None)
    assert found(tmp_path)["lock"].status == CheckStatus.FAILED
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_without_locks_fails(tmp_path, monkeypatch):
    def refuse(descriptor, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    check = found(tmp_path)["lock"]
    assert check.status == CheckStatus.FAILED
    assert "No locks available" in check.found


def test_shards_that_read_back_differently_fail(tmp_path, monkeypatch):
    read = shards.read_rows
    monkeypatch.setattr(shards, "read_rows", lambda *arguments: read(*arguments) + 1)
    check = found(tmp_path)["shard"]
    assert check.status == CheckStatus.FAILED
    assert "reads back differently" in check.found


def test_a_nearly_full_disk_is_a_warning(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10**9))
    check = found(tmp_path)["disk"]
    assert (check.status, check.found) == (CheckStatus.WARNING, f"1.0 GB free in {tmp_path}")


def lacking(monkeypatch, name: str, version: str | None = None) -> None:
    """Makes a distribution vanish, or have another version."""
    real = metadata.version

    def pretend(asked: str) -> str:
        if asked != name:
            return real(asked)
        if version is None:
            raise metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(metadata, "version", pretend)


def test_a_missing_library_fails(tmp_path, monkeypatch):
    lacking(monkeypatch, "zarr")
    check = found(tmp_path)["zarr"]
    assert (check.status, check.found, check.remedy) == (
        CheckStatus.FAILED,
        "not installed",
        "pip install 'zarr>=3.1.3'",
    )


def test_a_library_that_is_too_old_fails(tmp_path, monkeypatch):
    lacking(monkeypatch, "zarr", "3.1.2")
    check = found(tmp_path)["zarr"]
    assert (check.status, check.found) == (CheckStatus.FAILED, "3.1.2, 3.1.3 or newer is needed")


def test_a_library_that_does_not_load_fails_and_ends_the_search(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    checks = found(tmp_path)
    assert checks["Pillow"].status == CheckStatus.FAILED
    assert "cannot be loaded" in checks["Pillow"].found
    assert "shard" not in checks


def test_an_extra_that_does_not_load_fails_nothing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    assert found(tmp_path)["s3fs"].status == CheckStatus.WARNING


def test_a_missing_extra_is_told_and_fails_nothing(tmp_path, monkeypatch):
    lacking(monkeypatch, "s3fs")
    check = found(tmp_path)["s3fs"]
    assert check.status == CheckStatus.OK
    assert "pip install 'maskmill[s3]'" in check.found


@pytest.mark.parametrize(
    ("python", "compiler", "told"),
    [
        ((3, 13, 0), "/usr/bin/c++", "Python 3.13"),
        ((3, 11, 7), None, "compiler"),
        ((3, 11, 7), "/usr/bin/c++", "not installed"),
    ],
)
def test_why_the_crf_is_missing(python, compiler, told, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pydensecrf.densecrf", None)
    monkeypatch.setattr(shutil, "which", lambda name: compiler)
    monkeypatch.setattr("maskmill.pipeline.answers.doctor.PYTHON", python)
    check = found(tmp_path)["crf"]
    assert check.status == CheckStatus.WARNING
    assert told in check.found
    assert check.remedy


@pytest.mark.parametrize(
    ("made_for", "status"), [(torch.__version__.partition("+")[0], CheckStatus.OK), ("2.3.1", CheckStatus.FAILED)]
)
def test_a_torchvision_made_for_another_torch_fails(made_for, status, tmp_path, monkeypatch):
    real = metadata.requires
    lines = ["numpy", f"torch=={made_for}", "pillow!=8.3.*,>=5.3.0"]
    monkeypatch.setattr(metadata, "requires", lambda name: lines if name == "torchvision" else real(name))
    assert found(tmp_path)["torch + torchvision"].status == status


def test_a_variable_that_starves_torch_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("dask.system.CPU_COUNT", 8)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert "OMP_NUM_THREADS" in found(tmp_path)["threads"].remedy


def test_more_threads_than_cores_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr("dask.system.CPU_COUNT", 2)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    assert found(tmp_path)["threads"].remedy == "set OMP_NUM_THREADS=2"


@pytest.mark.parametrize(
    ("older", "wanted", "expected"),
    [
        ("3.1.2", "3.1.3", True),
        ("3.1.3", "3.1.3", False),
        ("3.1.10", "3.1.3", False),
        ("2.9.1+cpu", "2.10", True),
        ("2.10.0+cu130", "2.10", False),
        ("2.10", "2.10.0", False),
        ("8.4rc1", "8.4", False),
        ("2026.8.0", "2025.1", False),
    ],
)
def test_versions_are_compared_by_number(older, wanted, expected):
    assert is_older(older, wanted) is expected


@pytest.mark.parametrize(
    ("line", "parsed"),
    [
        ("zarr>=3.1.3", ("zarr", "3.1.3", "")),
        ("dask-jobqueue>=0.9; extra == 'cluster'", ("dask-jobqueue", "0.9", "cluster")),
        ('moto[server]>=5.1; extra == "dev"', ("moto", "5.1", "dev")),
        ('pydensecrf2>=1.1; python_version < "3.13" and extra == "crf"', ("pydensecrf2", "1.1", "crf")),
    ],
)
def test_requirements_are_read(line, parsed):
    assert parse_requirement(line) == parsed


def test_every_line_of_our_own_metadata_is_read():
    """None but ours is ever parsed, and each has a least version."""
    for line in metadata.requires("maskmill") or []:
        name, wanted, _ = parse_requirement(line)
        assert name
        assert wanted


def test_the_command_prints_a_table(tmp_path, capsys, monkeypatch):
    lacking(monkeypatch, "gcsfs")
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["doctor", "--dir", str(tmp_path)]) == 0
    output = capsys.readouterr().out
    assert "maskmill[gcs]" in output  # square brackets are no markup
    assert "failed" not in output.splitlines()[-1]


def test_the_command_prints_json(tmp_path, capsys):
    assert main(["doctor", "--json", "--dir", str(tmp_path)]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is True
    assert {tuple(check) for check in report["checks"]} == {("name", "status", "found", "remedy")}
    assert {check["status"] for check in report["checks"]} <= {"ok", "warning"}


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_the_command_exits_7_when_something_needed_fails(options, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main(["doctor", "--dir", str(tmp_path / "file"), *options]) == 7
    output = capsys.readouterr().out
    assert json.loads(output)["ok"] is False if options else output.splitlines()[-1] == "failed: directory"


def test_a_backbone_is_described_with_the_defaults_for_it(capsys):
    assert main(["doctor", "--backbone", "vit_small_patch14_dinov2", "--json"]) == 0
    lines = json.loads(capsys.readouterr().out)
    assert (lines["family"], lines["feature"], lines["side"], lines["positions"]) == (
        "dinov2",
        "keys",
        "corners",
        "dino",
    )
    assert lines["image-size"].endswith("steps of 14")
    assert main(["doctor", "--backbone", "builtin"]) == 0  # its weights are at hand
    assert "its model card" in capsys.readouterr().out  # its keys have no bias


def test_a_weak_or_unmeasured_family_says_what_to_do(capsys):
    assert main(["doctor", "--backbone", "vit_base_patch16_224.mae"]) == 0
    text = capsys.readouterr().out
    assert "hardly cluster" in text
    assert "evaluate masks" in text


def test_an_unknown_backbone_or_weights_alone_are_refused(capsys):
    assert main(["doctor", "--backbone", "vit_smal_patch16_224"]) == 2
    assert "vit_small_patch16_224" in capsys.readouterr().err
    assert main(["doctor", "--weights", "x.pth"]) == 2
    assert "--backbone" in capsys.readouterr().err
