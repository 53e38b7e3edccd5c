"""How much of a cell is of a mask: against pixels painted one by one."""

import numpy as np
from hypothesis import given, strategies as st

from maskmill.manifests.artifact.facts import MapsFacts, WeightsFacts
from maskmill.manifests.classes import ClassTable
from maskmill.stages.enhance.cells import cells_of
from maskmill.stages.vision.cell_shares import cell_shares


@given(st.integers(1, 3), st.integers(1, 3), st.integers(0, 99))
def test_shares_are_those_of_the_picture_painted_into_its_box(rows: int, columns: int, seed: int) -> None:
    """Every pixel of the picture as a rectangle of whole pixels in the view."""
    generator = np.random.default_rng(seed)
    mask_IJ = generator.random((4, 5)) < 0.5
    box = (2, 1, 2 + 4 * rows, 1 + 5 * columns)
    view = np.zeros((16, 18))
    view[box[0] : box[2], box[1] : box[3]] = mask_IJ.repeat(rows, axis=0).repeat(columns, axis=1)
    wanted_RC = view.reshape(4, 4, 3, 6).mean(axis=(1, 3))
    (found_RC,) = cell_shares(mask_IJ[None], box, (4, 6), (4, 3))
    np.testing.assert_allclose(found_RC, wanted_RC, rtol=0, atol=1e-6)


def test_a_picture_larger_than_its_box_keeps_its_area() -> None:
    mask_IJ = np.random.default_rng(0).random((37, 23)) < 0.3
    (found_RC,) = cell_shares(mask_IJ[None], (0, 0, 12, 8), (4, 4), (4, 3))
    assert found_RC[:, 2].max() == found_RC[3].max() == 0
    np.testing.assert_allclose(found_RC[:3, :2].mean(), mask_IJ.mean(), rtol=1e-5)


def test_cells_are_patches_or_lie_within_them() -> None:
    weights = WeightsFacts("", "", "")
    grid, patch = (2, 3), (4, 4)
    facts = MapsFacts(classes=ClassTable(), weights=weights, backbone="", grid=grid, patch=patch, align_corners=True)
    maps = np.random.default_rng(0).random((2, 3, 2, 3)).astype(np.float32)
    patches, halves = cells_of(facts, 1), cells_of(facts, 2)
    assert patches.upsample(maps) is maps
    assert (halves.grid, halves.size, halves.upsample(maps).shape) == ((4, 6), (2, 2), (2, 3, 4, 6))
    box = (0, 0, 8, 7)
    np.testing.assert_array_equal(halves.valid(box)[::2, ::2], patches.valid(box))
    np.testing.assert_array_equal(halves.upsample(maps)[:, :, [0, -1], [0, -1]], maps[:, :, [0, -1], [0, -1]])
