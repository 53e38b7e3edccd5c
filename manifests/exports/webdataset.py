"""WebDataset: tar shards per split; a sample is a picture, its mask and its annotations.

Masks are grey PNGs: webdataset converts every picture to RGB, which would turn a palette into colours; in a grey
picture each channel is the class. Equal datasets give equal bytes.
"""

import json
import tarfile
from collections.abc import Iterator

from ..files.sealed import Json
from .export import Export, ExportPicture
from .parts import Parts

_SHARD_BYTES = 256 * 2**20
_TAR_END = bytes(2 * tarfile.BLOCKSIZE)


def write(export: Export) -> None:
    names = {str(label): name for label, name in export.labels.classes.items()}
    with Parts(export.folder, "{split}-{number:06}.tar", _SHARD_BYTES, end=_TAR_END) as shards:
        for example in export.examples():
            shards.write(example.split, b"".join(_sample(example)))
    export.folder.write("classes.json", _json_bytes(names))


def _sample(example: ExportPicture) -> Iterator[bytes]:
    annotations = {name: example.row[name] for name in ("id", "labels", "split", "height", "width", "objects")}
    yield from _member(example.picture_name, example.picture)
    yield from _member(f"{example.stem}.mask.png", example.grey_mask())
    yield from _member(f"{example.stem}.json", _json_bytes(annotations))


def _member(name: str, data: bytes) -> Iterator[bytes]:
    header = tarfile.TarInfo(name)  # no owner, no time
    header.size = len(data)
    yield header.tobuf(tarfile.USTAR_FORMAT)
    yield data
    yield bytes(-len(data) % tarfile.BLOCKSIZE)


def _json_bytes(value: Json) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()
