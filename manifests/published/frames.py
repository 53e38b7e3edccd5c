"""Reads single rows of a published dataset, after checking that its files hold the listed rows and known columns."""

import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from itertools import zip_longest

import pyarrow as pa
import pyarrow.parquet as pq

from ..artifact.artifact import Artifact
from ..artifact.layout import Unit
from ..artifact.tables import FRAME_ROW_GROUP
from ..errors import CorruptArtifact, MaskmillError
from ..files.place import Place
from ..files.sealed import Json
from .schema import COLUMNS, FRAME, OLDER_OBJECT, frame_schema

KEPT_BYTES = 32 * 2**20  # cache of row groups: thousands of masks, or a few hundred pictures
_groups: OrderedDict[Hashable, tuple[pa.Table, int]] = OrderedDict()  # with the size of each
_checked: set[Hashable] = set()  # files that this process has checked
_lock = threading.Lock()


def frame_row(artifact: Artifact, position: int, columns: Sequence[str]) -> dict[str, Json]:
    """Columns of one row by position. Its row group is cached for neighbouring rows."""
    layout = artifact.plan.layout(artifact.plan.group_of(FRAME))
    unit = layout.unit(layout.unit_of(position))
    number, row = divmod(position - unit.start, FRAME_ROW_GROUP)
    key = (artifact.place, artifact.digest, unit.index, number, tuple(columns))
    table = _recall(key)
    if table is None:
        with _refusing(artifact.place):
            table = _file(artifact, unit).read_row_group(number, columns=list(columns), use_threads=False)
        _keep(key, table)
    return {name: table.column(name)[row].as_py() for name in columns}


def frame_rows(artifact: Artifact, columns: Sequence[str]) -> Iterator[dict[str, Json]]:
    """Columns of every row in order, one row group in memory at a time."""
    for unit in artifact.plan.layout(artifact.plan.group_of(FRAME)).units():
        with _refusing(artifact.place):
            batches = _file(artifact, unit).iter_batches(FRAME_ROW_GROUP, columns=list(columns), use_threads=False)
            for batch in batches:
                yield from batch.to_pylist()


def _recall(key: Hashable) -> pa.Table | None:
    with _lock:
        if key in _groups:
            _groups.move_to_end(key)
            return _groups[key][0]
        return None


def _keep(key: Hashable, table: pa.Table) -> None:
    """Caches a row group and drops the least recently used ones; the newest always stays."""
    with _lock:
        _groups[key] = table, table.nbytes  # stored, because computing it takes as long as reading a row
        total = sum(size for _, size in _groups.values())
        while total > KEPT_BYTES and len(_groups) > 1:
            total -= _groups.popitem(last=False)[1][1]


def _file(artifact: Artifact, unit: Unit) -> pq.ParquetFile:
    """The file of a unit. Columns and ids, like the sha256, are checked once per process."""
    file = artifact.frame(FRAME, unit.index)
    key = (artifact.place, artifact.digest, unit.index)
    if key not in _checked:
        _check_columns(artifact.place, file.schema_arrow)
        ids = file.read(columns=["id"], use_threads=False).column("id").to_pylist()
        listed = artifact.rows_at(range(unit.start, unit.stop), ["id"]).column("id").to_pylist()
        if ids != listed:
            first = next(stored for stored, planned in zip_longest(ids, listed) if stored != planned)
            raise CorruptArtifact(
                f"a file of {artifact.place} holds other rows than its row list, the first is {first!r}; "
                "do not trust this dataset"
            )
        _checked.add(key)
    return file


def _check_columns(at: Place, schema: pa.Schema) -> None:
    known = frame_schema()
    objects = known.get_field_index("objects")
    older = known.set(objects, known.field(objects).with_type(pa.list_(OLDER_OBJECT)))
    if not (schema.equals(known) or schema.equals(older)):
        types = {field.name: field.type for field in schema}
        differing = [name for name in {**types, **COLUMNS} if types.get(name) != COLUMNS.get(name)] or schema.names
        raise CorruptArtifact(
            f"a file of {at} has other columns than this maskmill knows ({', '.join(differing)}); "
            "use the version that wrote it, or do not trust this dataset"
        )


@contextmanager
def _refusing(at: Place) -> Iterator[None]:
    """Turns read errors into CorruptArtifact; page checksums are verified on each read."""
    try:
        yield
    except MaskmillError:
        raise
    except (pa.ArrowException, OSError) as error:
        raise CorruptArtifact(f"a file of {at} cannot be read ({error}); restore it from a copy") from error
