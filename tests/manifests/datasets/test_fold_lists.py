"""The lists of Pascal-5i and COCO-20i, as they are published."""

import pickle

import pytest

from maskmill.manifests.datasets.fold_lists import FoldList, fold_classes, read_fold
from maskmill.manifests.errors import ConfigError, InputError


@pytest.mark.parametrize("fold", range(4))
def test_pascal_lists_are_whole(reference, fold):
    """Counts are those that the lists' users report: lines per fold, and 11,394 … 11,594 episodes an epoch."""
    folder = str(reference / "splits/pascal")
    novel, base = (read_fold("pascal-5i", folder, fold, part) for part in ("novel", "base"))
    assert len(novel.lines) == [346, 451, 725, 346][fold]
    assert len(base.lines) == [11394, 10255, 7797, 11594][fold]
    assert len({image for image, _ in novel.lines}) == [345, 433, 587, 326][fold]
    assert {label for _, label in novel.lines} == set(novel.classes)
    assert {label for _, label in base.lines} == set(base.classes)
    assert sorted(novel.classes + base.classes) == list(range(1, 21))


def test_coco_lists_are_whole(reference):
    folder = str(reference / "splits/coco")
    novel, base = (read_fold("coco-20i", folder, 0, part) for part in ("novel", "base"))
    assert (len(novel.lines), len(base.lines)) == (35783, 95476)
    assert (len({image for image, _ in novel.lines}), len({image for image, _ in base.lines})) == (26052, 62040)
    assert novel.classes == tuple(range(1, 81, 4))
    assert novel.lines[0][0].startswith("val2014/COCO_val2014_0000")
    assert not novel.lines[0][0].endswith(".jpg")


@pytest.mark.parametrize(("benchmark", "count"), [("pascal-5i", 20), ("coco-20i", 80)])
def test_folds_share_the_classes_out(benchmark, count):
    novel = [fold_classes(benchmark, fold, "novel") for fold in range(4)]
    assert sorted(label for classes in novel for label in classes) == list(range(1, count + 1))
    for fold, classes in enumerate(novel):
        assert set(fold_classes(benchmark, fold, "base")) == set(range(1, count + 1)) - set(classes)


def test_novel_classes_are_in_a_row_or_every_fourth():
    assert fold_classes("pascal-5i", 2, "novel") == (11, 12, 13, 14, 15)
    assert fold_classes("coco-20i", 3, "novel")[:3] == (4, 8, 12)


@pytest.fixture
def folder(tmp_path):
    for part in ("trn", "val"):
        (tmp_path / part).mkdir()
        for fold in range(4):
            (tmp_path / part / f"fold{fold}.txt").write_text(f"{part}{fold}__{5 * fold + 1:02d}\n")
    return tmp_path


def test_base_pictures_are_those_of_the_other_folds_in_order(folder):
    assert read_fold("pascal-5i", str(folder), 1, "base") == FoldList(
        tuple(each for each in range(1, 21) if each not in range(6, 11)), (("trn0", 1), ("trn2", 11), ("trn3", 16))
    )
    assert read_fold("pascal-5i", str(folder), 1, "novel") == FoldList((6, 7, 8, 9, 10), (("val1", 6),))


@pytest.mark.parametrize("line", ["2007_000032", "2007_000032__06", "2007_000032__1", "__01"])
def test_a_line_that_is_none_of_the_fold_is_refused(folder, line):
    (folder / "val/fold0.txt").write_text(f"a__01\n\n{line}\n")
    with pytest.raises(InputError, match=r"fold0\.txt line 3 .*ID__CLASS.*01.*05"):
        read_fold("pascal-5i", str(folder), 0, "novel")


def coco_file(folder, held):
    (folder / "val/fold0.pkl").write_bytes(pickle.dumps(held))
    return read_fold("coco-20i", str(folder), 0, "novel")


def test_names_by_class_become_ids(folder):
    held: dict[int, list[str]] = {key: [] for key in range(80)}
    held |= {0: ["val2014/b.jpg", "val2014/a.jpg"], 4: ["val2014/b.jpg"]}
    assert coco_file(folder, held).lines == (("val2014/b", 1), ("val2014/a", 1), ("val2014/b", 5))


@pytest.mark.parametrize("held", [{1: ["a.jpg"]}, {"0": ["a.jpg"]}, {0: "a.jpg"}, {0: [3]}, {200: ["a.jpg"]}])
def test_lists_of_another_fold_or_kind_are_refused(folder, held):
    with pytest.raises(InputError, match=r"fold 0|fold0"):
        coco_file(folder, held)


def test_a_pickle_of_no_classes_is_refused(folder):
    with pytest.raises(InputError, match="class"):
        coco_file(folder, ["a.jpg"])


def test_what_is_not_there_is_named(folder):
    with pytest.raises(InputError, match=r"val/fold2\.pkl"):
        read_fold("coco-20i", str(folder), 2, "novel")
    with pytest.raises(ConfigError, match=r"4\b.*pascal-5i.*0 to 3"):
        read_fold("pascal-5i", str(folder), 4, "novel")
