"""FiftyOne's documented ImageSegmentationDirectory, and its own importer where it is installed.

The importer is FiftyOne's; making a dataset of what it gives would need its database.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from builders.small_export import CLASSES, PICTURES, decoded, mask_of, stem_of
from maskmill.manifests.exports.run import Exported

Write = Callable[[str], tuple[Path, Exported]]


def test_masks_and_pictures_have_the_same_names(exported: Write) -> None:
    folder, _ = exported("fiftyone")
    seen: dict[str, Path] = {}
    splits = {path for path in folder.iterdir() if path.is_dir()}
    assert len(splits) == 3
    for split in splits:
        pictures = sorted(path.stem for path in (split / "data").iterdir())
        assert pictures == sorted(path.stem for path in (split / "labels").iterdir())
        seen |= {path.stem: path for path in (split / "labels").iterdir()}
    assert sorted(seen) == sorted(stem_of(identifier) for identifier in PICTURES)
    for identifier in PICTURES:
        np.testing.assert_array_equal(decoded(seen[stem_of(identifier)].read_bytes()), mask_of(identifier))


def test_what_values_mean_is_told(exported: Write) -> None:
    targets = json.loads((exported("fiftyone")[0] / "mask_targets.json").read_text())
    assert targets == {**{str(label): name for label, name in enumerate(CLASSES, 1)}, "255": "undecided"}


@pytest.mark.filterwarnings("ignore")
def test_its_own_importer_reads_it(exported: Write) -> None:
    importers: Any = pytest.importorskip(
        "fiftyone.utils.data.importers", reason="FiftyOne is not installed", exc_type=ImportError
    )
    by_stem = {stem_of(identifier): identifier for identifier in PICTURES}
    seen = []
    for split in [path for path in exported("fiftyone")[0].iterdir() if path.is_dir()]:
        importer = importers.ImageSegmentationDirectoryImporter(dataset_dir=str(split), load_masks=True)
        with importer:
            for picture, _, label in importer:
                identifier = by_stem[Path(picture).stem]
                seen.append(identifier)
                np.testing.assert_array_equal(label.mask, mask_of(identifier))
    assert sorted(seen) == sorted(PICTURES)
