"""The only user of Zarr: encodes fields of fixed shape, one shard per unit, with a checksum in every chunk.

Letters: R rows of a unit, then the shape of one row.

A shard is encoded in memory and written by atomic.py like every other file, so its sha256 is known before the write
and no shard has two writers. Floats are not compressed: compression saves 8 % on tokens and costs a third of the speed.
"""

import json
from typing import Any

import numpy as np
import zarr
from jaxtyping import Shaped
from zarr.codecs import BytesCodec, Crc32cCodec
from zarr.core.buffer import Buffer
from zarr.storage import MemoryStore

from ..errors import CorruptArtifact, EnvironmentFault
from ..files import atomic
from ..files.digests import FileDigest
from ..files.place import Place
from . import shards
from .fields import FILLS, Field

METADATA = "zarr.json"
_ESSENTIALS = ("zarr_format", "node_type", "shape", "data_type", "chunk_grid", "chunk_key_encoding", "codecs")


def metadata(field: Field, unit_rows: int, num_slots: int) -> bytes:
    """The zarr.json of a field."""
    return _in_memory(field, unit_rows, num_slots)[1][METADATA].to_bytes()


def encode_shard(field: Field, unit_rows: int, values_R: Shaped[np.ndarray, "R ..."]) -> bytes:
    """The bytes of one unit's shard, independent of the number of units."""
    if values_R.shape[1:] != field.shape or values_R.dtype != field.dtype or len(values_R) > unit_rows:
        raise ValueError(
            f"field {field.name} takes {field.dtype} {field.shape} in at most {unit_rows} rows: "
            f"found {values_R.dtype} {values_R.shape}"
        )
    if shards.chunks_per_row(field) == 1:
        return shards.encode_rows(field, unit_rows, values_R)
    array, files = _in_memory(field, unit_rows, unit_rows)
    array[: len(values_R)] = values_R
    return files[field.shard(0).partition("/")[2]].to_bytes()


def metadata_fault(data: bytes, field: Field, unit_rows: int, num_slots: int) -> str | None:
    """How stored metadata differs from the plan; None if it does not.

    A crafted zarr.json could name a codec or a chunk size that fills the memory, so it must equal what we would write.
    """
    expected = json.loads(metadata(field, unit_rows, num_slots))
    try:
        stored = json.loads(data)
        name = next((name for name in _ESSENTIALS if stored.get(name) != expected[name]), None)
    except (ValueError, AttributeError, RecursionError):
        return "zarr.json cannot be read"
    return f"zarr.json has {name} {stored.get(name)}, expected {expected[name]}" if name else None


def max_shard_bytes(field: Field, unit_rows: int) -> int:
    """The size of a full shard: chunks and index, each with its checksum."""
    chunks = unit_rows * shards.chunks_per_row(field)
    return unit_rows * field.bytes_per_row + chunks * 4 + chunks * 16 + 4


def check_shard_writes(place: Place) -> str | None:
    """Writes a small shard to a place and reads it back; None, or one sentence on what went wrong."""
    field = Field(name="probe", kind="array", shape=(2, 3), chunk=(1, 3))  # written by Zarr, read by shards.py
    values_RAB = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    values_RAB[1] = 0  # an all-zero row must be stored too
    data = encode_shard(field, 2, values_RAB)
    try:
        atomic.write(place, "probe.zarr/zarr.json", metadata(field, 2, 2))
        atomic.write(place, field.shard(0), data)
        same = np.array_equal(shards.read_rows(place, field, 0, 2, FileDigest.of(data), [0, 1]), values_RAB)
    except (EnvironmentFault, CorruptArtifact) as error:
        return str(error)
    finally:
        for name in ("probe.zarr/zarr.json", field.shard(0)):
            atomic.remove(place, name)
    return None if same else f"a shard written in {place} reads back differently; do not use this disk"


def _in_memory(field: Field, unit_rows: int, num_slots: int) -> "tuple[zarr.Array[Any], dict[str, Buffer]]":
    files: dict[str, Buffer] = {}
    array = zarr.create_array(
        MemoryStore(files),
        shape=(num_slots, *field.shape),
        shards=(unit_rows, *field.shape),
        chunks=(1, *(field.chunk or field.shape)),
        dtype=field.dtype,
        serializer=BytesCodec(),
        compressors=[Crc32cCodec()],
        filters=[],
        fill_value=FILLS[field.dtype],
        config={"write_empty_chunks": True},  # store all-zero rows too
    )
    return array, files
