"""Only manifests/files/atomic.py opens files for writing, so that no crash leaves half of one."""

import ast
import re
from collections.abc import Iterator

import pytest

from house.sources import Source, full_name, names_of, product, source

WRITER = "manifests/files/atomic.py"
OPENERS = {
    *("open", "io.open", "os.fdopen", "gzip.open", "bz2.open", "lzma.open", "codecs.open", "tarfile.open"),
    *("zipfile.ZipFile", "pyarrow.OSFile", "pyarrow.memory_map", "mmap.mmap"),
}
WRITING_FLAGS = {"O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC", "O_APPEND"}
CHANGES = {
    *(f"os.{name}" for name in ("rename", "renames", "replace", "remove", "unlink", "link", "symlink", "truncate")),
    *(f"os.{name}" for name in ("mkdir", "makedirs", "rmdir", "removedirs", "mkfifo", "mknod", "chmod", "utime")),
    *(f"os.{name}" for name in ("write", "writev", "pwrite", "ftruncate")),
    *(f"numpy.{name}" for name in ("save", "savez", "savez_compressed", "savetxt", "memmap")),
    *("numpy.lib.format.open_memmap", "torch.save", "skimage.io.imsave", "sqlite3.connect", "shelve.open", "dbm.open"),
    *("pyarrow.output_stream", "safetensors.torch.save_file", "safetensors.numpy.save_file", "logging.FileHandler"),
}
READS_OF_SHUTIL = {"shutil.disk_usage", "shutil.which", "shutil.get_terminal_size"}
# Methods of paths, arrays, tables and fsspec's file systems that change what lies on a disk, whatever they hang on.
_METHODS = {
    "write_text write_bytes touch mkdir makedirs mkdirs rmdir unlink rename symlink_to hardlink_to",
    "tofile to_parquet to_csv to_zarr to_pickle pipe_file put_file rm rm_file",
}
METHODS = {name for line in _METHODS for name in line.split()}
# Encoders take a path as well as a stream, so what they are given must be seen or said to be a stream.
ENCODERS = {"save", "write_table", "ParquetWriter", "write_feather", "write_csv", "new_file"}
MODE = re.compile(r"[rwaxbt+|]*[wax+][rwaxbt+|]*(:\w*)?")  # wb, r+, and tarfile's w:gz
STREAM = re.compile(r"\w*(stream|buffer)")


def writing_faults(file: Source) -> Iterator[str]:
    known, streams = names_of(file), _bytes_in_memory(file)
    for call in file.calls():
        name = full_name(call.func, known)
        if file.path != WRITER and (_writes(call, name) or _encodes_to_path(call, name, streams)):
            yield f"{file.path}:{call.lineno} calls {name}; only {WRITER} writes files"


def _bytes_in_memory(file: Source) -> set[str]:
    """The names that are given a BytesIO."""
    given = [node for node in ast.walk(file.tree) if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)]
    made = [node for node in given if ast.unparse(node.value.func).endswith("BytesIO")]  # type: ignore[attr-defined]
    return {target.id for node in made for target in node.targets if isinstance(target, ast.Name)}


def _writes(call: ast.Call, name: str) -> bool:
    method = name.rpartition(".")[2]
    if name in CHANGES or name.startswith("tempfile.") or (name.startswith("shutil.") and name not in READS_OF_SHUTIL):
        return True
    if name == "os.open":
        return _flags_write(call)
    if name in OPENERS or method == "open":
        return _mode_writes(call, strict=name in OPENERS)
    if method == "replace":  # of a path with its one argument; text has two, and so has dataclasses.replace
        return isinstance(call.func, ast.Attribute) and len(call.args) == 1 and not call.keywords
    return isinstance(call.func, ast.Attribute) and method in METHODS


def _flags_write(call: ast.Call) -> bool:
    nowhere = ast.unparse(call.args[0]) == "os.devnull"
    return not nowhere and any(getattr(node, "attr", None) in WRITING_FLAGS for node in ast.walk(call))


def _mode_writes(call: ast.Call, strict: bool) -> bool:
    """Whether any argument is a writing mode; a mode that is not written out counts as one, where it must be a mode."""
    by_name = [keyword.value for keyword in call.keywords if keyword.arg in ("mode", "access")]
    if strict and any(not isinstance(value, ast.Constant) for value in by_name + call.args[1:2]):
        return True
    texts = [value.value for value in by_name + call.args if isinstance(value, ast.Constant)]
    return any(isinstance(text, str) and MODE.fullmatch(text) for text in texts)


def _encodes_to_path(call: ast.Call, name: str, streams: set[str]) -> bool:
    method = name.rpartition(".")[2]
    if method not in ENCODERS or name.startswith("safetensors."):  # which gives bytes
        return False
    sinks = [keyword.value for keyword in call.keywords if keyword.arg in ("fp", "where", "dest", "sink")]
    if method == "write_table" and len(call.args) == 1 and not sinks:  # a ParquetWriter's own, whose sink was checked
        return False
    position = 1 if method in ("write_table", "write_feather", "write_csv") else 0
    sink = next(iter(sinks or call.args[position : position + 1]), None)
    return not (isinstance(sink, ast.Name) and (sink.id in streams or STREAM.fullmatch(sink.id)))


def test_nothing_else_in_the_tree_writes_files():
    assert [fault for file in product() for fault in writing_faults(file)] == []


def test_the_one_writer_is_there_and_would_be_seen_elsewhere():
    writer = next(file for file in product() if file.path == WRITER)
    assert len(list(writing_faults(Source("manifests/other.py", writer.tree)))) >= 5


@pytest.mark.parametrize(
    "text",
    [
        "open(path, 'wb')",
        "open(path, mode='a')",
        "open(path, 'r+b')",
        "open(path, mode)",
        "from pathlib import Path\nPath(p).open('w')",
        "import fsspec\nfsspec.open(url, 'wb')",
        "import gzip as g\ng.open(p, 'wt')",
        "import tarfile\ntarfile.open(p, 'w:gz')",
        "import os\nos.open(p, os.O_RDWR | os.O_CREAT)",
        "import os\nos.replace(a, b)",
        "from os import rename as move\nmove(a, b)",
        "import os\nos.makedirs(p, exist_ok=True)",
        "path.write_text('x')",
        "path.mkdir(parents=True)",
        "path.unlink(missing_ok=True)",
        "path.replace(other)",
        "import numpy as np\nnp.save(p, a)",
        "import numpy as np\nnp.savez_compressed(p, a=a)",
        "array.tofile(p)",
        "import shutil\nshutil.rmtree(p)",
        "from shutil import copyfile\ncopyfile(a, b)",
        "import tempfile\ntempfile.mkdtemp()",
        "import tempfile\ntempfile.TemporaryDirectory()",
        "import pyarrow.parquet as pq\npq.write_table(table, path)",
        "import pyarrow.parquet as pq\npq.write_table(table, 'rows.parquet')",
        "import pyarrow.parquet as pq\npq.ParquetWriter(place.path(name), schema)",
        "from pyarrow.parquet import ParquetWriter\nParquetWriter(path, schema)",
        "import pyarrow as pa\npa.OSFile(path, 'wb')",
        "picture.save(path)",
        "import io\npng = io.BytesIO()\npicture.save(path)",
        "picture.save('a.png')",
        "import torch\ntorch.save(model, stream)",
        "from safetensors.torch import save_file\nsave_file(tensors, path)",
        "filesystem.pipe_file(key, data)",
        "import logging\nlogging.FileHandler(path)",
    ],
)
def test_a_writer_is_seen(text):
    assert list(writing_faults(source("pipeline/made_up.py", text)))


@pytest.mark.parametrize(
    "text",
    [
        "open(path)",
        "open(path, 'rb')",
        "import os\nos.open(p, os.O_RDONLY | os.O_DIRECTORY)",
        "import os\nos.open(os.devnull, os.O_WRONLY)",
        "from PIL import Image\nImage.open(stream)",
        "place.open('rows.parquet')",
        "text.replace('a', 'b')",
        "from dataclasses import replace\nreplace(unit, stop=3)",
        "import dataclasses\ndataclasses.replace(unit, stop=3)",
        "import shutil\nshutil.disk_usage(p)",
        "import pyarrow.parquet as pq\npq.write_table(table, stream)",
        "import pyarrow.parquet as pq\npq.ParquetWriter(stream, schema).write_table(group)",
        "picture.save(png_buffer, format='PNG')",
        "import io\npng = io.BytesIO()\npicture.save(png, 'PNG')",
        "from safetensors.numpy import save\nsave(tensors)",
        "import tarfile\ntarfile.open(fileobj=stream, mode='r|')",
    ],
)
def test_a_reader_is_not_blamed(text):
    assert list(writing_faults(source("pipeline/made_up.py", text))) == []
