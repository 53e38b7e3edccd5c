"""Parquet files: the row list, the listing, table and frame fields. Page checksums are written and verified."""

import hashlib
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import CorruptArtifact
from ..files import atomic
from ..files.digests import FileDigest, check
from ..files.place import Place
from ..files.sealed import Json, digest_of

ROW_GROUP = 4096
FRAME_ROW_GROUP = 32  # rows that a reader of one row decodes

# Types of columns in the row list and the listing, as named in plan.json.
TYPES: Mapping[str, pa.DataType] = {
    "string": pa.string(),
    "bool": pa.bool_(),
    "int64": pa.int64(),
    "float64": pa.float64(),
    "ints": pa.list_(pa.int64()),
    "floats": pa.list_(pa.float64()),
    "strings": pa.list_(pa.string()),
}


def schema_of(columns: Mapping[str, str]) -> pa.Schema:
    return pa.schema([(name, TYPES[kind]) for name, kind in columns.items()])


def write_batches(
    place: Place, name: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch]
) -> tuple[FileDigest, int]:
    """Writes a table in bounded memory; returns the file's digest and the number of rows."""
    rows = 0
    with atomic.replacing(place, name) as stream, _writer(stream, schema) as writer:
        for group in _regroup_rows(batches, schema):
            writer.write_table(group, row_group_size=ROW_GROUP)
            rows += group.num_rows
    return FileDigest(stream.sha256, stream.size), rows


def encode_table(table: pa.Table, row_group: int = ROW_GROUP) -> bytes:
    """A small table as the bytes of a Parquet file."""
    stream = io.BytesIO()
    with _writer(stream, table.schema) as writer:
        writer.write_table(table, row_group_size=row_group)
    return stream.getvalue()


def open_table(place: Place, name: str, expected: FileDigest) -> pq.ParquetFile:
    """Opens a Parquet file after checking its sha256."""
    check(place, name, expected)
    try:
        source = pa.OSFile(place.path(name), "rb") if place.is_local else pa.BufferReader(place.read(name))
        return pq.ParquetFile(source, page_checksum_verification=True)
    except (FileNotFoundError, pa.ArrowInvalid, OSError) as error:
        raise CorruptArtifact(f"{place.path(name)} cannot be read as Parquet: {error}; run its stage again") from error


def rows_between(file: pq.ParquetFile, start: int, stop: int, columns: Sequence[str] | None = None) -> pa.Table:
    """Rows [start, stop) by position, reading only the row groups that hold them."""
    first, last = start // ROW_GROUP, -(-stop // ROW_GROUP)
    groups = list(range(first, max(last, first + (stop > start))))
    table = file.read_row_groups(groups, columns=list(columns) if columns is not None else None)
    return table.slice(start - first * ROW_GROUP, stop - start)


def row_digests(table: pa.Table) -> list[str]:
    """The sha256 of each row, in which bytes are replaced by their sha256."""
    return [digest_of(_by_digest(row)) for row in table.to_pylist()]


def _by_digest(value: Any) -> Json:
    if isinstance(value, bytes):
        return hashlib.sha256(value).hexdigest()
    if isinstance(value, dict):
        return {name: _by_digest(inner) for name, inner in value.items()}
    return [_by_digest(item) for item in value] if isinstance(value, list) else value


def take_rows(file: pq.ParquetFile, positions: Sequence[int], columns: Sequence[str]) -> pa.Table:
    """Rows by position, in the order of `positions`; each row group is read once."""
    groups = sorted({position // ROW_GROUP for position in positions})
    group_index = {group: index for index, group in enumerate(groups)}
    table = file.read_row_groups(groups, columns=list(columns))
    indices = [group_index[position // ROW_GROUP] * ROW_GROUP + position % ROW_GROUP for position in positions]
    return table.take(pa.array(indices, pa.int64()))  # an empty list has no type of its own


def batches_of(file: pq.ParquetFile, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """A whole table in bounded memory."""
    yield from file.iter_batches(ROW_GROUP, columns=list(columns) if columns is not None else None)


def _writer(stream: object, schema: pa.Schema) -> pq.ParquetWriter:
    return pq.ParquetWriter(stream, schema, compression="zstd", write_page_checksum=True, store_schema=True)


def _regroup_rows(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterable[pa.Table]:
    """The same rows in tables of exactly ROW_GROUP (the last may be shorter), so a position gives its row group."""
    pending: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        pending.append(batch)
        rows += batch.num_rows
        while rows >= ROW_GROUP:
            table = pa.Table.from_batches(pending, schema)
            yield table.slice(0, ROW_GROUP).combine_chunks()
            pending = table.slice(ROW_GROUP).to_batches()
            rows -= ROW_GROUP
    if rows:
        yield pa.Table.from_batches(pending, schema).combine_chunks()
