"""Losses pair by pair are the batch's, and so are their gradients."""

import numpy as np
import pytest
import torch

from maskmill.stages.choices import Void
from maskmill.stages.students.episodes import Episode
from maskmill.stages.students.features import FeatureBatch, FeatureSpec
from maskmill.stages.students.learner import Learner
from maskmill.stages.students.objective import pair_losses, upsample_logits
from maskmill.stages.train.pairs import Pairs, count_undecided, mean_losses
from maskmill.stages.train.targets import targets_by_masks

SIGHT = FeatureSpec(
    backbone="toy",
    weights_sha256="0",
    positions="timm",
    size_px=(12, 15),
    fit="squash",
    blocks=(0, 1),
    heads=2,
    width=8,
    grid=(4, 5),
    patch=(3, 3),
)


def made_pairs(count: int) -> Pairs:
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(0, 2, (count, 12, 15), generator=generator).to(torch.uint8)
    target[0, :6] = 255
    target[1:2] = 255
    return Pairs(
        torch.randn(count, 2, 21, 8, generator=generator).half(),
        torch.randn(count, 2, 145, 8, generator=generator).half(),
        torch.rand(count, 12, 15, generator=generator) < 0.5,
        torch.arange(count) % 2 == 0,
        target,
    )


def test_pair_by_pair_is_the_batch() -> None:
    pairs = made_pairs(4)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        learner = Learner(4)
    logits = learner.forward_tokens(
        pairs.query_tokens, pairs.support_tokens, pairs.support_mask, SIGHT.grid, SIGHT.heads
    )
    whole = pair_losses(
        logits.presence, upsample_logits(logits.segmentation, SIGHT.size_px), pairs.is_present, pairs.target
    )
    whole.total.backward()
    expected = [each.grad.clone() for each in learner.parameters() if each.grad is not None]
    learner.zero_grad()
    total, presence, segmentation = mean_losses(learner, pairs, SIGHT, torch.device("cpu"))
    (3 * total).backward()
    assert float(total.detach()) == pytest.approx(float(whole.total.detach()), rel=1e-5)
    assert float(presence) == pytest.approx(float(whole.presence.detach()), rel=1e-5)
    assert float(segmentation) == pytest.approx(float(whole.segmentation.detach()), rel=1e-5)
    assert not presence.requires_grad
    for parameter, wanted in zip(learner.parameters(), expected, strict=True):
        assert parameter.grad is not None
        assert torch.allclose(parameter.grad, 3 * wanted, atol=1e-5)
    assert count_undecided(pairs) == 1


def test_masks_of_a_pair_by_the_class_that_is_asked_for() -> None:
    """Of the support where the class is; of the query the same, with what is void as the labels have it."""
    labels = {
        "q": np.array([[1, 2, 255]], np.uint8).repeat(5, axis=1).repeat(12, axis=0),
        "s": np.array([[2, 0, 255]], np.uint8).repeat(5, axis=1).repeat(12, axis=0),
    }
    episodes = [Episode("q", (2,), (("s",),), (True,)), Episode("s", (1,), (("q",),), (False,))]
    none = FeatureBatch({}, ())
    voids: list[tuple[Void, int]] = [("background", 0), ("ignore", 255)]
    for void, left in voids:
        given: dict[str, tuple[np.ndarray, Void]] = {name: (label_HW, void) for name, label_HW in labels.items()}
        masks, targets, _ = targets_by_masks(given.__getitem__, SIGHT)(episodes, none, none)
        assert masks[:, 0, ::5].tolist() == [[True, False, False], [True, False, False]]
        assert targets[:, 0, ::5].tolist() == [[0, 1, left], [0, 0, left]]
        assert (targets.dtype, targets.shape, masks.shape) == (torch.uint8, (2, 12, 15), (2, 12, 15))


def test_ground_truth_says_whether_its_class_is_there() -> None:
    """Image-level labels may leave a class out, or name one without a pixel; elsewhere they are all that is known."""
    label_HW = np.array([[1, 0, 255]], np.uint8).repeat(5, axis=1).repeat(12, axis=0)
    asked = [Episode("q", (1,), (("q",),), (False,)), Episode("q", (2,), (("q",),), (True,))]
    none = FeatureBatch({}, ())
    _, targets, is_present = targets_by_masks(lambda identifier: (label_HW, "background"), SIGHT)(asked, none, none)
    assert is_present.tolist() == targets.flatten(1).any(dim=1).tolist() == [True, False]
    _, _, is_present = targets_by_masks(lambda identifier: (label_HW, "ignore"), SIGHT)(asked, none, none)
    assert is_present.tolist() == [False, True]
