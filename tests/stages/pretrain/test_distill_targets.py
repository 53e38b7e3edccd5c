"""A student's patches get the teacher's tokens of their own place, whatever the crop and however both are fitted."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from maskmill.stages.pretrain.distill_targets import TeacherGrid, crop_places, grid_weights, match_tokens, shows_picture

SIDE = 60  # of a stored picture, in pixels
TEACHER = TeacherGrid(grid=(6, 9), patch=(14, 10))  # a view of 84×90 pixels


def affine_tokens(box: tuple[int, int, int, int], is_flipped: bool = False) -> torch.Tensor:
    """A class token, and for each patch of the teacher's view the place of its centre in the picture, as shares, and a
    sum of both. `box` is the picture's in that view; patches outside it hold nonsense."""
    (rows, columns), (high, wide) = TEACHER.grid, TEACHER.patch
    top, left, bottom, right = box
    row_R = ((torch.arange(rows) + 0.5) * high - top) / (bottom - top)
    column_C = ((torch.arange(columns) + 0.5) * wide - left) / (right - left)
    row_RC, column_RC = torch.meshgrid(row_R, 1 - column_C if is_flipped else column_C, indexing="ij")
    tokens_RCD = torch.stack([row_RC, column_RC, 2 * row_RC - 3 * column_RC + 1], dim=-1)
    is_inside_RC = (row_R >= 0)[:, None] & (row_R < 1)[:, None] & (column_C >= 0) & (column_C < 1)
    tokens_RCD[~is_inside_RC] = 1e6
    return torch.cat([torch.tensor([[7.0, 8.0, 9.0]]), tokens_RCD.flatten(0, 1)])


boxes = st.sampled_from([(0, 0, 84, 90), (0, 0, 84, 41), (0, 0, 33, 90), (20, 0, 70, 90), (0, 49, 84, 90)])
pictures = st.sampled_from([(0, 0, 60, 60), (-10, 0, 70, 60), (0, -7, 60, 65)])
crops = st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(1, 20), st.integers(1, 20))


@settings(max_examples=60, deadline=None)
@given(
    crop=crops,
    box=boxes,
    picture=st.sampled_from([(0, 0, 60, 60), (-10, 0, 70, 60), (0, -7, 60, 65)]),
    flipped=st.booleans(),
)
def test_tokens_that_are_affine_in_position_are_matched_exactly(
    crop: tuple[int, int, int, int], box: tuple[int, int, int, int], picture: tuple[int, int, int, int], flipped: bool
) -> None:
    """By any crop and box: the expected places are those of the student's patch centres, one by one. In a flipped view
    the teacher's grid and its box are mirrored, and so are the student's patches."""
    grid = (3, 4)
    top, left, rows, columns = crop
    seen_box = (box[0], 90 - box[3], box[2], 90 - box[1]) if flipped else box
    tokens = affine_tokens(seen_box, flipped)
    places = crop_places(torch.tensor([crop]), torch.tensor([picture]), torch.tensor([flipped]), grid)
    matched = match_tokens(tokens[None], torch.tensor([seen_box]), TEACHER, places)[0]
    expected = [[7.0, 8.0, 9.0]]
    for row in range(grid[0]):
        for column in range(grid[1]):
            y = (top + (row + 0.5) * rows / grid[0] - picture[0]) / (picture[2] - picture[0])
            across = grid[1] - 1 - column if flipped else column
            x = (left + (across + 0.5) * columns / grid[1] - picture[1]) / (picture[3] - picture[1])
            expected.append([y, x, 2 * y - 3 * x + 1])
    np.testing.assert_allclose(matched.numpy(), expected, atol=2e-4)
    assert shows_picture(places).all()


def test_a_crop_of_one_teacher_patch_gets_its_token() -> None:
    """A student's patch with the centre of a teacher's patch."""
    tokens = torch.randn(1, 1 + 54, 5)
    whole = torch.tensor([[0, 0, SIDE, SIDE]])
    places = crop_places(whole, whole, torch.tensor([False]), TEACHER.grid)
    matched = match_tokens(tokens, torch.tensor([[0, 0, 84, 90]]), TEACHER, places)
    torch.testing.assert_close(matched, tokens, atol=1e-4, rtol=0)


@pytest.mark.parametrize("first", [0, 37])
def test_a_picture_that_covers_no_patch_centre_has_the_nearest_token(first: int) -> None:
    place = torch.tensor([[0.1, 0.9]])
    weights = grid_weights(place, torch.tensor([float(first)]), torch.tensor([first + 3.0]), 20, 2)
    assert weights.tolist() == [[[1.0, 0.0] if first == 0 else [0.0, 1.0]] * 2]


def test_padding_is_not_learned_from() -> None:
    """A wide picture in a square of 60 pixels, above 20 rows of padding."""
    whole = torch.tensor([[0, 0, SIDE, SIDE]])
    places = crop_places(whole, torch.tensor([[0, 0, 40, 60]]), torch.tensor([False]), (3, 2))
    assert shows_picture(places).tolist() == [[True, True, True, True, False, False]]
