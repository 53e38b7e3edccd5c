"""Parquet: the row list, the listing, and what units write that is no array. Page checksums are on, both ways."""

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
FRAME_ROW_GROUP = 32  # what a reader of one row decodes

# What a column of the row list or the listing may hold; the names stand in plan.json.
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
    """Writes a table as it comes, in bounded memory; gives the file's digest and the number of rows."""
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
    """A Parquet file whose sha256 has been checked, to be read by parts."""
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
    """The sha256 of each row's values; bytes count by their own."""
    return [digest_of(_by_digest(row)) for row in table.to_pylist()]


def _by_digest(value: Any) -> Json:
    if isinstance(value, bytes):
        return hashlib.sha256(value).hexdigest()
    if isinstance(value, dict):
        return {name: _by_digest(each) for name, each in value.items()}
    return [_by_digest(each) for each in value] if isinstance(value, list) else value


def take_rows(file: pq.ParquetFile, positions: Sequence[int], columns: Sequence[str]) -> pa.Table:
    """Rows by position, in the order asked for, reading each row group that holds one of them once."""
    groups = sorted({position // ROW_GROUP for position in positions})
    place_of = {group: index for index, group in enumerate(groups)}
    table = file.read_row_groups(groups, columns=list(columns))
    places = [place_of[at // ROW_GROUP] * ROW_GROUP + at % ROW_GROUP for at in positions]
    return table.take(pa.array(places, pa.int64()))  # of nothing, too, which has no type of its own


def batches_of(file: pq.ParquetFile, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """A whole table in bounded memory."""
    yield from file.iter_batches(ROW_GROUP, columns=list(columns) if columns is not None else None)


def _writer(stream: object, schema: pa.Schema) -> pq.ParquetWriter:
    return pq.ParquetWriter(stream, schema, compression="zstd", write_page_checksum=True, store_schema=True)


def _regroup_rows(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterable[pa.Table]:
    """The same rows in tables of exactly ROW_GROUP (the last one less), so that a position tells its row group."""
    waiting: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        waiting.append(batch)
        rows += batch.num_rows
        while rows >= ROW_GROUP:
            table = pa.Table.from_batches(waiting, schema)
            yield table.slice(0, ROW_GROUP).combine_chunks()
            waiting = table.slice(ROW_GROUP).to_batches()
            rows -= ROW_GROUP
    if rows:
        yield pa.Table.from_batches(waiting, schema).combine_chunks()
