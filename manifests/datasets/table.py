"""A CSV or Parquet table with one row per picture, read in bounded memory."""

import csv
import io
import posixpath
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

from ..classes import ClassTable
from ..counts import count_of
from ..errors import InputError
from ..files.place import Place, place, split
from ..pictures.sources import TAR_SCHEME, open_user_file, path_fault
from .benchmark_classes import check_order
from .layouts import TableSource
from .listing import Listing, PictureEntry, image_id

COLUMNS = ("path", "uri", "id", "label", "labels", "split", "mask")  # path = uri, label = labels
LABEL_SEPARATOR = "|"  # not a semicolon, which separates columns in some locales

_ONLY_CLASS = "object"  # for a table with binary masks but no labels


@dataclass(frozen=True, slots=True)
class _Row:
    where: str  # for messages
    path: str
    id: str
    labels: tuple[str, ...] | None  # None if the table has no such column
    split: str
    mask: str


def list_table(source: TableSource, known: ClassTable) -> Listing:
    """The pictures in table order. The table is read twice: for classes and for entries."""
    root = place(source.root) if source.root else split(source.file)[0]
    names: set[str] = set()
    has_rows = has_masks = has_labels = False
    for row in _rows(source, root):
        has_rows, has_masks, has_labels = True, has_masks or bool(row.mask), row.labels is not None
        _check_labels(source, row)
        names.update(row.labels or ())
    if not has_rows:
        raise InputError(f"{source.file} has no rows; give one row per picture")
    mask_kind = source.mask_kind if has_masks else "none"
    if mask_kind == "binary" and not has_labels:
        names.add(_ONLY_CLASS)
    table = _table(source, known, sorted(names))
    if mask_kind == "indexed" and not has_labels and not table.rows:
        raise InputError(
            f"{source.file} has masks of class indices but no labels that name the classes; pass --classes"
        )
    return Listing(root.uri, table, _entries(source, root, table), mask_kind)


def _table(source: TableSource, known: ClassTable, names: Sequence[str]) -> ClassTable:
    table = known.with_classes((name, name) for name in source.classes or names)
    return check_order(table, source.classes)


def _entries(source: TableSource, root: Place, table: ClassTable) -> Iterator[PictureEntry]:
    indices = {row.source_id: row.index for row in table.rows}
    for row in _rows(source, root):
        names = row.labels
        if names is None and not row.mask:
            names = ()
        elif names is None and source.mask_kind == "binary":
            names = (_ONLY_CLASS,)
        if names and (unknown := [name for name in names if name not in indices]):
            raise InputError(
                f"{row.where} of {source.file} has a new label {unknown[0]}: "
                "the file changed while it was read; run the command again"
            )
        labels = None if names is None else tuple(sorted(indices[name] for name in names))
        yield PictureEntry(row.id, row.path, labels, row.split, row.mask)


def _check_labels(source: TableSource, row: _Row) -> None:
    if source.classes and (unknown := sorted(set(row.labels or ()) - set(source.classes))):
        raise InputError(
            f"{row.where} of {source.file} has label {unknown[0]}, which is not among --classes; correct one"
        )
    if row.mask and source.mask_kind == "binary" and row.labels is not None and len(row.labels) != 1:
        raise InputError(
            f"{row.where} of {source.file} has a binary mask and {count_of(len(row.labels), 'label')}, expected one; "
            f"give it one label, or use --mask-kind indexed"
        )


def _rows(source: TableSource, root: Place) -> Iterator[_Row]:
    read = _csv_rows if source.file.lower().endswith(".csv") else _parquet_rows
    for where, cells in read(source.file):
        here = f"{where} of {source.file}"
        path = _relative(root, _text(cells.get("path", cells.get("uri")), here, "path"), f"the path in {here}")
        mask = _text(cells.get("mask"), here, "mask")
        given_id = unicodedata.normalize("NFC", _text(cells.get("id"), here, "id"))
        if "id" in cells and (not given_id or "\0" in given_id):
            raise InputError(
                f"{here} has id {given_id!a}; give every row an id without NUL bytes, or leave the column out"
            )
        labels = _label_names(cells.get("label", cells.get("labels")), here)
        yield _Row(
            where,
            path,
            given_id or image_id(_id_path(path)),
            labels if {"label", "labels"} & cells.keys() else None,
            _text(cells.get("split"), here, "split"),
            _relative(root, mask, f"the mask in {here}") if mask else "",
        )


def _id_path(path: str) -> str:
    """The path that becomes the id: without scheme and host of a URL, without the tar of a member."""
    if path.startswith(TAR_SCHEME):
        return path.removeprefix(TAR_SCHEME).rpartition("::")[0]
    return path.partition("://")[2].partition("/")[2] if "://" in path else path


def _text(value: Any, where: str, column: str) -> str:
    if value is None or isinstance(value, str):
        return value if value and value.strip() else ""
    raise InputError(f"{where} has {column} {value!a}, expected text; write the column as strings")


def _label_names(value: Any, where: str) -> tuple[str, ...]:
    names = value.split(LABEL_SEPARATOR) if isinstance(value, str) else value
    names = [] if names is None else names if isinstance(names, list) else [names]
    if not all(isinstance(name, str | int) and not isinstance(name, bool) for name in names):
        raise InputError(f"{where} has labels {value!a}, expected names or whole numbers; correct them")
    stripped = (unicodedata.normalize("NFC", str(name).strip()) for name in names)
    return tuple(dict.fromkeys(name for name in stripped if name))


def _relative(root: Place, path: str, what: str) -> str:
    """The path in the listing: relative to the root, or a URL outside it."""
    if path.startswith(TAR_SCHEME):
        member, _, archive = path.removeprefix(TAR_SCHEME).rpartition("::")
        if not member:
            raise InputError(f"{what} is {path!a}, expected tar://MEMBER::TAR; correct it")
        return f"{TAR_SCHEME}{member}::{_relative(root, archive, what)}"
    if "://" in path and not path.startswith("file://"):
        if "\0" in path:
            raise InputError(f"{what} {path!a} holds a NUL byte; correct it")
        return path.removeprefix(f"{root.uri.rstrip('/')}/")
    full = place(path).uri if path.startswith("file://") else path
    inside = full.removeprefix(f"{root.uri.rstrip('/')}/") if root.is_local else full
    if fault := path_fault(inside):
        raise InputError(f"{what} {path!a} {fault}, expected a path inside {root}; correct it or choose another --root")
    return posixpath.normpath(inside)


def _csv_rows(file: str) -> Iterator[tuple[str, dict[str, Any]]]:
    with open_user_file(file, "table") as stream, io.TextIOWrapper(cast(Any, stream), "utf-8-sig", newline="") as text:
        lines = csv.reader(text, strict=True, skipinitialspace=True)
        try:
            header = [name.strip() for name in next(lines, [])]
            _check_columns(file, header)
            for cells in lines:
                where = f"line {lines.line_num}"
                if len(cells) not in (0, len(header)):
                    raise InputError(
                        f"{where} of {file} has {count_of(len(cells), 'value')}, expected {len(header)}; "
                        "quote the commas"
                    )
                if cells:
                    yield where, dict(zip(header, cells, strict=True))
        except (csv.Error, UnicodeDecodeError) as error:
            raise InputError(
                f"{file} cannot be read as CSV in UTF-8 at line {lines.line_num + 1}: {error}; correct it"
            ) from error


def _parquet_rows(file: str) -> Iterator[tuple[str, dict[str, Any]]]:
    import pyarrow
    from pyarrow import parquet

    with open_user_file(file, "table") as stream:
        try:
            table = parquet.ParquetFile(stream, page_checksum_verification=True)
            _check_columns(file, table.schema_arrow.names)
            rows = (cells for batch in table.iter_batches(batch_size=1024) for cells in batch.to_pylist())
            for number, cells in enumerate(rows, 1):
                yield f"row {number}", cells
        except (pyarrow.ArrowException, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:  # a fault of the disk, not of the format
                raise
            raise InputError(f"{file} cannot be read as Parquet: {error}; write or copy it again") from error


def _check_columns(file: str, names: Sequence[str]) -> None:
    if unknown := [name for name in names if name not in COLUMNS]:
        raise InputError(
            f"{file} has an unknown column {unknown[0]!a}, expected some of {', '.join(COLUMNS)}; "
            "rename it or leave it out"
        )
    if len(set(names)) < len(names) or {"path", "uri"} <= set(names) or {"label", "labels"} <= set(names):
        raise InputError(
            f"{file} has a column twice ({', '.join(names)}): path equals uri, label equals labels; keep one of each"
        )
    if not {"path", "uri"} & set(names):
        raise InputError(
            f"{file} has no column path: known columns are {', '.join(COLUMNS)}; put their names in the first line"
        )
