"""Hugging Face: Parquet files per split with pictures and masks inside, and a card that lists them.

`datasets.load_dataset(DIR)` reads the card; `load_dataset("parquet", data_files=…)` needs none. A mask loads as a
Pillow image whose values are classes; the feature `labels` has their names.
"""

import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack

import pyarrow as pa
import pyarrow.parquet as pq

from ..artifact.facts import DatasetFacts
from ..classes import BACKGROUND, IGNORE
from ..files.sealed import Json
from ..pictures.palette import encode_label_map
from ..published.schema import IMAGE, OBJECT, schema_for_hugging_face
from .export import Export, ExportPicture, one_line

_FILE_BYTES = 500 * 10**6  # file size that the Hub recommends
_GROUP_BYTES = 32 * 2**20  # the most that a reader of one row decodes
_GROUP_ROWS = 100
_COLUMNS = {
    "id": pa.string(),
    "image": IMAGE,
    "mask": IMAGE,
    "labels": pa.list_(pa.int64()),
    "objects": pa.list_(OBJECT),
}


def write(export: Export) -> None:
    names = export.class_names(reserved=["background"])
    schema = _schema(names)
    with ExitStack() as stack:
        files: dict[str, _SplitFiles] = {}
        for example in export.examples():
            split = _split(example.split)
            if split not in files:
                files[split] = stack.enter_context(_SplitFiles(export, split, schema))
            files[split].add(_row(example))
    export.folder.write("README.md", _card(export, names, sorted(files)).encode())


class _SplitFiles:
    """The files of a split; a new one starts when the last is large enough."""

    def __init__(self, export: Export, split: str, schema: pa.Schema) -> None:
        self._folder, self._split, self._schema = export.folder, split, schema
        self._rows: list[dict[str, Json]] = []
        self._bytes = 0  # of the buffered rows
        self._written = 0  # to the open file
        self._count = 0
        self._stack = ExitStack()
        self._writer: pq.ParquetWriter | None = None

    def add(self, row: dict[str, Json]) -> None:
        self._rows.append(row)
        self._bytes += len(row["image"]["bytes"]) + len(row["mask"]["bytes"])
        if self._bytes >= _GROUP_BYTES or len(self._rows) >= _GROUP_ROWS:
            self._flush()

    def _flush(self) -> None:
        if not self._rows:
            return
        if self._writer is None or self._written + self._bytes > _FILE_BYTES:
            self._begin()
        assert self._writer is not None
        self._writer.write_table(pa.Table.from_pylist(self._rows, self._schema))
        self._written += self._bytes
        self._rows, self._bytes = [], 0

    def _begin(self) -> None:
        self._stack.close()
        stream = self._stack.enter_context(self._folder.stream(f"data/{self._split}-{self._count:05}.parquet"))
        self._writer = self._stack.enter_context(pq.ParquetWriter(stream, self._schema, write_page_checksum=True))
        self._count, self._written = self._count + 1, 0

    def __enter__(self) -> "_SplitFiles":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._stack:
            if kind is None:
                self._flush()


def _schema(names: Mapping[int, str]) -> pa.Schema:
    listed = ["background", *names.values()]  # ClassLabel numbers start at 0
    labels = {"feature": {"names": listed, "_type": "ClassLabel"}, "_type": "List"}
    return schema_for_hugging_face(_COLUMNS, {"labels": labels})


def _row(example: ExportPicture) -> dict[str, Json]:
    return {
        "id": example.id,
        "image": {"bytes": example.picture, "path": example.picture_name},
        "mask": {"bytes": encode_label_map(example.label_HW), "path": f"{example.stem}.png"},
        "labels": example.row["labels"] or [],
        "objects": example.row["objects"],
    }


def _split(name: str) -> str:
    """A split name that `datasets` accepts: word characters, and not `all`, which means all splits."""
    word = re.sub(r"\W", "_", name)
    return "all_" if word == "all" else word


def _card(export: Export, names: Mapping[int, str], splits: Sequence[str]) -> str:
    title = one_line(DatasetFacts.of(export.labels.artifact).title)
    files = "".join(f"  - split: {split}\n    path: data/{split}-*.parquet\n" for split in splits)
    table = {BACKGROUND: "background", **names, IGNORE: "undecided"}
    classes = "".join(f"| {label} | {_cell(name)} |\n" for label, name in table.items())
    licences = "".join(f"- {_cell(name)}\n" for name in export.licences)
    return (
        f"---\nconfigs:\n- config_name: default\n  data_files:\n{files}---\n# {title}\n\n"
        f"Values of `mask`:\n\n| value | class |\n|---|---|\n{classes}\n"
        + (f"Licences, of the dataset and of the weights that made the masks:\n\n{licences}" if licences else "")
    )


def _cell(text: str) -> str:
    return one_line(text).replace("|", "\\|")
