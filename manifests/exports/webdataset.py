"""WebDataset: tar shards for each split, a sample in them a picture, its mask and what is known of it.

Masks are grey PNGs: webdataset turns every picture into RGB, which would leave a palette's colours and lose the class;
of a grey one each channel is the class. Tars of equal datasets have equal bytes.
"""

import json
import tarfile
from collections.abc import Iterator

from ..files.sealed import Json
from .export import Export, ExportPicture
from .grey import encode_grey
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
    known = {name: example.row[name] for name in ("id", "labels", "split", "height", "width", "objects")}
    yield from _member(example.picture_name, example.picture)
    yield from _member(f"{example.stem}.mask.png", encode_grey(example.label_HW))
    yield from _member(f"{example.stem}.json", _json_bytes(known))


def _member(name: str, data: bytes) -> Iterator[bytes]:
    header = tarfile.TarInfo(name)  # of nobody, at no time
    header.size = len(data)
    yield header.tobuf(tarfile.USTAR_FORMAT)
    yield data
    yield bytes(-len(data) % tarfile.BLOCKSIZE)


def _json_bytes(value: Json) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()
