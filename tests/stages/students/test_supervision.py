"""Masks of a pair from label maps."""

import numpy as np
import pytest
import torch

from maskmill.stages.students.supervision import query_target, support_mask

LABELS = torch.tensor([[0, 3, 3, 255], [7, 3, 0, 0], [7, 7, 255, 255]], dtype=torch.uint8)


@pytest.mark.parametrize("size", [(3, 4), (6, 8), (5, 7), (2, 2), (1, 9)])
def test_targets_take_the_nearest_pixel(size):
    rows = np.floor(np.arange(size[0]) * 3 / size[0]).astype(int)
    columns = np.floor(np.arange(size[1]) * 4 / size[1]).astype(int)
    expected = LABELS.numpy()[np.ix_(rows, columns)]
    assert np.array_equal(support_mask(LABELS, 3, size).numpy(), expected == 3)
    assert np.array_equal(query_target(LABELS, 3, size).numpy(), expected == 3)
    ignoring = query_target(LABELS, 3, size, "ignore").numpy()
    assert np.array_equal(ignoring, np.where(expected == 255, 255, expected == 3))


def test_a_class_that_is_not_there_is_background():
    assert not query_target(LABELS, 9, (3, 4)).any()
    assert not support_mask(LABELS, 9, (3, 4)).any()
    assert set(query_target(LABELS, 9, (3, 4), "ignore").unique().tolist()) == {0, 255}


def test_void_everywhere_is_background_or_nothing():
    void = torch.full((2, 2), 255, dtype=torch.uint8)
    assert not query_target(void, 3, (4, 4)).any()
    assert (query_target(void, 3, (4, 4), "ignore") == 255).all()
    assert not support_mask(void, 3, (4, 4)).any()
