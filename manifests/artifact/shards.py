"""Writes and reads checked rows of a shard without Zarr, which takes up to a third of a millisecond per chunk.

Letters: R requested rows, C chunks of a row.

A shard is Zarr's `sharding_indexed` exactly as store.py writes it: chunks one after the other, each followed by its
CRC-32C, then an index of their offsets and lengths with a CRC-32C of its own. The metadata has been checked for this.
"""

import math
import time
from collections.abc import Iterator, Sequence
from functools import lru_cache

import google_crc32c
import numpy as np
from jaxtyping import Shaped, UInt64

from ..errors import CorruptArtifact
from ..files.digests import FileDigest
from ..files.place import Place
from .fields import Field

_CRC_BYTES = 4
_ENTRY_BYTES = 16  # offset and length
_NOT_THERE = 2**64 - 1  # offset and length of a chunk that was never written
_TIMED_BYTES = 2**26


def chunks_per_row(field: Field) -> int:
    """A row is split along its first axis only, so its chunks lie in the order of its values."""
    chunk = field.chunk or field.shape
    assert chunk[1:] == field.shape[1:], (
        f"chunks {chunk} of {field.name} split more than the first axis of {field.shape}"
    )
    return field.shape[0] // chunk[0] if chunk else 1


def encode_rows(field: Field, unit_rows: int, values: Shaped[np.ndarray, "R ..."]) -> bytes:
    """The bytes that Zarr would write for a field with one chunk per row."""
    assert chunks_per_row(field) == 1, field
    length = field.bytes_per_row + _CRC_BYTES
    index_RC = np.full((unit_rows, 2), _NOT_THERE, "<u8")
    index_RC[: len(values), 0] = np.arange(len(values)) * length
    index_RC[: len(values), 1] = length
    pieces: list[bytes] = []
    for row in values.astype(np.dtype(field.dtype).newbyteorder("<"), copy=False):
        pieces += _with_crc(row.tobytes())
    return b"".join([*pieces, *_with_crc(index_RC.tobytes())])


def _with_crc(data: bytes) -> tuple[bytes, bytes]:
    return data, google_crc32c.value(data).to_bytes(_CRC_BYTES, "little")


def read_rows(
    place: Place,
    field: Field,
    unit: int,
    unit_rows: int,
    digest: FileDigest,
    rows: Sequence[int],
    places: Sequence[int] | None = None,
) -> Shaped[np.ndarray, "R ..."]:
    """Rows of a shard, counted from its first, in the order of `rows`; consecutive rows are one read. `places` are the
    chunks to read of each row, for a field with one chunk for each place of its first axis."""
    name, num_chunks = field.shard(unit), chunks_per_row(field)
    index_RC2 = _index(place, name, digest, unit_rows, num_chunks)
    dtype = np.dtype(field.dtype).newbyteorder("<")
    shape, length = field.shape, math.prod(field.shape) // num_chunks
    if places is not None:
        assert num_chunks == field.shape[0], f"{field.name} is not stored place by place"
        index_RC2, shape = index_RC2[:, list(places)], (len(places), *field.shape[1:])
    values = np.empty((len(rows), index_RC2.shape[1], length), dtype)
    for start, stop in _runs(rows):
        spans_C2 = index_RC2[rows[start] : rows[stop - 1] + 1].reshape(-1, 2)
        chunks = values[start:stop].reshape(len(spans_C2), -1)
        _read_chunks(place, name, spans_C2, chunks)
    return values.reshape(len(rows), *shape)


def _read_chunks(place: Place, name: str, spans_C2: UInt64[np.ndarray, "C 2"], chunks: np.ndarray) -> None:
    length = chunks.shape[1] * chunks.itemsize + _CRC_BYTES
    if (spans_C2 == _NOT_THERE).any():
        raise CorruptArtifact(f"{place.path(name)} lacks rows that were written; run its stage again to rebuild it")
    if (spans_C2[:, 1] != length).any():
        raise CorruptArtifact(f"{place.path(name)} holds chunks of another length than {length} bytes; do not trust it")
    start, stop = int(spans_C2[:, 0].min()), int(spans_C2[:, 0].max()) + length
    if stop - start == len(spans_C2) * length:
        data = memoryview(_range(place, name, start, stop))
        pieces = [data[int(at) - start : int(at) - start + length] for at in spans_C2[:, 0]]
    else:
        pieces = [memoryview(_range(place, name, int(at), int(at) + length)) for at in spans_C2[:, 0]]
    for chunk, piece in zip(chunks, pieces, strict=True):
        chunk[:] = np.frombuffer(_strip_crc(place, name, piece), chunks.dtype)


def checking_s(num_bytes: int) -> float:
    """Estimated time to check and copy this many bytes once they are in memory."""
    data = b"".join(_with_crc(bytes(min(num_bytes, _TIMED_BYTES))))
    began = time.perf_counter()
    piece = memoryview(bytearray(data))
    values = np.empty(len(data) - _CRC_BYTES, np.uint8)
    values[:] = np.frombuffer(_strip_crc(Place(""), "", piece), np.uint8)
    return (time.perf_counter() - began) * num_bytes / max(1, values.size)


@lru_cache(maxsize=4096)  # a few kilobytes each
def _index(
    place: Place, name: str, digest: FileDigest, unit_rows: int, num_chunks: int
) -> UInt64[np.ndarray, "rows C 2"]:
    size = unit_rows * num_chunks * _ENTRY_BYTES + _CRC_BYTES
    data = memoryview(_range(place, name, digest.size - size, digest.size))
    return np.frombuffer(_strip_crc(place, name, data), "<u8").reshape(unit_rows, num_chunks, 2)


def _strip_crc(place: Place, name: str, data: memoryview) -> memoryview:
    """Checks the CRC-32C at the end of `data`; returns the bytes before it."""
    content = np.frombuffer(data[:-_CRC_BYTES], np.uint8)
    if google_crc32c.value(content) != int.from_bytes(data[-_CRC_BYTES:], "little"):
        raise CorruptArtifact(f"{place.path(name)} does not hold the bytes that were written; run its stage again")
    return data[:-_CRC_BYTES]


def _range(place: Place, name: str, start: int, stop: int) -> bytes:
    try:
        data = place.read_range(name, max(0, start), stop)
    except FileNotFoundError:
        data = b""
    if start < 0 or len(data) != stop - start:
        raise CorruptArtifact(
            f"{place.path(name)} is missing or cut short; run its stage again to rebuild it, or restore it from a copy"
        )
    return data


def _runs(rows: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Start and stop of each stretch of consecutive rows."""
    start = 0
    for position in range(1, len(rows) + 1):
        if position == len(rows) or rows[position] != rows[position - 1] + 1:
            yield start, position
            start = position
