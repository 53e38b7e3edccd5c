"""Folders and tars of pictures: classes, masks, order, and what is passed over."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import fsspec
import pytest

from maskmill.manifests.classes import ClassTable
from maskmill.manifests.datasets.layouts import FolderSource
from maskmill.manifests.datasets.listing import PictureEntry
from maskmill.manifests.datasets.readers import list_dataset
from maskmill.manifests.errors import ConfigError, InputError, MaskmillError
from maskmill.manifests.pictures.sources import read_source


def entries_of(root: str, masks: str = "") -> list[PictureEntry]:
    return list(list_dataset(FolderSource(root=root, masks=masks)).entries)


def names_of(root: str, masks: str = "") -> list[str]:
    return [row.name for row in list_dataset(FolderSource(root=root, masks=masks)).classes.rows]


def test_the_first_folder_is_the_class(tree):
    root = tree(["dog/2.jpg", "dog/deep/er/1.PNG", "cat/z é.jpeg", "stray.webp", "dog/notes.txt", "a/readme"])
    listing = list_dataset(FolderSource(root=root))
    assert [(row.index, row.name, row.source_id) for row in listing.classes.rows] == [
        (1, "cat", "cat"),
        (2, "dog", "dog"),
    ]
    assert (listing.root, listing.mask_kind) == (root, "none")
    assert list(listing.entries) == [
        PictureEntry("cat/z é", "cat/z é.jpeg", (1,)),
        PictureEntry("dog/2", "dog/2.jpg", (2,)),
        PictureEntry("dog/deep/er/1", "dog/deep/er/1.PNG", (2,)),
        PictureEntry("stray", "stray.webp", ()),
    ]


def test_a_flat_folder_has_no_classes(tree):
    root = tree(["b.jpg", "a.v1.2.jpg"])
    assert names_of(root) == []
    assert [(entry.id, entry.labels) for entry in entries_of(root)] == [("a.v1.2", ()), ("b", ())]


def test_hidden_files_are_passed_over(tree):
    root = tree([".hidden.jpg", ".cache/1.jpg", "cat/.thumbs/1.jpg", "cat/._1.jpg", "cat/1.jpg"])
    assert [entry.id for entry in entries_of(root)] == ["cat/1"]


def test_known_classes_keep_their_index(tree):
    root = tree(["ant/1.jpg", "cat/1.jpg"])
    listing = list_dataset(FolderSource(root=root), ClassTable().with_classes([("cat", "cat"), ("dog", "dog")]))
    assert [row.name for row in listing.classes.rows] == ["cat", "dog", "ant"]
    assert [entry.labels for entry in listing.entries] == [(3,), (1,)]


def test_names_are_composed_unicode_and_uris_are_what_the_disk_says(tree):
    decomposed = "cafe\u0301"
    (entry,) = entries_of(tree([f"{decomposed}/{decomposed}.jpg"]))
    assert entry.id == "caf\u00e9/caf\u00e9"
    assert entry.uri == f"{decomposed}/{decomposed}.jpg"
    assert names_of(str(Path(tree([])))) == ["caf\u00e9"]


def test_masks_beside_the_pictures(tree, tmp_path):
    root = tree(["cat/deep/1.jpg", "cat/2.png"], under="my data/pictures")
    masks = tree(["cat/deep/1.png"], under="my data/masks")
    listing = list_dataset(FolderSource(root=root, masks=masks))
    entries = list(listing.entries)
    assert listing.mask_kind == "binary"
    assert [entry.labels for entry in entries] == [(1,), (1,)]
    (Path(masks) / "cat/deep/1.png").write_bytes(b"mask")
    assert read_source(listing.root, entries[1].mask) == b"mask"
    assert entries[0].mask.endswith("/my%20data/masks/cat/2.png")


def test_masks_inside_the_dataset_are_no_pictures(tree):
    root = tree(["cat/1.jpg", "masks/cat/1.png", "masks2/1.jpg"])
    assert entries_of(root, f"{root}/masks") == [
        PictureEntry("cat/1", "cat/1.jpg", (1,), mask="masks/cat/1.png"),
        PictureEntry("masks2/1", "masks2/1.jpg", (2,), mask="masks/masks2/1.png"),
    ]
    with pytest.raises(ConfigError, match="masks"):
        entries_of(root, root)


def test_masks_without_classes_show_one_object(tree):
    root, masks = tree(["1.jpg", "2.jpg"]), tree(["1.png"], under="masks")
    assert names_of(root, masks) == ["object"]
    assert [entry.labels for entry in entries_of(root, masks)] == [(1,), (1,)]
    known = ClassTable().with_classes([("cat", "cat")])
    listing = list_dataset(FolderSource(root=root, masks=masks), known)
    assert [entry.labels for entry in listing.entries] == [(2,), (2,)]


def test_a_mask_of_no_class_among_classes_is_refused(tree):
    root = tree(["cat/1.jpg", "stray.jpg"])
    with pytest.raises(InputError, match=r"stray\.jpg"):
        entries_of(root, tree(["stray.png"], under="masks"))


def test_one_tar(tree, tar):
    path = tar(["./dog/2.jpg", "cat/deep/1.jpg", "0.jpg", "cat/._1.jpg", "notes.txt"])
    listing = list_dataset(FolderSource(root=path))
    entries = list(listing.entries)
    assert [(entry.id, entry.labels) for entry in entries] == [("dog/2", (2,)), ("cat/deep/1", (1,)), ("0", ())]
    assert [read_source(listing.root, entry.uri) for entry in entries] == [b"./dog/2.jpg", b"cat/deep/1.jpg", b"0.jpg"]


def test_a_folder_of_tars(tree, tar, tmp_path):
    tar(["cat/1.jpg", "dog/1.jpg"], at="data/b.tar")
    tar(["cat/1.jpg"], at="data/sub/a.tar")
    tar(["labels.json"], at="data/annotations.tar")
    listing = list_dataset(FolderSource(root=str(tmp_path / "data")))
    entries = list(listing.entries)
    assert [(entry.id, entry.labels) for entry in entries] == [
        ("b/cat/1", (1,)),
        ("b/dog/1", (2,)),
        ("sub/a/cat/1", (1,)),
    ]
    assert read_source(listing.root, entries[2].uri) == b"cat/1.jpg"


def test_masks_of_tars(tar, tmp_path, tree):
    single = tar(["cat/1.jpg"])
    (in_folder,) = entries_of(single, tree(["cat/1.png"], under="masks"))
    assert in_folder.mask == "masks/cat/1.png"  # relative to the folder that holds the tar
    (in_tar,) = entries_of(single, tar(["cat/1.png"], at="masks.tar"))
    assert read_source("/nowhere", in_tar.mask) == b"cat/1.png"
    tar(["cat/1.jpg"], at="many/a.tar")
    tar(["cat/1.png"], at="many masks/a.tar")
    (mirrored,) = entries_of(str(tmp_path / "many"), str(tmp_path / "many masks"))
    assert read_source("/nowhere", mirrored.mask) == b"cat/1.png"


def test_a_url(tar):
    memory = fsspec.filesystem("memory")
    for name in ("dog/1.jpg", "cat/2.jpg", "cat/.x.jpg"):
        memory.pipe_file(f"/folder-test/{name}", name.encode())
    listing = list_dataset(FolderSource(root="memory://folder-test/", masks="memory://folder-masks"))
    assert list(listing.entries) == [
        PictureEntry("cat/2", "cat/2.jpg", (1,), mask="memory://folder-masks/cat/2.png"),
        PictureEntry("dog/1", "dog/1.jpg", (2,), mask="memory://folder-masks/dog/1.png"),
    ]
    memory.pipe_file("/tar-test/x.tar", Path(tar(["cat/1.jpg"])).read_bytes())
    for root in ("memory://tar-test/x.tar", "memory://tar-test"):
        listing = list_dataset(FolderSource(root=root))
        (entry,) = listing.entries
        assert read_source(listing.root, entry.uri) == b"cat/1.jpg"


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (["a/1.jpg", "b/1.jpg", "./a/1.jpg"], r"'a/1\.jpg'"),
        (["../1.jpg"], r"\.\./1\.jpg"),
        (["a.txt"], r"data\.tar"),
    ],
)
def test_tars_that_are_refused(tar, members, message):
    with pytest.raises(InputError, match=message):
        entries_of(tar(members))


def test_tars_that_cannot_be_read_by_range(tar, tree, tmp_path):
    packed = tar(["cat/1.jpg"], at="packed/x.tar.gz", mode="w:gz")
    for root in (packed, str(tmp_path / "packed")):
        with pytest.raises(InputError, match=r"x\.tar\.gz .*compressed"):
            entries_of(root)
    tree(["cat/1.jpg"], under="packed")
    assert [entry.id for entry in entries_of(str(tmp_path / "packed"))] == ["cat/1"]
    (tmp_path / "not.tar").write_bytes(b"<html>" * 200)
    with pytest.raises(InputError, match=r"not\.tar"):
        entries_of(str(tmp_path / "not.tar"))
    with pytest.raises(InputError, match=r"gone\.tar"):
        entries_of(str(tmp_path / "gone.tar"))
    tar(["1.jpg"], at="odd/a::b.tar")
    with pytest.raises(InputError, match="a::b"):
        entries_of(str(tmp_path / "odd"))


def test_a_folder_that_is_called_tar(tree):
    assert [entry.id for entry in entries_of(tree(["1.jpg"], under="set.tar"))] == ["1"]


def test_unpacked_beside_packed_would_list_everything_twice(tar, tree):
    tar(["cat/1.jpg"], at="data/x.tar")
    with pytest.raises(InputError, match=r"cat/1\.jpg.*x\.tar"):
        entries_of(tree(["cat/1.jpg"]))


def test_nothing_found(tree, tmp_path):
    with pytest.raises(InputError, match=r"/data\b.*\.avif, .*\.jpg"):
        entries_of(tree(["notes.txt"]))
    with pytest.raises(InputError, match="/gone"):
        entries_of(str(tmp_path / "gone"))


def test_links_to_files_are_listed_and_links_to_folders_not_followed(tree, tmp_path):
    elsewhere = tree(["1.jpg"], under="elsewhere")
    root = Path(tree(["cat/1.jpg"]))
    (root / "cat/broken.jpg").symlink_to("nothing.jpg")
    (root / "cat/out.jpg").symlink_to(f"{elsewhere}/1.jpg")
    (root / "more").symlink_to(elsewhere)
    assert [entry.id for entry in entries_of(str(root))] == ["cat/1", "cat/broken", "cat/out"]
    (tmp_path / "links").mkdir()
    (tmp_path / "links/train").symlink_to(elsewhere)
    with pytest.raises(InputError, match=r"train .*link"):
        entries_of(str(tmp_path / "links"))
    (tmp_path / "root").symlink_to(elsewhere)
    assert [entry.id for entry in entries_of(str(tmp_path / "root"))] == ["1"]


def test_names_that_no_text_can_hold(tree):
    root = tree(["1.jpg"])
    Path(os.fsdecode(os.fsencode(root) + b"/caf\xe9.jpg")).write_bytes(b"")
    with pytest.raises(InputError, match=r"caf\\udce9.*UTF-8") as caught:
        entries_of(root)
    str(caught.value).encode()


def test_more_classes_than_a_map_holds(tree):
    with pytest.raises(InputError, match="255"):
        entries_of(tree([f"{number}/1.jpg" for number in range(255)]))


def test_a_folder_that_may_not_be_read_stops_the_listing(tree):
    root = tree(["cat/1.jpg", "dog/1.jpg"])
    (Path(root) / "dog").chmod(0)
    code = (
        "import sys; from maskmill.manifests.datasets.layouts import FolderSource\n"
        "from maskmill.manifests.datasets.readers import list_dataset\n"
        "from maskmill.manifests.errors import EnvironmentFault\n"
        "try: list_dataset(FolderSource(root=sys.argv[1]))\nexcept EnvironmentFault as fault: print(fault)"
    )
    # A superuser reads everything, so the right to do so is given up.
    drop = "-dac_override,-dac_read_search"
    rights = ["setpriv", f"--inh-caps={drop}", f"--bounding-set={drop}"] if os.geteuid() == 0 else []
    done = subprocess.run([*rights, sys.executable, "-c", code, root], capture_output=True, text=True, check=True)
    (Path(root) / "dog").chmod(0o700)
    assert f"{root}/dog: Permission denied" in done.stdout


def test_listing_opens_no_picture(tree, monkeypatch):
    root = tree(["cat/1.jpg"])

    opens = open

    def refuse(path: Any, *more: Any, **options: Any) -> Any:
        assert not str(path).endswith(".jpg"), "opened while listing"
        return opens(path, *more, **options)  # of whoever else opens anything meanwhile

    monkeypatch.setattr("builtins.open", refuse)
    assert [entry.id for entry in entries_of(root)] == ["cat/1"]


def test_the_reference_pictures(reference):
    folder = reference / "data" / "caltech-outlines"
    listing = list_dataset(FolderSource(root=str(folder / "images"), masks=str(folder / "masks")))
    entries = list(listing.entries)
    assert (len(entries), len(listing.classes)) == (877, 16)
    assert len({entry.id for entry in entries}) == 877
    for entry in entries[::50]:
        assert read_source(listing.root, entry.mask).startswith(b"\x89PNG")
        assert entry.labels == (listing.classes.index_of(entry.id.partition("/")[0]),)


def test_errors_are_the_users_to_act_on(tree):
    with pytest.raises(MaskmillError) as caught:
        entries_of(tree(["notes.txt"]))
    assert caught.value.exit_code == 2
