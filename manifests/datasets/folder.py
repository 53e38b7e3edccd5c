"""A folder of pictures, or tar files of them, on disk or at a URL: the first folder of a path is the class."""

import os
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import quote

from ..classes import ClassTable
from ..errors import ConfigError, InputError
from ..files.place import Place, place, split
from ..pictures.sources import path_fault, tar_uri
from ..pictures.tars import PACKED_TAR_SUFFIXES, tar_index
from .layouts import FolderSource
from .listing import PICTURE_SUFFIXES, Listing, PictureEntry, image_id

_ONLY_CLASS = "object"  # for a dataset with masks but no class folders


@dataclass(frozen=True, slots=True)
class _FolderPicture:
    path: str  # below the folder, or inside the tar
    archive: str = ""  # the tar, relative to the listing's root

    @property
    def class_name(self) -> str:
        head, slash, _ = self.path.partition("/")
        return unicodedata.normalize("NFC", head) if slash else ""

    @property
    def uri(self) -> str:
        return tar_uri(self.path, self.archive) if self.archive else self.path


def list_folder(source: FolderSource, known: ClassTable) -> Listing:
    """The pictures by name, or in the order of the tar. Hidden files and other files are skipped.

    Links to folders are not followed; links to files are listed and checked when they are read.
    """
    root = place(source.root)
    if root.uri.lower().endswith(PACKED_TAR_SUFFIXES) and not os.path.isdir(root.uri):
        raise _tar_error(root.uri)
    base, tar = split(root.uri) if _is_tar(root.uri) else (root, "")
    masks = place(source.masks) if source.masks else None
    if masks == root:
        raise ConfigError(
            f"pictures and masks are both in {root}; move the masks to a folder of their own, named by --masks"
        )
    tree = _Tree(base, masks, tar)
    classes = {picture.class_name for picture in tree.pictures()}
    if not classes:
        raise InputError(_nothing_found(root, tar))
    named = sorted(classes - {""}) or ([_ONLY_CLASS] if masks else [])
    table = known.with_classes((name, name) for name in named)
    unnamed = table.index_of(_ONLY_CLASS) if named == [_ONLY_CLASS] and classes == {""} else None
    return Listing(base.uri, table, _entries(tree, table, unnamed), "binary" if masks else "none")


@dataclass(frozen=True, slots=True)
class _Tree:
    """The files of one dataset, walked twice: for classes and for entries."""

    base: Place
    masks: Place | None
    tar: str  # the tar that is the dataset; "" if it is a folder

    def pictures(self) -> Iterator[_FolderPicture]:
        if self.tar:
            yield from self._members(self.tar)
            return
        plain = archive = packed = ""
        for name in self._files():
            lower = name.lower()
            if os.path.splitext(lower)[1] in PICTURE_SUFFIXES:
                plain = plain or name
                yield _FolderPicture(name)
            elif lower.endswith(".tar"):
                for picture in self._members(name):
                    archive = name
                    yield picture
            elif lower.endswith(PACKED_TAR_SUFFIXES):
                packed = packed or name
            if archive and plain:
                raise InputError(
                    f"{self.base} holds both pictures ({plain}) and tar files ({archive}); give one or the other"
                )
        if packed and not plain:
            raise _tar_error(self.base.path(packed))

    def _files(self) -> Iterator[str]:
        own_masks = f"{self.masks}/".removeprefix(f"{self.base.uri.rstrip('/')}/") if self.masks else ""
        for name in self.base.names():
            if _is_hidden(name) or (own_masks and name.startswith(own_masks)):
                continue
            if fault := path_fault(name):
                raise InputError(f"the name of {self.base.path(name)!a} {fault}; rename the file")
            yield name

    def _members(self, archive: str) -> Iterator[_FolderPicture]:
        path = self.base.path(archive)
        if "::" in archive:
            raise InputError(f"the name of {path} contains '::', which separates a member from its tar; rename the tar")
        try:
            index = tar_index(path)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise InputError(f"no tar {path}; check the path") from error
        if index.repeated:
            raise InputError(f"{path} holds {index.repeated!a} twice, and ids must be unique; pack it without repeats")
        for name in index.members:
            if os.path.splitext(name.lower())[1] not in PICTURE_SUFFIXES:
                continue
            if fault := path_fault(name):
                raise InputError(f"{path} holds {name!a}, which {fault}; pack it with other names")
            if not _is_hidden(name):
                yield _FolderPicture(name, archive)

    def mask_of(self, picture: _FolderPicture) -> str:
        """The uri of the mask: relative if masks lie inside the dataset, else a URL."""
        if self.masks is None:
            return ""
        stem = picture.path.rpartition(".")[0]
        if _is_tar(self.masks.uri):
            return tar_uri(f"{stem}.png", self.masks.uri)
        if picture.archive and not self.tar:
            return tar_uri(f"{stem}.png", self.masks.path(picture.archive))
        path = self.masks.path(f"{stem}.png")
        inside = path.removeprefix(f"{self.base.uri.rstrip('/')}/")
        return inside if inside != path or not self.masks.is_local else f"file://{quote(path)}"


def _entries(tree: _Tree, table: ClassTable, unnamed: int | None) -> Iterator[PictureEntry]:
    """`unnamed` is the class of pictures outside class folders, if any."""
    indices = {row.source_id: row.index for row in table.rows}
    for picture in tree.pictures():
        index = indices.get(picture.class_name) if picture.class_name else unnamed
        if picture.class_name and index is None:
            raise InputError(
                f"the folder {picture.class_name} appeared in {tree.base} during listing; run the command again"
            )
        if tree.masks and index is None:
            raise InputError(
                f"{tree.base.path(picture.uri)} lies in no class folder, so the class of its mask is unknown; "
                "move it into the folder of its class"
            )
        path = picture.path if tree.tar or not picture.archive else f"{picture.archive[:-4]}/{picture.path}"
        yield PictureEntry(image_id(path), picture.uri, () if index is None else (index,), mask=tree.mask_of(picture))


def _is_tar(uri: str) -> bool:
    return uri.lower().endswith(".tar") and not os.path.isdir(uri)


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or "/." in name


def _tar_error(path: str) -> InputError:
    return InputError(
        f"{path} is a compressed tar, whose pictures cannot be read one by one; unpack it or make a plain .tar"
    )


def _nothing_found(root: Place, tar: str) -> str:
    if root.is_local and not root.exists():
        return f"no {'tar' if tar else 'folder'} {root}; check the path"
    for name in root.names() if root.is_local and not tar else ():
        if os.path.islink(root.path(name)) and os.path.isdir(root.path(name)):
            return f"no pictures found in {root}; {name} is a link to a folder, which is not followed; give that folder"
    return f"no pictures found in {root}, looked for {', '.join(sorted(PICTURE_SUFFIXES))}; check the path"
