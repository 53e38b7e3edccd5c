"""Hugging Face's datasets read it, by its card and file by file."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from builders.small_export import ANEW, CLASSES, PICTURES, decoded, mask_of, pixels_of
from maskmill.manifests.exports import hf
from maskmill.manifests.exports.run import Exported, export_dataset

Write = Callable[[str], tuple[Path, Exported]]


@pytest.fixture
def datasets(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return pytest.importorskip("datasets", reason="Hugging Face's datasets is not installed")


def check(rows: Any, home: Path, seen: list[str]) -> None:
    for row in rows:
        seen.append(row["id"])
        label_HW = mask_of(row["id"])
        np.testing.assert_array_equal(np.asarray(row["mask"]), label_HW)
        assert row["image"].size == row["mask"].size == label_HW.shape[::-1]
        if row["id"] in ANEW:
            np.testing.assert_array_equal(np.asarray(row["image"]), pixels_of(row["id"], home))


def test_its_card_leads_to_the_splits(home: Path, exported: Write, tmp_path: Path, datasets: Any) -> None:
    folder, _ = exported("hf")
    loaded = datasets.load_dataset(str(folder), cache_dir=str(tmp_path))
    seen: list[str] = []
    assert loaded["train"].num_rows == 6
    for rows in loaded.values():
        labels = rows.features["labels"].feature
        assert labels.names == ["background", *CLASSES]
        check(rows, home, seen)
    assert sorted(seen) == sorted(PICTURES)


def test_its_files_are_read_without_the_card(home: Path, exported: Write, tmp_path: Path, datasets: Any) -> None:
    files = sorted(str(path) for path in (exported("hf")[0] / "data").glob("val-*.parquet"))
    loaded = datasets.load_dataset("parquet", data_files=files, cache_dir=str(tmp_path))["train"]
    seen: list[str] = []
    check(loaded, home, seen)
    assert seen == ["cat/0.1", "nothing"]
    assert [each["name"] for each in loaded[0]["objects"]] == [CLASSES[label - 1] for label in loaded[0]["labels"]]


def test_it_says_what_its_columns_are(exported: Write) -> None:
    folder, _ = exported("hf")
    for path in (folder / "data").iterdir():
        features = json.loads(pq.read_schema(path).metadata[b"huggingface"])["info"]["features"]
        assert features["mask"] == features["image"] == {"_type": "Image"}
    card = (folder / "README.md").read_text()
    assert "# a | small set\n" in card
    assert "| 2 | 🐈\u200d⬛ cat |\n" in card
    assert "| 255 | undecided |\n" in card
    assert "- CC-BY-4.0\n- cc-by-nc-4.0\n" in card


def test_files_and_what_is_read_at_once_are_bounded(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hf, "_FILE_BYTES", 24_000)
    monkeypatch.setattr(hf, "_GROUP_BYTES", 5_000)
    export_dataset(str(home / "dataset"), "hf", str(tmp_path / "hf"), None, False)
    files = sorted((tmp_path / "hf" / "data").glob("train-*.parquet"))
    assert [path.name for path in files] == [f"train-{number:05}.parquet" for number in range(len(files))]
    assert len(files) > 1
    assert max(pq.ParquetFile(path).num_row_groups for path in files) > 1
    rows = [row for path in files for row in pq.read_table(path).to_pylist()]
    assert len(rows) == 6
    for row in rows:
        np.testing.assert_array_equal(decoded(row["mask"]["bytes"]), mask_of(row["id"]))
