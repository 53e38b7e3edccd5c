"""Tar shards as webdataset and as Python's tarfile read them."""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from builders.small_export import ANEW, CLASSES, PICTURES, mask_of, pixels_of, stem_of
from maskmill.manifests.exports import webdataset as written
from maskmill.manifests.exports.run import Exported, export_dataset

Write = Callable[[str], tuple[Path, Exported]]


@pytest.mark.filterwarnings("ignore")
def test_webdataset_reads_pictures_masks_and_what_is_known(home: Path, exported: Write) -> None:
    wds: Any = pytest.importorskip("webdataset", reason="webdataset is not installed")
    folder, _ = exported("webdataset")
    shards = sorted(str(path) for path in folder.glob("*.tar"))
    seen = []
    for sample in wds.WebDataset(shards, shardshuffle=False).decode("pil"):
        identifier = sample["json"]["id"]
        seen.append(identifier)
        assert sample["__key__"] == stem_of(identifier)
        for channel in range(3):  # which webdataset makes of every picture
            np.testing.assert_array_equal(np.asarray(sample["mask.png"])[..., channel], mask_of(identifier))
        picture = sample["jpg"] if "jpg" in sample else sample["png"]
        assert picture.size == mask_of(identifier).shape[::-1]
        if identifier in ANEW:
            np.testing.assert_array_equal(np.asarray(picture), pixels_of(identifier, home))
    assert sorted(seen) == sorted(PICTURES)
    names = json.loads((folder / "classes.json").read_text())
    assert names == {str(label): name for label, name in enumerate(CLASSES, 1)}


def test_shards_are_bounded_and_hold_whole_samples(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(written, "_SHARD_BYTES", 16_000)
    export_dataset(str(home / "dataset"), "webdataset", str(tmp_path / "out"), None, False)
    shards = sorted((tmp_path / "out").glob("train-*.tar"))
    assert len(shards) > 1
    for shard in shards:
        assert shard.stat().st_size <= 16_000 + 1024
        with tarfile.open(shard) as archive:
            names = archive.getnames()
            assert all(member.mtime == member.uid == 0 for member in archive.getmembers())
        stems = [name.partition(".")[0] for name in names]
        assert len(names) == 3 * len(set(stems))
        assert stems == sorted(stems, key=stems.index)


def test_a_tar_ends_as_a_tar_ends(exported: Write) -> None:
    for shard in exported("webdataset")[0].glob("*.tar"):
        data = shard.read_bytes()
        assert len(data) % 512 == 0
        assert data.endswith(bytes(1024))
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            assert len(archive.getnames()) % 3 == 0
