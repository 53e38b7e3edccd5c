"""Group masking: how much is covered, where, with what, and which patches count."""

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor

from maskmill.manifests.errors import ConfigError
from maskmill.stages.pretrain.draws import draws_at
from maskmill.stages.pretrain.masking import Masking, corrupt_pictures, group_mask, patch_mask


def pictures(batch: int, height: int = 48, width: int = 32) -> Tensor:
    """Every value says which picture it is of."""
    shade = torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(0))
    return shade / 2 + torch.arange(1.0, batch + 1)[:, None, None, None]


@given(
    st.floats(0, 0.875, width=32),
    st.sampled_from([1, 2, 4, 8]),
    st.floats(0.05, 1.0),
    st.integers(1, 5),
    st.integers(0, 1000),
)
def test_masks_cover_what_was_drawn_in_aligned_cells(share, align, longest, batch, seed):
    masking = Masking(align_px=align, longest_side=longest)
    shares = torch.full((batch,), share)
    mask = group_mask(shares, (48, 32), masking, draws_at(seed))
    assert mask.shape == (batch, 48, 32)
    cells = mask.view(batch, 48 // align, align, 32 // align, align).float().mean(dim=(2, 4))
    assert ((cells == 0) | (cells == 1)).all()
    covered = mask.float().mean(dim=(1, 2))
    assert (covered >= shares - 1e-6).all()
    largest_rectangle = max(align, 48 * longest + align / 2) * max(align, 32 * longest + align / 2) / (48 * 32)
    assert (covered < shares + largest_rectangle + 1e-6).all()
    assert bool(mask.any()) == (share > 0)


@pytest.mark.parametrize(("align", "size"), [(1, (50, 40)), (4, (48, 40)), (16, (224, 224))])
def test_one_rectangle_has_sides_and_places_in_range(align, size):
    """Where nearly nothing is wanted, the first rectangle is the only one."""
    masks = group_mask(torch.full((400,), 1e-6), size, Masking(align_px=align), draws_at(1))
    first_rows, first_columns, row_sides = set(), set(), set()
    for mask in masks.numpy():
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        assert mask.sum() == len(rows) * len(columns)
        for found, length in ((rows, size[0]), (columns, size[1])):
            assert found[0] % align == 0
            assert (np.diff(found) == 1).all()
            assert align <= len(found) < max(align, 0.3 * length) + align / 2 + 1e-6
        first_rows.add(rows[0])
        first_columns.add(columns[0])
        if rows[-1] < size[0] - 1:
            row_sides.add(len(rows))
    assert {0, size[0] - align} <= first_rows
    assert {0, size[1] - align} <= first_columns
    assert {align, (int(0.3 * size[0]) + align // 2) // align * align} <= row_sides


def test_pictures_with_other_shares_are_covered_each_by_its_own():
    shares = torch.tensor([0.0, 0.1, 0.5, 0.9])
    covered = group_mask(shares, (64, 64), Masking(), draws_at(2)).float().mean(dim=(1, 2))
    assert (covered >= shares).all()
    assert (covered < shares + 0.1).all()


def test_the_area_is_drawn_from_one_half_to_the_largest():
    given_pictures = torch.zeros(300, 3, 32, 32)
    masking = Masking(largest_dropped=0.75, replaced=0.0, longest_side=0.1)
    covered = corrupt_pictures(given_pictures, masking, 16, draws_at(0)).is_corrupted.float().mean(dim=(1, 2))
    assert 0.5 <= float(covered.min()) < 0.52
    assert 0.73 < float(covered.max()) < 0.76
    assert 0.61 < float(covered.mean()) < 0.64


def test_defaults_are_half_dropped_and_the_others_replaced_by_three_tenths():
    given_pictures = pictures(200)
    found = corrupt_pictures(given_pictures, Masking(longest_side=0.15), 16, draws_at(0))
    covered = found.is_corrupted.float().mean(dim=(1, 2))
    dropped = torch.tensor(
        [bool((p[:, m] == 0).all()) for p, m in zip(found.pictures, found.is_corrupted, strict=True)]
    )
    assert 70 < int(dropped.sum()) < 130
    assert (covered[dropped] >= 0.5).all()
    assert (covered[dropped] < 0.53).all()
    assert (covered[~dropped] >= 0.3).all()
    assert (covered[~dropped] < 0.33).all()


@pytest.mark.parametrize("replaced", [0.0, 0.5, 1.0])
def test_only_masked_pixels_change_and_the_given_pictures_stay(replaced):
    given_pictures = pictures(6)
    before = given_pictures.clone()
    found = corrupt_pictures(given_pictures, Masking(replaced=replaced), 16, draws_at(0))
    assert torch.equal(given_pictures, before)
    same = (found.pictures == given_pictures).all(dim=1)
    assert torch.equal(same, ~found.is_corrupted)


@pytest.mark.parametrize("batch", [2, 3, 7])
def test_replaced_parts_are_another_picture_at_the_same_place(batch):
    given_pictures = pictures(batch)
    donors = set()
    for seed in range(40):
        found = corrupt_pictures(given_pictures, Masking(replaced=1.0), 16, draws_at(seed))
        for b in range(batch):
            mask = found.is_corrupted[b]
            source = {int(value) - 1 for value in found.pictures[b][:, mask].flatten()}
            assert len(source) == 1
            donor = source.pop()
            assert torch.equal(found.pictures[b][:, mask], given_pictures[donor][:, mask])
            donors.add((b, donor))
    assert donors == {(b, donor) for b in range(batch) for donor in range(batch) if donor != b}


def test_noise_is_normal():
    found = corrupt_pictures(pictures(20), Masking(replaced=0.0, fill="noise"), 16, draws_at(0))
    noise = found.pictures.permute(0, 2, 3, 1)[found.is_corrupted]
    assert abs(float(noise.mean())) < 0.02
    assert abs(float(noise.std()) - 1) < 0.02


@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.sampled_from([1, 2, 3, 8]), st.floats(0, 1))
def test_a_patch_is_masked_when_more_than_half_of_it_is(batch, rows, columns, patch, share):
    height, width = rows * patch, columns * patch
    mask = torch.rand(batch, height, width, generator=torch.Generator().manual_seed(patch)) < share
    found = patch_mask(mask, patch)
    assert found.shape == (batch, rows * columns)
    for b in range(batch):
        for r in range(rows):
            for c in range(columns):
                pixels = mask[b, r * patch : (r + 1) * patch, c * patch : (c + 1) * patch]
                assert bool(found[b, r * columns + c]) == (int(pixels.sum()) > patch * patch / 2)


def test_exactly_half_a_patch_is_not_masked():
    mask = torch.zeros(1, 4, 4, dtype=torch.bool)
    mask[:, :2] = True
    assert not patch_mask(mask, 4).any()
    mask[0, 2, 0] = True
    assert patch_mask(mask, 4).all()


def test_masks_aligned_to_patches_mask_them_whole():
    found = corrupt_pictures(pictures(8), Masking(align_px=16), 16, draws_at(0))
    whole = found.is_masked.view(8, 3, 2).repeat_interleave(16, dim=1).repeat_interleave(16, dim=2)
    assert torch.equal(whole, found.is_corrupted)


@pytest.mark.parametrize("fill", ["zeros", "noise"])
def test_the_same_generator_gives_the_same_bytes(fill):
    given_pictures, masking = pictures(5), Masking(fill=fill)
    before = torch.get_rng_state()
    first, again, other = (corrupt_pictures(given_pictures, masking, 16, draws_at(0, step)) for step in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.pictures, again.pictures)
    assert torch.equal(first.is_corrupted, again.is_corrupted)
    assert not torch.equal(first.is_corrupted, other.is_corrupted)


def test_nothing_is_masked_where_nothing_is_to_be():
    given_pictures = pictures(3)
    found = corrupt_pictures(given_pictures, Masking(largest_dropped=0.0, largest_replaced=0.0), 16, draws_at(0))
    assert torch.equal(found.pictures, given_pictures)
    assert not found.is_corrupted.any()
    assert not found.is_masked.any()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"largest_dropped": 0.95}, "largest_dropped.*0.95.*0.9"),
        ({"replaced": -0.1}, "replaced.*-0.1.*0 to 1"),
        ({"align_px": 0}, "align_px.*0"),
        ({"longest_side": 0.0}, "longest_side.*0.0"),
    ],
)
def test_what_cannot_be_is_refused(wrong, message):
    with pytest.raises(ConfigError, match=message):
        Masking(**wrong)


def test_pictures_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match=r"48x32.*5"):
        corrupt_pictures(pictures(2), Masking(align_px=5), 16, draws_at(0))
    with pytest.raises(ConfigError, match=r"48x32.*14"):
        corrupt_pictures(pictures(2), Masking(), 14, draws_at(0))
    with pytest.raises(ConfigError, match="one picture"):
        corrupt_pictures(pictures(1), Masking(), 16, draws_at(0))
    assert corrupt_pictures(pictures(1), Masking(replaced=0.0), 16, draws_at(0)).is_corrupted.any()
