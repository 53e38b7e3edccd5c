"""The one opener of Zarr: fields of fixed shape, one shard per unit, checksums in every chunk.

Letters: R rows of a unit, then the shape of one row.

A shard is encoded in memory and written by atomic.py like every other file, so its sha256 is known before it lands and
no two writers ever meet in one shard. Floats are stored as they are: compression gains 8 % on tokens and costs a third
of the speed. Zarr by itself reads a missing chunk as the fill value; here it is an error.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

import numpy as np
import zarr
from jaxtyping import Shaped
from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, Store
from zarr.codecs import BytesCodec, Crc32cCodec
from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype
from zarr.storage import MemoryStore

from ..errors import CorruptArtifact, EnvironmentFault
from ..files.place import Place
from . import shards
from .fields import FILLS, Field

# With this unset an all-zero row is not stored at all, and the setting does not travel with the array.
zarr.config.set({"array.write_empty_chunks": True})

METADATA = "zarr.json"
_ESSENTIALS = ("zarr_format", "node_type", "shape", "data_type", "chunk_grid", "chunk_key_encoding", "codecs")


def metadata(field: Field, unit_rows: int, num_slots: int) -> bytes:
    """The zarr.json of a field."""
    return _in_memory(field, unit_rows, num_slots)[1][METADATA].to_bytes()


def encode_shard(field: Field, unit_rows: int, values_R: Shaped[np.ndarray, "R ..."]) -> bytes:
    """The bytes of one unit's shard. They do not depend on how many units there are."""
    if values_R.shape[1:] != field.shape or values_R.dtype != field.dtype or len(values_R) > unit_rows:
        raise ValueError(
            f"field {field.name} takes {field.dtype} {field.shape} in at most {unit_rows} rows, "
            f"not {values_R.dtype} {values_R.shape}"
        )
    if shards.chunks_per_row(field) == 1:
        return shards.encode_rows(field, unit_rows, values_R)
    array, files = _in_memory(field, unit_rows, unit_rows)
    array[: len(values_R)] = values_R
    return files[field.shard(0).partition("/")[2]].to_bytes()


def metadata_fault(data: bytes, field: Field, unit_rows: int, num_slots: int) -> str | None:
    """How stored metadata differs from what the plan says, before a byte of it is believed; None if it does not.

    A crafted zarr.json could name a codec or a chunk size that fills the memory, so it must say what we would write.
    """
    wanted = json.loads(metadata(field, unit_rows, num_slots))
    try:
        found = json.loads(data)
        name = next((name for name in _ESSENTIALS if found.get(name) != wanted[name]), None)
    except (ValueError, AttributeError, RecursionError):
        return "zarr.json cannot be read"
    return f"zarr.json has {name} {found.get(name)} where the plan has {wanted[name]}" if name else None


def max_shard_bytes(field: Field, unit_rows: int) -> int:
    """The size of a full shard: every chunk with its checksum, and the index with its own."""
    chunks_per_row = int(np.prod([n // c for n, c in zip(field.shape, field.chunk or field.shape, strict=True)]))
    chunks = unit_rows * chunks_per_row
    return unit_rows * field.bytes_per_row + chunks * 4 + chunks * 16 + 4


def open_array(place: Place, field: Field) -> "zarr.Array[Any]":
    """A field opened for reading. Its files must have been checked against the ledger by the caller."""
    return zarr.open_array(_ReadOnly(place.join(f"{field.name}.zarr")), mode="r", zarr_format=3)


def read_slots(array: "zarr.Array[Any]", slots: Sequence[int]) -> Shaped[np.ndarray, "R ..."]:
    """Rows by slot, in the order asked for; a run of neighbouring slots is one read."""
    wanted = np.asarray(slots, dtype=np.int64)
    if len(wanted) and np.all(np.diff(wanted) == 1):
        return np.asarray(array[int(wanted[0]) : int(wanted[-1]) + 1])
    return np.asarray(array.oindex[wanted]) if len(wanted) else np.empty((0, *array.shape[1:]), array.dtype)


def check_shard_writes(place: Place) -> str | None:
    """Encodes, stores and reads back a small shard in a place; None, or what went wrong in one sentence."""
    from ..files import atomic

    field = Field(name="probe", kind="array", shape=(2, 3), dtype="float32")
    values_RAB = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    values_RAB[1] = 0  # an all-zero row must be stored too
    try:
        atomic.write(place, "probe.zarr/zarr.json", metadata(field, 2, 2))
        atomic.write(place, field.shard(0), encode_shard(field, 2, values_RAB))
        same = np.array_equal(read_slots(open_array(place, field), [0, 1]), values_RAB)
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
        config={"write_empty_chunks": True},
    )
    return array, files


class _ReadOnly(Store):
    """A place as Zarr sees it, for reading alone; a key that is not there is an error and never a fill value."""

    def __init__(self, place: Place) -> None:
        super().__init__(read_only=True)
        self._place = place

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ReadOnly) and other._place == self._place

    async def get(
        self, key: str, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        data = await asyncio.to_thread(self._read, key, byte_range)
        return (prototype or default_buffer_prototype()).buffer.from_bytes(data)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        return list(await asyncio.gather(*(self.get(key, prototype, wanted) for key, wanted in key_ranges)))

    async def exists(self, key: str) -> bool:
        return await asyncio.to_thread(self._place.exists, key)

    def _read(self, key: str, wanted: ByteRequest | None) -> bytes:
        try:
            if wanted is None:
                return self._place.read(key)
            if isinstance(wanted, RangeByteRequest):
                return self._place.read_range(key, wanted.start, wanted.end)
            found = self._place.stat(key)
            size = found.size if found else 0
            start = wanted.offset if isinstance(wanted, OffsetByteRequest) else size - wanted.suffix
            return self._place.read_range(key, max(0, start), size)
        except FileNotFoundError:
            raise CorruptArtifact(
                f"{self._place.path(key)} is missing; run its stage again to rebuild it, or restore it from a copy"
            ) from None

    @property
    def supports_writes(self) -> bool:
        return False

    @property
    def supports_deletes(self) -> bool:
        return False

    @property
    def supports_listing(self) -> bool:
        return False

    async def set(self, key: str, value: Buffer) -> None:
        raise PermissionError(key)

    async def delete(self, key: str) -> None:
        raise PermissionError(key)

    def list(self) -> AsyncIterator[str]:
        raise PermissionError("list")

    def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        raise PermissionError(prefix)

    def list_dir(self, prefix: str) -> AsyncIterator[str]:
        raise PermissionError(prefix)
