"""VOC trees, lists and labels."""

import json
from pathlib import Path

import pytest

from maskmill.manifests.classes import ClassTable
from maskmill.manifests.datasets.layouts import VocSource
from maskmill.manifests.datasets.listing import Listing, PictureEntry
from maskmill.manifests.datasets.readers import list_dataset
from maskmill.manifests.errors import ConfigError, InputError

OFFICIAL = "aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person pottedplant"
OFFICIAL += " sheep sofa train tvmonitor"


def xml(*names: str, difficult: str = "0", part: str = "") -> str:
    parts = f"<part><name>{part}</name></part>" if part else ""
    objects = "".join(
        f"<object><name>{name}</name>{parts}<difficult>{difficult}</difficult></object>" for name in names
    )
    return f"<annotation><filename>x</filename>{objects}</annotation>"


def labels_of(listing: Listing) -> dict[str, tuple[int, ...] | None]:
    return {entry.id: entry.labels for entry in listing.entries}


def main_lists(part: str, present: dict[str, dict[str, int]]) -> dict[str, str]:
    """ImageSets/Main/CLASS_part.txt for all classes, from picture → class → value."""
    return {
        f"ImageSets/Main/{name}_{part}.txt": "".join(
            f"{picture} {values.get(name, -1):2d}\n" for picture, values in present.items()
        )
        for name in OFFICIAL.split()
    }


def test_a_split_with_xml(tree):
    root = tree(
        {
            "JPEGImages/b.jpg": "",
            "JPEGImages/a.jpg": "",
            "JPEGImages/unlisted.jpg": "",
            "ImageSets/Segmentation/val.txt": "b\na\n\ngone\n",
            "ImageSets/Main/val.txt": "unlisted\n",
            "Annotations/a.xml": xml("tvmonitor", "aeroplane", "aeroplane", part="head"),
            "Annotations/b.xml": xml("cat", difficult="1"),
            "Annotations/gone.xml": xml("person"),
            "SegmentationClassAug/a.png": "",
        }
    )
    listing = list_dataset(VocSource(root=root, split="val", masks="SegmentationClassAug"))
    assert [row.name for row in listing.classes.rows] == OFFICIAL.split()
    assert [(row.index, row.source_id) for row in listing.classes.rows] == [(n, str(n)) for n in range(1, 21)]
    assert (listing.root, listing.mask_kind) == (root, "indexed")
    assert list(listing.entries) == [
        PictureEntry("b", "JPEGImages/b.jpg", (), "val", "SegmentationClassAug/b.png"),
        PictureEntry("a", "JPEGImages/a.jpg", (1, 20), "val", "SegmentationClassAug/a.png"),
        PictureEntry("gone", "JPEGImages/gone.jpg", (15,), "val", "SegmentationClassAug/gone.png"),
    ]


def test_a_split_only_in_main_and_other_picture_suffixes(tree):
    root = tree(
        {
            "JPEGImages/a.png": "",
            "JPEGImages/b.jpg": "",
            "JPEGImages/b.png": "",
            "JPEGImages/c.JPG": "",
            "ImageSets/Main/all.txt": "\ufeffa\r\nb\r\nc\r\n",
            **{f"Annotations/{name}.xml": xml() for name in "abc"},
        }
    )
    entries = list(list_dataset(VocSource(root=root, split="all")).entries)
    assert [entry.uri for entry in entries] == ["JPEGImages/a.png", "JPEGImages/b.jpg", "JPEGImages/c.JPG"]
    assert [(entry.id, entry.mask) for entry in entries] == [("a", ""), ("b", ""), ("c", "")]


def test_fold_lists_carry_their_own_labels(tree):
    root = tree({"JPEGImages/a.jpg": "", "JPEGImages/b.jpg": "", "Annotations/a.xml": xml("cat")})
    folds = tree({"fold0.txt": "b__20\na__02\nb__01\nb__20\n"}, under="lists")
    listing = list_dataset(VocSource(root=root, list_file=f"{folds}/fold0.txt"))
    assert [(entry.id, entry.labels, entry.split) for entry in listing.entries] == [("b", (1, 20), ""), ("a", (2,), "")]
    assert listing.mask_kind == "none"


@pytest.mark.parametrize("line", ["a", "a.jpg", "/JPEGImages/a.jpg /SegmentationClassAug/a.png"])
def test_plain_lists(tree, line):
    root = tree({"JPEGImages/a.jpg": "", "Annotations/a.xml": xml("cat"), "my list.txt": line})
    listing = list_dataset(VocSource(root=root, list_file=f"{root}/my list.txt"))
    assert labels_of(listing) == {"a": (8,)}


def test_labels_from_image_sets(tree):
    """0 is "difficult objects only": absent, as in the XML where such objects do not count."""
    train = main_lists("train", {"a": {"cat": 1, "dog": 0}, "b": {}})
    trainval = main_lists("trainval", {"a": {"cat": 1, "dog": 0}, "b": {}, "c": {"person": 1, "aeroplane": 1}})
    root = tree({"JPEGImages/a.jpg": "", "ImageSets/Segmentation/train.txt": "a\nb\nc\n", **train, **trainval})
    assert labels_of(list_dataset(VocSource(root=root, split="train"))) == {"a": (8,), "b": (), "c": (1, 15)}
    lists = tree({"mine.txt": "c\n"}, under="lists")
    assert labels_of(list_dataset(VocSource(root=root, list_file=f"{lists}/mine.txt"))) == {"c": (1, 15)}


def test_an_incomplete_set_of_class_lists_would_drop_labels(tree):
    lists = main_lists("train", {"a": {"cat": 1}})
    del lists["ImageSets/Main/cat_train.txt"]
    root = tree({"JPEGImages/a.jpg": "", "ImageSets/Segmentation/train.txt": "a\n", **lists})
    with pytest.raises(InputError, match=r"cat_train\.txt"):
        list_dataset(VocSource(root=root, split="train"))


def test_without_labels_the_way_out_is_named(tree):
    root = tree(
        {
            "JPEGImages/a.jpg": "",
            "JPEGImages/b.jpg": "",
            "ImageSets/Segmentation/train.txt": "a\nb\n",
            "Annotations/a.xml": xml("cat"),
            "SegmentationClass/a.png": "",
        }
    )
    with pytest.raises(InputError, match=r"1 of 2 .* first b.*--labels-from masks") as caught:
        list_dataset(VocSource(root=root, split="train", masks="SegmentationClass"))
    assert caught.value.exit_code == 2
    from_masks = VocSource(root=root, split="train", masks="SegmentationClass", labels_from="masks")
    assert labels_of(list_dataset(from_masks)) == {"a": None, "b": None}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "--split"),
        ({"split": "train", "list_file": "/x.txt"}, "--split"),
        ({"split": "../../x"}, "--split"),
        ({"split": "train", "masks": "/etc"}, "--masks"),
        ({"split": "train", "labels_from": "masks"}, "--masks"),
    ],
)
def test_options_that_cannot_work(options, message):
    with pytest.raises(ConfigError, match=message):
        VocSource(root="/data", **options)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a__21\n", r"line 1.*21"),
        ("a__00\n", r"line 1.*00"),
        ("a__01\nb\n", r"line 2.*ID__CLASS"),
        ("b\n../a\n", r"line 2.*'\.\.'"),
        ("/etc/passwd\n", r"line 1.*absolute"),
        ("a\nb\na\n", r"line 3"),
        ("a -1\n", r"line 1"),
        (" \n\n", r"list\.txt"),
    ],
)
def test_lists_that_are_wrong(tree, text, message):
    root = tree({"JPEGImages/a.jpg": "", "list.txt": text})
    with pytest.raises(InputError, match=message):
        list_dataset(VocSource(root=root, list_file=f"{root}/list.txt"))


def test_files_that_are_not_there_or_not_what_they_should_be(tree, tmp_path):
    root = tree(
        {"JPEGImages/a.jpg": "", "ImageSets/Segmentation/train.txt": "a\n", "Annotations/a.xml": xml("unicorn")}
    )
    with pytest.raises(InputError, match=r"a\.xml .*'unicorn'"):
        list(list_dataset(VocSource(root=root, split="train")).entries)
    (Path(root) / "Annotations/a.xml").write_text("<annotation>")
    with pytest.raises(InputError, match=r"a\.xml .*XML"):
        list(list_dataset(VocSource(root=root, split="train")).entries)
    with pytest.raises(InputError, match=r"\bval\b.*Segmentation/train\.txt"):
        list_dataset(VocSource(root=root, split="val"))
    with pytest.raises(InputError, match=r"nothing\.txt"):
        list_dataset(VocSource(root=root, list_file=f"{root}/nothing.txt"))
    with pytest.raises(InputError, match="folder"):
        list_dataset(VocSource(root=root, list_file=root))
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(InputError, match="UTF-8"):
        list_dataset(VocSource(root=root, list_file=f"{tmp_path}/latin.txt"))
    with pytest.raises(InputError, match="Segmentation_Class"):
        list_dataset(VocSource(root=root, split="train", masks="Segmentation_Class"))
    above = str(Path(root).parent)
    with pytest.raises(InputError, match=r"JPEGImages.*data/Annotations/a\.xml"):
        list_dataset(VocSource(root=above, split="train"))


def test_masks_hold_class_numbers_so_the_table_must_begin_with_them(tree):
    root = tree({"JPEGImages/a.jpg": "", "list.txt": "a__01\n"})
    source = VocSource(root=root, list_file=f"{root}/list.txt")
    table = list_dataset(source).classes
    assert list_dataset(source, table).classes == table
    with pytest.raises(InputError, match="aeroplane"):
        list_dataset(source, ClassTable().with_classes([("cat", "cat")]))


def test_the_reference_pictures(reference):
    root = str(reference / "data" / "voc-mini")
    (name,) = (path.stem for path in (reference / "data/voc-mini/ImageSets/Segmentation").iterdir())
    listing = list_dataset(VocSource(root=root, split=name, masks="SegmentationClass", labels_from="masks"))
    entries = list(listing.entries)
    assert len(entries) == 72
    assert all((Path(root) / entry.uri).is_file() and (Path(root) / entry.mask).is_file() for entry in entries)
    with pytest.raises(InputError, match="--labels-from masks"):
        list_dataset(VocSource(root=root, split=name, masks="SegmentationClass"))


@pytest.mark.parametrize("fold", [0, 1])
def test_every_published_episode_joins(reference, tree, fold):
    lists = reference / "splits" / "pascal" / "val" / f"fold{fold}.txt"
    pictures = {line.partition("__")[0] for line in lists.read_text().splitlines()}
    root = tree({f"JPEGImages/{name}.jpg": "" for name in pictures})
    labels = labels_of(list_dataset(VocSource(root=root, list_file=str(lists))))
    files = sorted((reference / "golden" / "episodes").glob(f"pascal_*_fold{fold}.json"))
    assert len(files) == 3
    for file in files:
        for query, classes, supports, presence in json.loads(file.read_text()):
            for index, of_class, present in zip(classes, supports, presence, strict=True):
                assert (index in (labels[query] or ())) == bool(present)
                assert all(index in (labels[support] or ()) for support in of_class)
