"""The losses against slow ones in float64: loops over views, pictures, patches and pixels."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor

from maskmill.stages.pretrain.objectives import cls_loss, contrastive_loss, patch_loss, reconstruction_loss


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def log_softmax_in_float64(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max()
    return shifted - math.log(np.exp(shifted).sum())


def entropy_in_float64(target: Tensor, logits: Tensor, temperature: float) -> float:
    predicted = log_softmax_in_float64(logits.detach().double().numpy() / temperature)
    return float(-(target.detach().double().numpy() * predicted).sum())


@pytest.mark.parametrize(("num_global", "num_views"), [(2, 2), (2, 12), (1, 3), (3, 4)])
def test_cls_loss_is_the_mean_over_pairs_of_other_views(num_global, num_views):
    targets, logits = normal(num_global, 4, 6).softmax(dim=-1), normal(num_views, 4, 6, seed=1)
    pairs = [
        np.mean([entropy_in_float64(targets[g, b], logits[v, b], 0.1) for b in range(4)])
        for g in range(num_global)
        for v in range(num_views)
        if g != v
    ]
    assert len(pairs) == num_global * num_views - num_global
    assert float(cls_loss(targets, logits)) == pytest.approx(np.mean(pairs), rel=1e-5)


def test_no_view_is_compared_with_itself():
    """The student's first view may say anything as far as the teacher's first view goes."""
    targets = torch.stack([torch.eye(3)[[0, 1]], torch.eye(3)[[2, 2]]])
    agreeing = 100 * targets.flip(0)
    assert float(cls_loss(targets, agreeing)) == pytest.approx(0, abs=1e-6)
    assert float(cls_loss(targets, 100 * targets)) > 100
    with pytest.raises(AssertionError, match="make no pair"):
        cls_loss(targets[:1], agreeing[:1])


def test_patch_loss_is_over_all_patches():
    targets, logits = normal(3, 5, 6).softmax(dim=-1), normal(3, 5, 6, seed=1)
    exact = np.mean([entropy_in_float64(targets[b, t], logits[b, t], 0.2) for b in range(3) for t in range(5)])
    assert float(patch_loss(targets, logits, 0.2)) == pytest.approx(exact, rel=1e-5)
    every = torch.ones(3, 5, dtype=torch.bool)
    assert float(patch_loss(targets, logits, 0.2, every)) == pytest.approx(exact, rel=1e-5)


@given(st.integers(1, 4), st.integers(1, 7), st.floats(0, 1), st.integers(0, 1000))
def test_patch_loss_weighs_pictures_alike(batch, patches, share, seed):
    targets, logits = normal(batch, patches, 5, seed=seed).softmax(dim=-1), normal(batch, patches, 5, seed=seed + 1)
    is_counted = normal(batch, patches, seed=seed + 2).sigmoid() < share
    of_pictures = []
    for b in range(batch):
        counted = [entropy_in_float64(targets[b, t], logits[b, t], 0.1) for t in range(patches) if is_counted[b, t]]
        of_pictures.append(sum(counted) / max(len(counted), 1))
    found = float(patch_loss(targets, logits, 0.1, is_counted))
    assert found == pytest.approx(np.mean(of_pictures), rel=1e-4, abs=1e-5)


def test_patches_that_do_not_count_give_no_gradient_even_where_they_are_not_finite():
    targets, logits = normal(1, 3, 4).softmax(dim=-1), normal(1, 3, 4, seed=1)
    logits[0, 2] = float("inf")
    logits.requires_grad_()
    loss = patch_loss(targets, logits, 0.1, torch.tensor([[True, False, False]]))
    assert loss.isfinite()
    finite = normal(1, 3, 4, seed=1).requires_grad_()
    patch_loss(targets, finite, 0.1, torch.tensor([[True, False, False]])).backward()
    assert finite.grad is not None
    assert finite.grad[0, 0].abs().sum() > 0
    assert not finite.grad[0, 1:].any()


@pytest.mark.parametrize("kind", ["mse", "l1"])
def test_reconstruction_is_over_corrupted_pixels_alone(kind):
    found, clean = normal(2, 3, 4, 5).requires_grad_(), normal(2, 3, 4, 5, seed=1).requires_grad_()
    is_corrupted = normal(2, 4, 5, seed=2) > 0.5
    errors = [
        abs(float((found - clean).detach()[b, c, i, j])) ** (2 if kind == "mse" else 1)
        for b, c, i, j in np.ndindex(2, 3, 4, 5)
        if is_corrupted[b, i, j]
    ]
    loss = reconstruction_loss(found, clean, is_corrupted, kind)
    assert float(loss.detach()) == pytest.approx(np.mean(errors), rel=1e-5)
    loss.backward()
    assert clean.grad is None
    assert found.grad is not None
    assert torch.equal(found.grad.ne(0).any(dim=1), is_corrupted)


def test_without_a_masked_patch_or_pixel_the_losses_are_0():
    logits, pixels = normal(2, 3, 4).requires_grad_(), normal(2, 3, 4, 4).requires_grad_()
    loss = patch_loss(logits.detach().softmax(dim=-1), logits, 0.1, torch.zeros(2, 3, dtype=torch.bool))
    loss = loss + reconstruction_loss(pixels, normal(2, 3, 4, 4, seed=1), torch.zeros(2, 4, 4, dtype=torch.bool))
    assert float(loss.detach()) == 0
    loss.backward()
    for tensor in (logits, pixels):
        assert tensor.grad is not None
        assert not tensor.grad.any()


@pytest.mark.parametrize("temperature", [0.1, 0.2, 1.0])
def test_contrastive_loss_is_the_formula(temperature):
    student, teacher = normal(2, 5, 7).requires_grad_(), normal(2, 5, 7, seed=1).requires_grad_()
    exact = 0.0
    for view, other in ((0, 1), (1, 0)):
        for b in range(5):
            q = student[view, b].detach().double().numpy()
            keys = teacher[other].detach().double().numpy()
            cosines = keys @ q / np.linalg.norm(keys, axis=1) / np.linalg.norm(q)
            exact -= 2 * temperature * log_softmax_in_float64(cosines / temperature)[b] / 5
    loss = contrastive_loss(student, teacher, temperature)
    assert float(loss.detach()) == pytest.approx(exact, rel=1e-5)
    loss.backward()
    assert teacher.grad is None
    assert student.grad is not None
    assert float(student.grad.abs().sum()) > 0


def test_contrastive_loss_of_one_embedding_for_all_is_that_of_guessing():
    same = normal(1, 1, 7).expand(2, 8, 7)
    assert float(contrastive_loss(same, same)) == pytest.approx(4 * 0.2 * math.log(8), rel=1e-5)
