"""Everything that holds on a disk holds on S3: the same bytes, resuming, growing, locks, and faults in one sentence."""

import gc
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError  # type: ignore[import-untyped]

from builders.mistakes import assert_named
from builders.small_dataset import write_picture
from builders.small_runs import UNITS_OF_4, echo, index, toy
from faults.crash import in_child
from maskmill.cli.main import main
from maskmill.manifests.artifact.artifact import open_artifact
from maskmill.manifests.errors import ArtifactBusy, CorruptArtifact, EnvironmentFault, MissingArtifact
from maskmill.manifests.files import atomic, lock
from maskmill.manifests.files.place import Place, place
from maskmill.pipeline.answers.status import status
from maskmill.pipeline.answers.verify import verify
from maskmill.pipeline.running.run import finish_parts
from object_stores.buckets import Bucket, tree_of
from object_stores.requests import READS, WRITES, free_requests, watched


def without_where_inputs_lie(at: Place) -> tuple[dict[str, str], Any, Any]:
    """An artifact but for the one thing that must differ between two places: how it names its inputs, and so the
    digests of plan.json in artifact.json."""
    tree = tree_of(at)
    del tree["plan.json"], tree["artifact.json"]
    plan, summary = json.loads(at.read("plan.json")), json.loads(at.read("artifact.json"))
    del plan["sha256"], summary["sha256"], summary["plan_sha256"]
    for each in plan["inputs"]:
        del each["uri"], each["digest"]
    return tree, plan, summary


def test_an_index_on_s3_has_the_bytes_of_one_on_a_disk(made: Bucket, pictures: str, local: Place) -> None:
    index(pictures, local)
    assert made.tree("images") == tree_of(local)
    assert not [key for key in made.names() if key.endswith(".lock")]


def test_stages_on_s3_write_the_bytes_that_they_write_on_a_disk(
    bucket: Bucket, images: str, toys: str, local: Place
) -> None:
    toy(images, local.join("toys"))
    echo(toys, bucket.url("echo"))
    echo(local.join("toys"), local.join("echo"))
    for name in ("toys", "echo"):
        at = place(bucket.url(name))
        assert bucket.tree(name) == tree_of(at)
        assert without_where_inputs_lie(at) == without_where_inputs_lie(local.join(name))
    ours, theirs = (open_artifact(at) for at in (place(toys), local.join("toys")))
    assert ours.plan.inputs[0].digest == theirs.plan.inputs[0].digest == open_artifact(images).digest
    assert (ours.read("square", range(10)) == theirs.read("square", range(10))).all()


def test_a_finished_artifact_is_recognised_and_nothing_is_written(toys: str, images: str) -> None:
    requests: list[str] = []
    with watched(requests.append):
        outcome = toy(images, toys)
    assert (outcome.units_run, outcome.units_skipped) == (0, 3)
    assert [name for name in requests if name not in READS] == ["PutObject", "DeleteObject"]  # the lock


@pytest.mark.parametrize(
    "lost", ["square.zarr/c/1/0/0", "ledger/000/00001.json", "rows.parquet", "square.zarr/zarr.json"]
)
def test_what_is_lost_is_made_again(bucket: Bucket, toys: str, images: str, lost: str) -> None:
    before = bucket.tree("toys")
    bucket.delete(f"toys/{lost}")
    outcome = toy(images, toys)
    assert outcome.units_run == (1 if "/0" in lost else 0)
    assert bucket.tree("toys") == before


def test_rows_are_added_as_on_a_disk(made: Bucket, bucket: Bucket, local: Place, tmp_path: Path) -> None:
    made.copy("pictures", bucket)
    pictures, images, both = bucket.url("pictures"), bucket.url("images"), (place(bucket.url("")), local)
    for at in both:
        index(pictures, at.join("images"))
        toy(images, at.join("toys"))
    write_picture(tmp_path / "one more.png", 99)
    bucket.put("pictures/cat/one more.png", (tmp_path / "one more.png").read_bytes())
    bucket.delete("pictures/dog/3.png")
    for at in both:
        index(pictures, at.join("images"), replace(UNITS_OF_4, update=True))
        assert toy(images, at.join("toys")).units_run == 2  # the one with the lost picture, the one with the new
    assert bucket.tree("images") == tree_of(local.join("images"))
    assert without_where_inputs_lie(place(bucket.url("toys"))) == without_where_inputs_lie(local.join("toys"))


def test_status_and_verify_only_read(bucket: Bucket, toys: str) -> None:
    requests: list[str] = []
    with watched(requests.append):
        assert status(toys).state == "finished"
        assert verify(toys).exit_code == 0
    assert set(requests) == READS
    bucket.delete("toys/artifact.json")
    assert status(toys).state == "unfinished"
    bucket.put("toys/.lock", b"{}")
    assert status(toys).state == "running"


def test_a_flipped_bit_is_found_and_refused(bucket: Bucket, toys: str) -> None:
    shard = bytearray(bucket.get("toys/square.zarr/c/1/0/0"))
    shard[7] ^= 1
    bucket.put("toys/square.zarr/c/1/0/0", bytes(shard))
    assert verify(toys).exit_code == 4
    with pytest.raises(CorruptArtifact, match="c/1/0/0"):
        open_artifact(toys).read("square", [4])


def test_parts_on_s3_are_finished_there(bucket: Bucket, toys: str, images: str) -> None:
    for part in (1, 2):
        toy(images, bucket.url("parts"), replace(UNITS_OF_4, part=(part, 2)))
    assert "parts/artifact.json" not in bucket.names()
    finish_parts(bucket.url("parts"), UNITS_OF_4)
    assert bucket.tree("parts") == bucket.tree("toys")


def test_dask_workers_write_to_s3(bucket: Bucket, toys: str, images: str) -> None:
    toy(images, bucket.url("by-workers"), replace(UNITS_OF_4, workers=2))
    assert bucket.tree("by-workers") == bucket.tree("toys")


def test_folder_objects_of_a_web_console_are_no_files(bucket: Bucket, images: str, toys: str) -> None:
    bucket.put("new/", b"")
    toy(images, bucket.url("new"))
    bucket.put("new/ledger/", b"")
    assert verify(bucket.url("new")).strangers == ()
    bucket.delete("new/")
    bucket.delete("new/ledger/")
    assert bucket.tree("new") == bucket.tree("toys")


# ---- locks


def test_a_second_run_is_told_who_holds_the_lock(
    bucket: Bucket, pictures: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = bucket.url("images")
    with lock.hold_lock(place(out)):
        assert main(["index", "folder", pictures, "--out", out]) == 75
        told = capsys.readouterr().err
        assert f"process {os.getpid()}" in told
        assert "--break-lock" in told
        assert told.count("\n") == 1
        assert bucket.names().count("images/.lock") == 1
        assert main(["index", "folder", pictures, "--out", out, "--break-lock"]) == 0
    assert main(["index", "folder", pictures, "--out", out]) == 0


def test_of_many_that_ask_at_once_one_gets_the_lock(bucket: Bucket) -> None:
    from concurrent.futures import ThreadPoolExecutor

    at = place(bucket.url("a"))
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda number: atomic.create(at, lock.LOCK, b"%d" % number), range(8)))
    assert won.count(True) == 1
    assert at.read(lock.LOCK) == b"%d" % won.index(True)


def test_who_lost_the_lock_leaves_it_to_the_new_holder(bucket: Bucket) -> None:
    at = place(bucket.url("a"))
    with lock.hold_lock(at):
        first = bucket.get("a/.lock")
        with lock.hold_lock(at, break_lock=True):
            assert bucket.get("a/.lock") != first
            second = bucket.get("a/.lock")
        with lock.hold_lock(at):
            pass
        bucket.put("a/.lock", second)
    assert bucket.get("a/.lock") == second


def test_a_put_whose_answer_was_lost_still_takes_the_lock(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    at, create = place(bucket.url("a")), atomic.create

    def create_twice(*arguments: Any) -> bool:
        create(*arguments)
        return create(*arguments)

    monkeypatch.setattr(atomic, "create", create_twice)
    with lock.hold_lock(at):
        assert lock.is_held(at)
    assert not lock.is_held(at)


# ---- whole objects or none


@pytest.mark.parametrize("size", [0, 10, 51 * 2**20], ids=["empty", "one part", "two parts"])
def test_a_write_that_fails_publishes_nothing(bucket: Bucket, size: int) -> None:
    at = place(bucket.url("a"))

    def fail(data: bytes) -> None:
        with atomic.replacing(at, "x") as stream:
            stream.write(data)
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        fail(b"b" * size)
    gc.collect()
    assert (bucket.names(), bucket.uploads()) == ([], [])
    with atomic.replacing(at, "x") as stream:
        stream.write(b"a" * size)
        assert not at.exists("x")
    with pytest.raises(RuntimeError, match="half way"):
        fail(b"b" * size)
    gc.collect()
    assert bucket.get("a/x") == b"a" * size
    assert bucket.uploads() == []


def test_a_process_killed_inside_a_write_leaves_no_half_object(bucket: Bucket) -> None:
    def die() -> None:
        with atomic.replacing(place(bucket.url("a")), "x") as stream:
            stream.write(b"x" * 51 * 2**20)
            os.kill(os.getpid(), signal.SIGKILL)

    assert in_child(die).signal == signal.SIGKILL
    assert bucket.uploads() == ["a/x"]  # it had begun
    assert bucket.names() == []


@pytest.mark.parametrize(
    ("moment", "unit_rows"),
    [
        ("before", 10),
        pytest.param("before", 4, marks=pytest.mark.slow),
        pytest.param("after", 4, marks=pytest.mark.slow),
    ],
)
def test_killed_at_every_write_request_a_run_resumes_to_the_same_bytes(
    bucket: Bucket, images: str, moment: str, unit_rows: int
) -> None:
    options, units = replace(UNITS_OF_4, unit_rows=unit_rows), -(-10 // unit_rows)

    def killed_at(number: int, out: str) -> Callable[[], int]:
        def count(name: str) -> None:
            nonlocal number
            number -= name in WRITES
            if name in WRITES and number == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        def child() -> int:
            with watched(*(count, lambda name: None) if moment == "before" else (lambda name: None, count)):
                return toy(images, out, options).units_run

        return child

    toy(images, bucket.url("toys"), options)
    wanted = bucket.tree("toys")
    number, ended = 0, None
    for number in range(1, 100):
        out = f"killed-{number}"
        ended = in_child(killed_at(number, bucket.url(out)))
        if ended.signal is None:
            break
        toy(images, bucket.url(out), replace(options, break_lock=True))
        assert bucket.tree(out) == wanted, number
    assert ended is not None
    assert (ended.code, ended.answer) == (0, units), ended.stderr
    # lock, listing in 3, plan, zarr.json, a shard and a record for each unit, log, rows in 3, artifact.json, lock
    assert number == 12 + 2 * units + 1


# ---- what others write is seen, and what is wrong is told


def size(at: Place, name: str) -> int | None:
    found = at.stat(name)
    return found.size if found else None


def test_what_another_process_writes_is_seen_at_once(bucket: Bucket) -> None:
    at = place(bucket.url("a"))
    bucket.put("a/b/1", b"one")
    assert list(at.names()) == ["b/1"]
    assert at.stat("b/2") is None
    bucket.put("a/b/2", b"two")
    bucket.put("a/b/1", b"other")
    assert list(at.names()) == ["b/1", "b/2"]
    assert (at.read("b/1"), at.read("b/2")) == (b"other", b"two")
    assert size(at, "b/1") == 5
    assert at.open("b/1").read() == b"other"
    bucket.delete("a/b/1")
    assert (list(at.names()), at.exists("b/1")) == (["b/2"], False)


def test_names_are_those_below_a_directory_and_not_those_that_begin_alike(bucket: Bucket) -> None:
    for key in ("a/x", "a2/x", "a/b/x", "a/b-2/x", "a/ä #%41?[x]*/ .png"):
        bucket.put(key, key.encode())
    at = place(bucket.url("a"))
    assert list(at.names()) == ["b-2/x", "b/x", "x", "ä #%41?[x]*/ .png"]
    assert list(at.names("b")) == ["b/x"]
    assert list(at.names("nothing")) == []
    for name in at.names():
        assert at.read(name) == f"a/{name}".encode()
        assert size(at, name) == len(at.read(name))


def test_a_missing_object_is_file_not_found(bucket: Bucket) -> None:
    at = place(bucket.url("a"))
    for read in (at.read, at.open, lambda name: at.read_range(name, 0, 1)):
        with pytest.raises(FileNotFoundError):
            read("x")
    with pytest.raises(MissingArtifact):
        open_artifact(at)


def test_a_range_ends_with_its_object(bucket: Bucket) -> None:
    bucket.put("a/x", b"0123")
    at = place(bucket.url("a"))
    assert [at.read_range("x", *span) for span in [(1, 3), (2, 9), (4, 6), (7, 9)]] == [b"12", b"23", b"", b""]


def test_a_forked_child_reads_and_writes_with_a_client_of_its_own(bucket: Bucket) -> None:
    at = place(bucket.url("a"))
    atomic.write(at, "x", b"parent")

    def child() -> str:
        found = at.read("x").decode()
        atomic.write(at, "x", b"child")
        return found

    assert in_child(child).answer == "parent"
    assert at.read("x") == b"child"


def refusal(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, float]:
    began = time.monotonic()
    code = main(arguments)
    return code, capsys.readouterr().err, time.monotonic() - began


def test_a_bucket_that_does_not_exist(server: str, pictures: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, told, seconds = refusal(["index", "folder", pictures, "--out", "s3://nobody-made-it/images"], capsys)
    assert code == 7
    assert_named(told, "s3://nobody-made-it/images bucket")
    assert (told.count("\n"), seconds < 5) == (1, True)
    code, told, _ = refusal(["status", "s3://nobody-made-it/images"], capsys)
    assert (code, told.count("\n")) == (2, 1)


def test_a_server_that_does_not_answer(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = """
        import sys
        from maskmill.cli.main import main
        sys.exit(main(sys.argv[1:]))
    """
    for arguments in (["status", "s3://b/images"], ["index", "folder", "s3://b/x", "--out", "s3://b/images"]):
        began = time.monotonic()
        ran = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script), *arguments],
            env={**os.environ, "AWS_ENDPOINT_URL": "http://127.0.0.1:9"},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert ran.returncode == 7, ran.stderr
        assert ran.stderr.count("\n") == 1, ran.stderr
        assert "127.0.0.1:9" in ran.stderr
        assert time.monotonic() - began < 20


def test_credentials_without_rights(bucket: Bucket, pictures: str) -> None:
    out = place(bucket.url("images"))
    with free_requests(bucket, 0):
        for what in (
            lambda: out.read("plan.json"),
            lambda: out.exists("plan.json"),
            lambda: list(out.names()),
            lambda: atomic.write(out, "x", b""),
            lambda: atomic.create(out, "x", b""),
            lambda: index(pictures, out),
        ):
            with pytest.raises(EnvironmentFault) as refused:
                what()
            assert str(out) in str(refused.value)
    assert index(pictures, out).finished


def test_a_run_whose_server_goes_away_ends_with_7_and_resumes(bucket: Bucket, images: str, toys: str) -> None:
    puts = 0

    def go_away(name: str) -> None:
        nonlocal puts
        puts += name == "PutObject"
        if puts > 6:  # the second unit has its shard and no record
            raise EndpointConnectionError(endpoint_url=bucket.endpoint)

    def child() -> int:
        with watched(go_away), pytest.raises(EnvironmentFault, match="connect") as raised:
            toy(images, bucket.url("again"))
        return raised.value.exit_code

    assert in_child(child).answer == 7
    assert "again/square.zarr/c/1/0/0" in bucket.names()
    with pytest.raises(ArtifactBusy):
        toy(images, bucket.url("again"))
    assert toy(images, bucket.url("again"), replace(UNITS_OF_4, break_lock=True)).units_run == 2
    assert bucket.tree("again") == bucket.tree("toys")


@pytest.mark.slow
def test_a_server_that_accepts_and_never_answers(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")

        def child() -> float:
            began = time.monotonic()
            with pytest.raises(EnvironmentFault, match="timeout"):
                place("s3://nobody/x").read("y")
            return time.monotonic() - began

        assert in_child(child).answer < 60
