"""Rows into shards and out of them: the same as Zarr itself writes and reads, and no damage believed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings, strategies as st
from zarr.codecs import BytesCodec, Crc32cCodec
from zarr.core.buffer import Buffer
from zarr.storage import MemoryStore

from maskmill.manifests.artifact import shards, store
from maskmill.manifests.artifact.fields import FILLS, Field
from maskmill.manifests.errors import CorruptArtifact
from maskmill.manifests.files import atomic
from maskmill.manifests.files.digests import FileDigest
from maskmill.manifests.files.place import Place, place
from zarr_oracle import read_slots

FIELDS = (
    Field(name="keys", kind="array", shape=(3, 4), dtype="float16"),
    Field(name="blocks", kind="array", shape=(3, 2, 5), dtype="float32", chunk=(1, 2, 5)),
    Field(name="scale", kind="array", shape=(), dtype="float32"),
    Field(name="small", kind="array", shape=(6,), dtype="int8"),
)


def written(at: Place, field: Field, unit_rows: int, num_rows: int) -> tuple[np.ndarray, FileDigest]:
    values = (np.random.default_rng(0).normal(size=(num_rows, *field.shape)) * 50).astype(field.dtype)
    data = store.encode_shard(field, unit_rows, values)
    atomic.write(at, f"{field.name}.zarr/zarr.json", store.metadata(field, unit_rows, num_rows))
    atomic.write(at, field.shard(0), data)
    return values, FileDigest.of(data)


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
@settings(max_examples=30)
@given(rows=st.lists(st.integers(0, 6), max_size=12))
def test_rows_in_any_order_are_those_that_zarr_reads(field: Field, rows: list[int]) -> None:
    at = place(f"memory://shards-{field.name}")
    values, digest = written(at, field, unit_rows=9, num_rows=7)
    read = shards.read_rows(at, field, 0, 9, digest, rows)
    np.testing.assert_array_equal(read, values[rows])
    assert read.dtype == field.dtype
    if rows:
        np.testing.assert_array_equal(read, read_slots(at, field, rows))


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
@pytest.mark.parametrize(("unit_rows", "num_rows"), [(1, 1), (9, 9), (9, 7), (64, 3), (100, 70)])
def test_a_shard_holds_the_bytes_that_zarr_writes(field: Field, unit_rows: int, num_rows: int) -> None:
    """So that it does not matter to a digest which of the two has written it."""
    values = (np.random.default_rng(0).normal(size=(num_rows, *field.shape)) * 50).astype(field.dtype)
    values[0] = 0  # stored like any other
    files: dict[str, Buffer] = {}
    array: Any = zarr.create_array(
        MemoryStore(files),
        shape=(unit_rows, *field.shape),
        shards=(unit_rows, *field.shape),
        chunks=(1, *(field.chunk or field.shape)),
        dtype=field.dtype,
        serializer=BytesCodec(),
        compressors=[Crc32cCodec()],
        filters=[],
        fill_value=FILLS[field.dtype],
        config={"write_empty_chunks": True},
    )
    array[:num_rows] = values
    (name,) = [name for name in files if name.startswith("c/")]
    assert store.encode_shard(field, unit_rows, values) == files[name].to_bytes()


def test_a_slot_that_nothing_was_written_to_is_no_row(tmp_path: Path) -> None:
    field = FIELDS[0]
    _, digest = written(place(tmp_path), field, unit_rows=9, num_rows=7)
    with pytest.raises(CorruptArtifact, match="rows"):
        shards.read_rows(place(tmp_path), field, 0, 9, digest, [6, 7])


@pytest.mark.parametrize("byte", [0, 30, -1, -40])
def test_a_flipped_bit_is_found_in_chunks_and_index(tmp_path: Path, byte: int) -> None:
    """By the CRC alone: the file's sha256 was right when this process read it first."""
    field, at = FIELDS[0], place(tmp_path)
    _, digest = written(at, field, unit_rows=9, num_rows=9)
    path = tmp_path / field.shard(0)
    data = bytearray(path.read_bytes())
    data[byte] ^= 4
    path.write_bytes(data)
    with pytest.raises(CorruptArtifact, match="bytes"):
        shards.read_rows(at, field, 0, 9, digest, range(9))


@pytest.mark.parametrize("keep", [0, 10, -1])
def test_a_file_cut_short_is_found(tmp_path: Path, keep: int) -> None:
    field, at = FIELDS[1], place(tmp_path)
    _, digest = written(at, field, unit_rows=4, num_rows=4)
    path = tmp_path / field.shard(0)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CorruptArtifact, match="missing"):
        shards.read_rows(at, field, 0, 4, digest, [0])
    path.unlink()
    with pytest.raises(CorruptArtifact, match="missing"):
        shards.read_rows(at, field, 0, 4, digest, [0])


def test_an_index_of_another_layout_is_not_believed(tmp_path: Path) -> None:
    """Chunks of another length than the plan's, in a file whose own checksums are right."""
    other = Field(name="keys", kind="array", shape=(3, 5), dtype="float16")
    _, digest = written(place(tmp_path), other, unit_rows=4, num_rows=4)
    with pytest.raises(CorruptArtifact, match="chunks"):
        shards.read_rows(place(tmp_path), FIELDS[0], 0, 4, digest, [0])
