"""Losses and decisions against the published ones, and against logarithms written out."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from maskmill.stages.students.objective import (
    decide_presence,
    decide_ways,
    mean_over_shots,
    pair_losses,
    pixel_probability,
    probability,
    upsample_logits,
)


@pytest.fixture(scope="module")
def golden(reference):
    with np.load(reference / "golden/cst_objective.npz") as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def test_the_loss_is_the_published_one(golden):
    losses = pair_losses(
        golden["logits_cls"][:, 0],
        golden["logits_seg"][:, 0],
        golden["class_present"][:, 0],
        golden["target"].to(torch.uint8),
    )
    assert abs(losses.total - golden["loss"]) < 1e-6
    assert abs(0.1 * losses.presence + losses.segmentation - golden["loss"]) < 1e-6
    assert dict(losses.parts) == {"presence": losses.presence, "segmentation": losses.segmentation}


def test_decisions_of_three_ways_are_the_published_ones(golden):
    present = decide_presence(probability(golden["way3_logits_cls"]))
    assert torch.equal(present, golden["way3_present"])
    logits = golden["way3_logits_seg"]
    ways = decide_ways(pixel_probability(logits.flatten(0, 1)).unflatten(0, logits.shape[:2]))
    assert torch.equal(ways.long(), golden["way3_segmentation"])


sizes = st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 5))


@given(sizes, st.integers(0, 99), st.booleans())
def test_the_loss_is_the_mean_of_logarithms(size, seed, has_void):
    generator = torch.Generator().manual_seed(seed)
    presence, segmentation = torch.randn(size[0], 2, generator=generator), torch.randn(size[0], 2, *size[1:])
    is_present = torch.rand(size[0], generator=generator) < 0.5
    choices = torch.tensor([0, 1, 255] if has_void else [0, 1], dtype=torch.uint8)
    target = choices[torch.randint(len(choices), size, generator=generator)]
    found = pair_losses(presence, segmentation, is_present, target)
    of_presence, of_pictures = [], []
    for b in range(size[0]):
        of_presence.append(-math.log(float(torch.softmax(presence[b].double(), 0)[int(is_present[b])])))
        counted = [
            -math.log(float(torch.softmax(segmentation[b, :, u, v].double(), 0)[int(target[b, u, v])]))
            for u, v in np.ndindex(size[1:])
            if target[b, u, v] != 255
        ]
        of_pictures.append(sum(counted) / max(1, len(counted)))
    assert abs(float(found.presence) - np.mean(of_presence)) < 1e-5
    assert abs(float(found.segmentation) - np.mean(of_pictures)) < 1e-5


def test_a_target_that_is_void_everywhere_asks_for_nothing():
    segmentation = torch.randn(1, 2, 3, 3, requires_grad=True)
    losses = pair_losses(
        torch.zeros(1, 2), segmentation, torch.tensor([True]), torch.full((1, 3, 3), 255, dtype=torch.uint8)
    )
    losses.total.backward()
    assert abs(losses.total - 0.1 * math.log(2)) < 1e-7
    assert segmentation.grad is not None
    assert (segmentation.grad == 0).all()


def test_a_batch_in_parts_has_the_same_mean():
    presence, segmentation = torch.randn(4, 2), torch.randn(4, 2, 6, 6)
    is_present = torch.tensor([True, False, True, True])
    target = torch.randint(0, 2, (4, 6, 6), dtype=torch.uint8)
    target[1, :3] = 255
    whole = pair_losses(presence, segmentation, is_present, target).total
    parts = [
        pair_losses(presence[b : b + 1], segmentation[b : b + 1], is_present[b : b + 1], target[b : b + 1]).total
        for b in range(4)
    ]
    assert abs(torch.stack(parts).mean() - whole) < 1e-6


def test_a_half_is_painted_and_not_found_present():
    """As published: > 0.5 for presence, ≥ 0.5 for a pixel; of equal ways the first."""
    assert decide_presence(torch.tensor([[0.5, 0.6]])).tolist() == [[False, True]]
    probabilities = torch.tensor([[[[0.5, 0.49, 0.7]], [[0.5, 0.2, 0.9]]]])
    assert decide_ways(probabilities).tolist() == [[[1, 0, 2]]]


def test_shots_decide_by_the_mean_of_their_probabilities():
    """Not by a vote: one sure shot outweighs two unsure ones."""
    shots = torch.tensor([[[0.45, 0.9]], [[0.45, 0.2]], [[0.95, 0.3]]])
    assert decide_presence(mean_over_shots(shots)).tolist() == [[True, False]]


def test_logits_reach_the_pixels_with_corners_aligned():
    logits = torch.arange(8.0).view(1, 2, 2, 2)
    found = upsample_logits(logits, (5, 3))
    assert torch.equal(found[..., [0, 0, -1, -1], [0, -1, 0, -1]].view(1, 2, 2, 2), logits)
    assert abs(found[0, 0, 2, 1] - 1.5) < 1e-6
