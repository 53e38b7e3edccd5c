"""The published dataset as a torch dataset. Every byte is checked before it is used.

Letters: H W pixels.
"""

import hashlib
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.utils import data as torch_data

from ..artifact.artifact import Artifact, open_artifact
from ..artifact.facts import DatasetFacts, ImagesFacts, class_table
from ..artifact.plan import read_plan
from ..errors import ConfigError, CorruptArtifact, InputError, MaskmillError, Reason, RowFailed
from ..files.place import Place, place
from ..files.sealed import Json
from ..pictures.decoder import PictureFacts, decode_picture, inspect_picture
from ..pictures.limits import DEFAULT_LIMITS, Limits
from ..pictures.palette import decode_label_map
from ..pictures.sources import TAR_SCHEME, path_fault, read_source, resolve
from .frames import frame_row
from .schema import COLUMNS, class_names

Keep = Literal["kept", "all"]
Row = Mapping[str, Json]
Example = tuple[Tensor, Tensor, dict[str, Json]]
# Schemes of pictures outside the dataset. None may name a local file: the URLs come from whoever made the dataset.
REMOTE = frozenset(
    ("abfs", "abfss", "az", "gcs", "gs", "hdfs", "hf", "http", "https", "memory", "s3", "s3a", "sftp", "webhdfs")
)
_ROOT_OPTION = "images_root= (--images-root of a command)"
_WITHOUT_PICTURE = tuple(name for name in COLUMNS if name != "image")


class Dataset(torch_data.Dataset[Example]):
    """(image, mask, row) of each picture, in dataset order. Holds no open file, so it can be sent to workers.

    The image is uint8 [3, H, W], upright, channels last in memory. The mask is uint8 [H, W] of the same size:
    0 background, 255 undecided, else a class. Pictures differ in size and rows in length, so batches need a transform
    and a collate_fn.
    """

    def __init__(self, artifact: Artifact, images_root: str, positions: Sequence[int], max_pixels: int) -> None:
        self.artifact = artifact
        self.images_root = images_root  # "" if unknown
        self._positions = np.array(positions, np.int64)
        self._limits = Limits(max_pixels=max_pixels, min_side=1, max_aspect=float("inf"))

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, index: int) -> tuple[UInt8[Tensor, "3 H W"], UInt8[Tensor, "H W"], dict[str, Json]]:
        cells = self._cells(index)
        row, mask = self._row(cells), self._mask(cells)
        image = self._image(index, row)
        if image.shape[1:] != mask.shape:
            raise self._corrupt(row, f"has a mask of {tuple(mask.shape)} on a picture of {tuple(image.shape[1:])}")
        return image, mask, row

    def __iter__(self) -> Iterator[Example]:
        return (self[index] for index in range(len(self)))

    @property
    def ids(self) -> list[str]:
        """Ids of the pictures, in dataset order."""
        ids = self.artifact.rows(["id"]).column("id").to_pylist()
        return [ids[position] for position in self._positions.tolist()]

    @property
    def classes(self) -> dict[int, str]:
        """Mask value → class name, without 0 and 255."""
        return class_names(class_table(self.artifact))

    @property
    def provenance(self) -> Sequence[Mapping[str, Json]]:
        """Every artifact this one was made from: stage, config, versions, digests of inputs."""
        return DatasetFacts.of(self.artifact).provenance

    @property
    def rows(self) -> pa.Table:
        """Every row of the dataset, kept or not: id, status, reason, kept, dropped, classes, sources."""
        return self.artifact.rows()

    def row(self, index: int) -> dict[str, Json]:
        """The facts of a picture: id, labels, split, uri, sha256, objects with their quality."""
        return self._row(self._cells(index))

    def mask(self, index: int) -> UInt8[Tensor, "H W"]:
        return self._mask(self._cells(index))

    def image(self, index: int) -> UInt8[Tensor, "3 H W"]:
        """The picture, from the dataset if it is embedded, else from the folder of the pictures."""
        return self._image(index, self.row(index))

    def picture(self, index: int) -> tuple[bytes, PictureFacts]:
        """The checked bytes of the picture file, and its header; nothing is decoded."""
        row = self.row(index)
        data, where = self._picture(index, row)
        try:
            facts = inspect_picture(data, self._limits)
        except RowFailed as failed:
            raise self._undecodable(row, where, failed) from failed
        if (facts.height, facts.width) != (row["height"], row["width"]):
            size = f"{facts.width}×{facts.height}"
            raise self._corrupt(row, f"lists {row['width']}×{row['height']} pixels for a picture of {size}")
        return data, facts

    def position(self, index: int) -> int:
        """The position of the picture in `rows`, which lists all rows."""
        return int(self._positions[range(len(self))[index]])  # negative indices count from the end

    def _row(self, cells: Row) -> dict[str, Json]:
        if fault := _uri_fault(cells["uri"] or ""):
            raise self._corrupt(cells, f"names {cells['uri']!a} as its picture, which {fault}")
        return {name: value for name, value in cells.items() if name != "mask"}

    def _mask(self, cells: Row) -> UInt8[Tensor, "H W"]:
        png = (cells["mask"] or {}).get("bytes")
        if png is None:
            raise self._corrupt(cells, "has no mask")
        try:
            label_HW = decode_label_map(png, self._limits)
        except RowFailed as failed:
            if failed.reason is Reason.TOO_LARGE:
                raise self._too_large(cells, failed) from failed
            raise self._corrupt(cells, f"has a mask that cannot be read ({failed.detail})") from failed
        highest = int((label_HW + np.uint8(1)).max()) - 1  # 255 goes round to 0
        if highest > len(self.classes):
            raise self._corrupt(cells, f"has a mask with {highest}, which is not a class")
        return torch.from_numpy(label_HW)

    def _image(self, index: int, row: Row) -> UInt8[Tensor, "3 H W"]:
        data, where = self._picture(index, row)
        try:
            picture_HW3, _ = decode_picture(data, self._limits)
        except RowFailed as failed:
            raise self._undecodable(row, where, failed) from failed
        return torch.from_numpy(picture_HW3).permute(2, 0, 1)

    def _picture(self, index: int, row: Row) -> tuple[bytes, str]:
        """The bytes that the mask was made for, and their location."""
        inside = self._picture_bytes(index)
        data = self._read(row) if inside is None else inside
        where = self._path(row["uri"]) if inside is None else f"the picture in {self.artifact.place}"
        digest = hashlib.sha256(data).hexdigest()
        if digest != row["sha256"]:
            raise InputError(
                f"{where} is not the picture that the mask of {row['id']!r} was made for: found sha256 {digest}, "
                f"expected {row['sha256']}; restore it, or give the folder of the right pictures as {_ROOT_OPTION}"
            )
        return data, where

    def _undecodable(self, row: Row, where: str, failed: RowFailed) -> InputError:
        if failed.reason is Reason.TOO_LARGE:
            return self._too_large(row, failed)
        return InputError(f"{where} cannot be decoded for {row['id']!r}: {failed.detail}; leave it out")

    def _picture_bytes(self, index: int) -> bytes | None:
        if not self.artifact.plan.config["embed_images"]:
            return None
        data: bytes | None = (self._cells(index, ("image",))["image"] or {}).get("bytes")
        return data

    def _read(self, row: Row) -> bytes:
        if not self.images_root and "://" not in _outermost(row["uri"]):
            raise InputError(
                f"{self.artifact.place} is without its pictures and does not lead to them, so {row['uri']} of "
                f"{row['id']!r} cannot be opened; pass the folder or URL that it is relative to as {_ROOT_OPTION}"
            )
        try:
            return read_source(self.images_root, row["uri"])
        except RowFailed as failed:
            what = "there is no" if failed.reason is Reason.MISSING else "cannot read"
            where = failed.detail if failed.reason is Reason.OUTSIDE_ROOT else self._path(row["uri"])
            raise InputError(
                f"{what} {where}, the picture of {row['id']!r} in {self.artifact.place}; "
                f"pass the folder or URL where the pictures are as {_ROOT_OPTION}"
            ) from failed

    def _path(self, uri: str) -> str:
        source = resolve(self.images_root, uri)
        return f"{source.path}::{source.member}" if source.member else source.path

    def _cells(self, index: int, columns: Sequence[str] = _WITHOUT_PICTURE) -> dict[str, Json]:
        return frame_row(self.artifact, self.position(index), columns)

    def _corrupt(self, row: Row, what: str) -> CorruptArtifact:
        return CorruptArtifact(f"{self.artifact.place}: the row of {row['id']!r} {what}; do not trust this dataset")

    def _too_large(self, row: Row, failed: RowFailed) -> InputError:
        return InputError(
            f"the picture or mask of {row['id']!r} in {self.artifact.place} is too large ({failed.detail}); "
            "pass more as max_pixels= if you trust this dataset"
        )


def open_dataset(
    path: str | os.PathLike[str] | Place,
    images_root: str | os.PathLike[str] | None = None,
    keep: Keep = "kept",
    max_pixels: int = DEFAULT_LIMITS.max_pixels,
) -> Dataset:
    """Opens a dataset at a path or URL; raises if it is missing, unfinished, damaged or of another kind.

    `images_root` is the folder or URL that picture uris are relative to; by default the one that was indexed.
    `keep="all"` includes pictures that the quality rule dropped; failed pictures have no mask and are left out.
    """
    if keep not in ("kept", "all"):
        raise ConfigError(f'keep is {keep!r} and must be "kept" or "all"')
    artifact = open_artifact(path, "dataset")
    rows = artifact.rows(["id", "status", "kept"])
    if repeated := _first_duplicate(rows.column("id")):
        raise CorruptArtifact(f"{artifact.place} has two rows of {repeated!r}; do not trust this dataset")
    is_chosen = pc.equal(rows.column("status"), "ok")
    if keep == "kept":
        is_chosen = pc.and_(is_chosen, rows.column("kept"))
    root = _pictures_root(artifact) if images_root is None else place(images_root).uri
    return Dataset(artifact, root, np.flatnonzero(is_chosen.to_numpy()).tolist(), max_pixels)


Labels = Dataset  # deprecated name


def open_labels(*arguments: Any, **options: Any) -> Dataset:
    """Deprecated name of `open_dataset`."""
    _warn_of_open_labels()
    return open_dataset(*arguments, **options)


@cache  # once per process
def _warn_of_open_labels() -> None:
    warnings.warn("open_labels is now called open_dataset; use that name", DeprecationWarning, stacklevel=3)


def _pictures_root(artifact: Artifact) -> str:
    """The indexed folder of the pictures; "" if it is not known, since masks can be read without it."""
    try:
        images = read_plan(artifact.plan.input("images").place(artifact.place))
    except (MaskmillError, StopIteration):
        return ""
    return ImagesFacts.from_json(images.facts).root


def _first_duplicate(ids: pa.ChunkedArray) -> str:
    counts = pc.value_counts(ids)
    repeated = counts.filter(pc.greater(counts.field("counts"), 1))
    return str(repeated[0]["values"].as_py()) if len(repeated) else ""


def _uri_fault(uri: str) -> str:
    """Why a uri cannot name a picture in the folder of the pictures or at a URL; "" if it can."""
    file = _outermost(uri)
    if file != uri and (fault := path_fault(uri.removeprefix(TAR_SCHEME).rpartition("::")[0])):
        return fault
    scheme, separator, _ = file.partition("://")
    if not separator:
        return path_fault(file)
    return "" if scheme in REMOTE else "is not at a URL of another machine"


def _outermost(uri: str) -> str:
    """The file, or the tar that holds it."""
    return uri.rpartition("::")[2] if uri.startswith(TAR_SCHEME) else uri
