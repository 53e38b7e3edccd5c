"""Bits flipped, files cut short or gone, bombs: found by `verify`, refused by readers, mended by the same command."""

import json
import os
import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from faults.cases import Subject, copied, files, read_everything, reading_code, removed, tree, verdict_code
from faults.crash import as_command, in_child
from faults.damage import assert_refused_in_little_memory, flip, resealed
from maskmill.manifests.artifact import ledger
from maskmill.manifests.artifact.plan import read_plan
from maskmill.manifests.errors import MaskmillError
from maskmill.manifests.files.digests import FileDigest
from maskmill.manifests.files.place import Place
from maskmill.pipeline.answers.verify import verify

FLIPS = 30
GIBIBYTE = 2**30


def places_to_flip(out: Path, number: int) -> Iterator[tuple[str, int]]:
    """Every file once, then any: a bit of each, the same at every run."""
    chance, names = random.Random(22), files(out)
    for name in [*names, *(chance.choice(names) for _ in range(number - len(names)))]:
        yield name, chance.randrange(8 * (out / name).stat().st_size)


def test_a_flipped_bit(subject: Subject, out: Path) -> None:
    """Row 22, fast: thirty bits, one in every file at least, each mended by the next run."""
    for name, bit in places_to_flip(subject.reference, FLIPS):
        copied(subject.reference, out)
        flip(out / name, bit)
        assert_found_and_mended(subject, out, name)
        removed(out)


@pytest.mark.slow
def test_three_hundred_flipped_bits(subject: Subject, out: Path) -> None:
    """Row 22: three hundred in every file. One child reads the copies of one file: it believes what it has checked, but
    only at the same place."""
    chance = random.Random(2200)
    for name in files(subject.reference):
        size = (subject.reference / name).stat().st_size
        bits = [chance.randrange(8 * size) for _ in range(300)]
        assert in_child(partial(codes_of_flipped, subject.reference, out, name, bits)).answer == [[4, 4]] * 300, name


def codes_of_flipped(reference: Path, out: Path, name: str, bits: list[int]) -> list[list[int]]:
    """The exit codes of verifying and reading, for each bit."""
    codes = []
    for number, bit in enumerate(bits):
        copy = copied(reference, out.with_name(f"{out.name}-{number}"))
        flip(copy / name, bit)
        codes.append(verified_and_read(copy))
        removed(copy)
    return codes


def verified_and_read(out: Path) -> list[int]:
    """The exit codes of both, in one process."""
    try:
        read_everything(out)
    except MaskmillError as error:
        return [verify(str(out)).exit_code, error.exit_code]
    return [verify(str(out)).exit_code, 0]


@pytest.mark.parametrize("cut", ["to nothing", "to half", "by one byte"])
def test_a_truncated_file(subject: Subject, out: Path, cut: str) -> None:
    """Row 23: each file in turn."""
    for name in files(subject.reference):
        copied(subject.reference, out)
        size = (out / name).stat().st_size
        os.truncate(out / name, {"to nothing": 0, "to half": size // 2, "by one byte": size - 1}[cut])
        assert_found_and_mended(subject, out, name)
        removed(out)


def test_a_deleted_file(subject: Subject, out: Path) -> None:
    """Row 24: each file in turn; nobody is given fill values meanwhile."""
    for name in files(subject.reference):
        copied(subject.reference, out)
        (out / name).unlink()
        refused = in_child(as_command(lambda: read_everything(out)))
        verdict = verdict_code(out)
        ended = subject.home.tried(out)
        if name == "plan.json":  # what it was is written nowhere else
            assert (refused.code, verdict, ended.code) == (2, 2, 2), (refused, verdict, ended)
            assert f"{out}" in refused.stderr
        elif name == "artifact.json":  # as if it were never finished
            assert (refused.code, verdict, ended.code) == (2, 2, 0), (refused, verdict, ended)
            assert f"{out}" in refused.stderr
        else:
            assert (refused.code, verdict, ended.code) == (4, 4, 0), (name, refused, verdict, ended)
            assert f"{out / name}" in refused.stderr
        if name != "plan.json":
            assert tree(out) == subject.tree, name
            assert reading_code(out) == 0
        removed(out)


def assert_found_and_mended(subject: Subject, out: Path, name: str) -> None:
    assert verdict_code(out) == 4, name
    assert reading_code(out) == 4, name
    if name == "plan.json":  # what was to be made is no longer known for sure: the user decides
        ended = subject.home.tried(out)
        assert ended.code == 4, ended
        assert f"{out / name}" in ended.stderr
    else:
        subject.home.made(out)
        assert tree(out) == subject.tree, name
        assert reading_code(out) == 0


def test_files_swapped_within_an_artifact(subject: Subject, out: Path) -> None:
    """A unit's file in the place of another's is not what its record says, whole as it is."""
    pairs = [
        (one, two)
        for one in files(subject.reference)
        for two in files(subject.reference)
        if one < two and Path(one).suffix == Path(two).suffix and subject.tree[one] != subject.tree[two]
    ]
    assert pairs
    for one, two in random.Random(26).sample(pairs, min(10, len(pairs))):
        copied(subject.reference, out)
        data = (out / one).read_bytes()
        (out / one).write_bytes((out / two).read_bytes())
        (out / two).write_bytes(data)
        assert verdict_code(out) == 4, (one, two)
        assert reading_code(out) == 4, (one, two)
        removed(out)


def test_stale_temporaries(subject: Subject, out: Path) -> None:
    """Row 25: no data to anybody, kept by parts because they may be a neighbour's, swept by the next run alone."""
    copied(subject.reference, out)
    directories = ["", *(name for name, digest in subject.tree.items() if not digest)]
    planted = [out / name / f"left.{number:032x}.tmp" for number, name in enumerate(directories)]
    for path in planted:
        path.write_bytes(b"half a file")
    assert verdict_code(out) == 0
    assert in_child(lambda: read_everything(out)).answer == in_child(lambda: read_everything(subject.reference)).answer
    assert subject.home.tried(out, part=(1, 2)).code == 0
    assert all(path.exists() for path in planted)
    assert subject.home.made(out)["run"] == 0
    assert tree(out) == subject.tree
    planted[0].write_bytes(b"half a file")
    assert in_child(as_command(lambda: subject.home.finish(out))).code == 0
    assert tree(out) == subject.tree


def test_temporaries_of_a_run_that_was_killed_at_once(subject: Subject, out: Path) -> None:
    """Nothing but temporaries in a directory: it is ours all the same."""
    (out / "listing").mkdir(parents=True)
    (out / "listing" / f"000-000.parquet.{0:032x}.tmp").write_bytes(b"half a file")
    subject.home.made(out)
    assert tree(out) == subject.tree


@pytest.fixture(scope="session")
def bomb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One gibibyte of zeros, compressed to some thirty kilobytes."""
    path = tmp_path_factory.mktemp("bomb") / "bomb.zst"
    zeros = bytes(2**20)
    with pa.OSFile(str(path), "wb") as file, pa.CompressedOutputStream(file, "zstd") as stream:
        for _ in range(GIBIBYTE // len(zeros)):
            stream.write(zeros)
    assert path.stat().st_size < 2**18
    return path


def shards(out: Path) -> list[str]:
    """The files that hold what a reader decompresses: of unit 0, and the row list."""
    record = json.loads((out / "ledger/000/00000.json").read_bytes())
    return [*record["files"], "rows.parquet"]


def test_a_compressed_bomb_for_a_file(subject: Subject, out: Path, bomb: Path) -> None:
    """Row 33: its digest is compared before a byte of it is decompressed."""
    for name in shards(subject.reference):
        copied(subject.reference, out)
        (out / name).write_bytes(bomb.read_bytes())
        assert_refused_in_little_memory(lambda: read_everything(out))
        assert verdict_code(out) == 4
        removed(out)


def test_a_bomb_that_is_vouched_for(subject: Subject, out: Path, bomb: Path) -> None:
    """Nor does an array's shard that its record vouches for fill the memory: it is larger than a shard can be."""
    arrays = [name for name in shards(subject.reference) if ".zarr/" in name]
    if not arrays:
        pytest.skip("has no arrays")
    copied(subject.reference, out)
    (out / arrays[0]).write_bytes(bomb.read_bytes())

    def vouch(record: dict[str, Any]) -> None:
        record["files"][arrays[0]] = FileDigest.of(bomb.read_bytes()).as_json()

    resealed(out / "ledger/000/00000.json", vouch)
    digest_ledger(out)
    assert_refused_in_little_memory(lambda: read_everything(out))


def test_metadata_of_a_huge_chunk(subject: Subject, out: Path) -> None:
    """Row 33: a zarr.json that artifact.json vouches for claims a chunk of a tebibyte, or a codec of its own."""
    arrays = [name for name in files(subject.reference) if name.endswith("zarr.json")]
    if not arrays:
        pytest.skip("has no arrays")

    def huge(metadata: dict[str, Any]) -> None:
        metadata["shape"] = [2**20, *metadata["shape"][1:-1], 2**18]
        metadata["chunk_grid"]["configuration"]["chunk_shape"] = metadata["shape"]

    def compressed(metadata: dict[str, Any]) -> None:
        metadata["codecs"].append({"name": "zstd", "configuration": {"level": 0, "checksum": False}})

    def long(metadata: dict[str, Any]) -> None:
        metadata["shape"] = [2**40, *metadata["shape"][1:]]

    for name in arrays:
        for change in (huge, compressed, long):
            copied(subject.reference, out)
            metadata = json.loads((out / name).read_bytes())
            change(metadata)
            (out / name).write_text(json.dumps(metadata))
            digest = FileDigest.of((out / name).read_bytes()).as_json()
            resealed(out / "artifact.json", partial(vouch_for, name, digest))
            assert_refused_in_little_memory(lambda: read_everything(out))
            assert verdict_code(out) == 4
            removed(out)


def vouch_for(name: str, digest: dict[str, Any], summary: dict[str, Any]) -> None:
    summary["files"][name] = digest


def digest_ledger(out: Path) -> None:
    """Lets artifact.json vouch for the records as they are."""
    at = Place(str(out))
    plan = read_plan(at)
    (group,) = plan.groups
    digest = ledger.ledger_digest(at, group.ledger, plan.layout(group).num_units)
    resealed(out / "artifact.json", lambda summary: summary["ledgers"].update({group.ledger: digest}))
