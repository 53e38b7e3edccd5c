"""The quick classifier of patches: shares of labels, its loss, and what it predicts."""

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from maskmill.stages.students.linear import PatchClassifier, label_shares, predict_labels, share_loss


def random_labels(size, num_classes, seed, with_void=True):
    generator = np.random.default_rng(seed)
    values = np.array([*range(num_classes), *([255] if with_void else [])], np.uint8)
    return generator.choice(values, size)


@given(st.integers(1, 5), st.integers(1, 4), st.integers(1, 4), st.integers(1, 6), st.integers(0, 99))
def test_shares_are_counts_where_pixels_are_the_views(num_classes, rows, columns, patch, seed):
    label_HW = random_labels((rows * patch, columns * patch), num_classes, seed)
    box = (0, 0, rows * patch, columns * patch)
    shares = label_shares(label_HW, num_classes, box, (patch, patch), (rows, columns))
    cells = label_HW.reshape(rows, patch, columns, patch)
    for label in range(num_classes):
        assert np.allclose(shares[label], (cells == label).mean(axis=(1, 3)), atol=1e-6)


@given(
    st.tuples(st.integers(1, 20), st.integers(1, 20)),
    st.tuples(st.integers(1, 16), st.integers(1, 12)),
    st.integers(0, 99),
)
def test_shares_are_areas_whatever_the_sizes(size, inside, seed):
    """In a picture of any size, padded: every label has the area that it has in the picture, and padding has none."""
    label_HW = random_labels(size, 3, seed)
    box = (0, 0, inside[0], inside[1])
    shares = label_shares(label_HW, 3, box, (4, 4), (4, 3))
    area_of_pixel = inside[0] * inside[1] / label_HW.size / 16
    for label in range(3):
        assert abs(shares[label].sum() - (label_HW == label).sum() * area_of_pixel) < 1e-3
    assert shares.sum(axis=0).max() < 1 + 1e-5
    assert (shares[:, -(-inside[0] // 4) :] == 0).all()
    assert (shares[:, :, -(-inside[1] // 4) :] == 0).all()


@pytest.mark.parametrize("void_share", [0.0, 0.4])
def test_the_loss_is_the_mean_over_labelled_pixels(void_share):
    """Of the cross-entropy of each pixel with what is predicted of its patch."""
    generator = np.random.default_rng(0)
    label_HW = random_labels((12, 20), 4, 1, with_void=False)
    label_HW[generator.random(label_HW.shape) < void_share] = 255
    logits = torch.randn(1, 4, 3, 5, generator=torch.Generator().manual_seed(2))
    shares = torch.from_numpy(label_shares(label_HW, 4, (0, 0, 12, 20), (4, 4), (3, 5)))[None]
    of_pixels = logits.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)
    expected = torch.nn.functional.cross_entropy(of_pixels, torch.from_numpy(label_HW).long()[None], ignore_index=255)
    assert abs(share_loss(logits.flatten(2), shares.flatten(2)) - expected) < 1e-5


def test_nothing_labelled_asks_for_nothing():
    logits = torch.randn(2, 3, 4, requires_grad=True)
    loss = share_loss(logits, torch.zeros(2, 3, 4))
    loss.backward()
    assert float(loss.detach()) == 0
    assert logits.grad is not None
    assert (logits.grad == 0).all()


def test_a_label_outside_the_table_is_refused():
    with pytest.raises(AssertionError, match=r"label 3.* 3 classes"):
        label_shares(np.full((4, 4), 3, np.uint8), 3, (0, 0, 4, 4), (4, 4), (1, 1))


@given(st.tuples(st.integers(1, 30), st.integers(1, 30)))
def test_predictions_have_the_pictures_size(size):
    logits = np.zeros((3, 2, 3), np.float32)
    logits[2, :, 0], logits[1, :, 1:] = 1, 1
    found = predict_labels(logits, size, (0, 0, 8, 12), (4, 4))
    assert found.shape == size
    assert set(np.unique(found).tolist()) <= {1, 2}
    if size[1] >= 3:
        assert (found[:, 0] == 2).all()
        assert (found[:, -1] == 1).all()


def test_padding_has_no_part_in_a_prediction():
    logits = np.zeros((2, 2, 2), np.float32)
    logits[1, :, 1] = 100  # only the box's left half is picture
    assert (predict_labels(logits, (8, 4), (0, 0, 8, 4), (4, 4)) == 0).all()


@pytest.mark.parametrize("hidden", [0, 16])
def test_it_learns_what_a_line_can_tell_and_with_two_layers_what_it_cannot(hidden):
    """Class 1 is one side of a line; class 2 lies inside a ring, which one layer cannot tell."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(8, 64, 2, generator=generator)
    is_ring = tokens.norm(dim=-1) < 1
    easy, hard = (tokens[..., 0] > 0).long(), is_ring.long()
    reached = {}
    for name, target in (("line", easy), ("ring", hard)):
        with torch.random.fork_rng():
            torch.manual_seed(1)
            head = PatchClassifier(2, 2, hidden)
        optimiser = torch.optim.Adam(head.parameters(), 0.05)
        shares = torch.nn.functional.one_hot(target, 2).float().transpose(1, 2)
        for _ in range(150):
            optimiser.zero_grad()
            share_loss(head(tokens), shares).backward()
            optimiser.step()
        reached[name] = float((head(tokens).argmax(dim=1) == target).float().mean())
    assert reached["line"] > 0.95
    assert (reached["ring"] > 0.9) == bool(hidden)


def test_each_patch_is_classified_by_itself_from_any_float_type():
    head = PatchClassifier(6, 4)
    tokens = torch.randn(2, 5, 6).half()
    found = head(tokens)
    assert (found.dtype, found.shape) == (torch.float32, (2, 4, 5))
    assert torch.allclose(found[1, :, 3], head(tokens[1:, 3:4])[0, :, 0], atol=1e-6)
