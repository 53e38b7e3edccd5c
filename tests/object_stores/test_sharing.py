"""push to S3 and pull from there: what is sent, what a stopped push shows, two at once, and no rights."""

import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from builders.small_dataset import write_dataset
from builders.small_runs import index, toy
from builders.toy import ToyConfig
from faults.crash import in_child
from maskmill.cli.main import main
from maskmill.manifests.errors import MissingArtifact
from maskmill.manifests.files.place import Place, place
from maskmill.manifests.published.versions import latest
from maskmill.pipeline.running.options import RunOptions
from maskmill.pipeline.sharing import sharing
from maskmill.pipeline.sharing.sharing import pull, push
from object_stores.buckets import Bucket, tree_of
from object_stores.requests import READS, WRITES, free_requests, watched


def test_an_artifact_goes_to_s3_and_comes_back(bucket: Bucket, toys: str, tmp_path: Path) -> None:
    sent = push(toys, bucket.url("shared"))
    assert sorted(name.split("/")[1] for name in bucket.names("shared")) == sorted(
        ["files"] * sent.moved_files + ["versions", "latest"]
    )
    pull(bucket.url("shared"), str(tmp_path / "pulled"))
    assert tree_of(place(tmp_path / "pulled")) == bucket.tree("toys")


def test_what_is_there_is_not_sent_again(bucket: Bucket, toys: str) -> None:
    push(toys, bucket.url("shared"))
    requests: list[str] = []
    with watched(requests.append):
        assert push(toys, bucket.url("shared")).moved_bytes == 0
    assert set(requests) <= READS


def killed_at(number: int, source: Place, url: str, threads: int) -> Callable[[], int]:
    """A push whose process ends before its write request of that number; what there is to write is in their order where
    one thread does it."""

    def count(name: str) -> None:
        nonlocal number
        number -= name in WRITES
        if name in WRITES and number == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def child() -> int:
        with pytest.MonkeyPatch.context() as patch, watched(count):
            patch.setattr(sharing, "THREADS", threads)
            return push(source.uri, url).moved_files

    return child


def test_a_push_killed_at_every_write_request_shows_nothing_and_goes_on(
    bucket: Bucket, local: Place, tmp_path: Path
) -> None:
    index(write_dataset(tmp_path / "pictures"), local, RunOptions())
    wanted = tree_of(local)
    number, num_files = 0, len(set(wanted.values()))
    for number in range(1, 100):
        url = bucket.url(f"shared-{number}")
        ended = in_child(killed_at(number, local, url, threads=1))
        if ended.signal is None:
            assert ended.code == 0, ended.stderr
            break
        assert latest(place(url)).number == 0
        there = bucket.names(f"shared-{number}/files")
        assert len(there) == min(number - 1, num_files)
        assert push(local.uri, url).moved_files == num_files - len(there)
    assert number == num_files + 3  # the list, the pointer, and one that lived
    pull(bucket.url("shared-1"), str(tmp_path / "pulled"))
    assert tree_of(place(tmp_path / "pulled")) == wanted


def test_a_push_of_several_files_at_once_that_is_killed_goes_on(bucket: Bucket, local: Place, tmp_path: Path) -> None:
    index(write_dataset(tmp_path / "pictures"), local)
    wanted = tree_of(local)
    ended = in_child(killed_at(4, local, bucket.url("shared"), threads=4))
    assert ended.signal == signal.SIGKILL
    with pytest.raises(MissingArtifact, match="version"):
        pull(bucket.url("shared"), str(tmp_path / "pulled"))
    there = bucket.names("shared/files")
    assert push(local.uri, bucket.url("shared")).moved_files == len(set(wanted.values())) - len(there)
    pull(bucket.url("shared"), str(tmp_path / "pulled"))
    assert tree_of(place(tmp_path / "pulled")) == wanted


def test_of_two_that_push_at_once_both_have_their_version(
    bucket: Bucket, toys: str, images: str, tmp_path: Path
) -> None:
    toy(images, bucket.url("others"), config=ToyConfig(word="longer"))
    with ThreadPoolExecutor(2) as pool:
        sent = list(pool.map(lambda uri: push(uri, bucket.url("shared")), [toys, bucket.url("others")]))
    assert latest(place(bucket.url("shared"))).version in {each.version for each in sent}
    assert len(bucket.names("shared/latest")) == 2
    for each, name in zip(sent, ("toys", "others"), strict=True):
        pull(f"{bucket.url('shared')}@{each.version}", str(tmp_path / name))
        assert tree_of(place(tmp_path / name)) == bucket.tree(name)


def test_a_url_without_rights(bucket: Bucket, local: Place, pictures: str, capsys: pytest.CaptureFixture[str]) -> None:
    index(pictures, local)
    push(local.uri, bucket.url("shared"))
    capsys.readouterr()
    with free_requests(bucket, 0):
        for arguments in (["push", local.uri, bucket.url("shared")], ["pull", bucket.url("shared"), f"{local}-2"]):
            assert main(arguments) == 7
            said = capsys.readouterr().err
            assert bucket.url("shared") in said
            assert said.count("\n") == 1


def test_a_bucket_that_nobody_made(toys: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["push", toys, "s3://nobody-made-it/shared"]) == 7
    assert capsys.readouterr().err.count("\n") == 1
    assert main(["pull", "s3://nobody-made-it/shared", "pulled"]) == 2
