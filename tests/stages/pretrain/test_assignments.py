"""Targets and collapse avoidance against the published values, and against the formulas written out in float64."""

import math
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor

from maskmill.stages.learning.processes import gather_all
from maskmill.stages.pretrain.assignments import (
    Gather,
    centering_targets,
    cluster_usage,
    cross_entropy,
    me_max,
    mean_prediction,
    next_centre,
    sinkhorn_targets,
)

SIZES = (st.integers(1, 12), st.integers(1, 9), st.integers(0, 1000))


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def softmax_in_float64(logits: np.ndarray) -> np.ndarray:
    grown = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return grown / grown.sum(axis=-1, keepdims=True)


def sinkhorn_in_float64(logits: np.ndarray, temperature: float, iterations: int = 3) -> np.ndarray:
    """As published: clusters are rows, and every division is there."""
    q = np.exp(logits.astype(np.float64) / temperature).T
    clusters, batch = q.shape
    q /= q.sum()
    for _ in range(iterations):
        for k in range(clusters):
            q[k] /= q[k].sum() * clusters
        for b in range(batch):
            q[:, b] /= q[:, b].sum() * batch
    return (q * batch).T


@pytest.fixture(scope="module")
def golden(reference: Path) -> dict[str, Any]:
    with np.load(reference / "golden/collapse_avoidance.npz") as arrays:
        return dict(arrays)


def test_sinkhorn_targets_are_the_published_ones(golden):
    logits, temperature = torch.from_numpy(golden["teacher_logits"]), float(golden["teacher_temperature"])
    found = sinkhorn_targets(logits, temperature)
    assert np.abs(found.numpy() - golden["sinkhorn_targets"]).max() < 2e-6
    for other in (
        sinkhorn_targets(logits, temperature, iterations=2),
        sinkhorn_targets(logits, temperature, iterations=4),
        sinkhorn_targets((logits / temperature).log_softmax(dim=-1), 1.0),  # MSN's variant
        (logits / temperature).softmax(dim=-1),
    ):
        assert np.abs(other.numpy() - golden["sinkhorn_targets"]).max() > 0.01


def test_me_max_is_the_published_one(golden):
    mean = torch.from_numpy(golden["mean_prediction"])
    assert float(me_max(mean)) == pytest.approx(float(golden["me_max"]), abs=1e-6)
    exact = mean.double().numpy()
    assert float(me_max(mean)) == pytest.approx(math.log(20) + (exact * np.log(exact)).sum(), abs=1e-6)


@given(*SIZES)
def test_sinkhorn_targets_are_the_formula(batch, clusters, seed):
    logits = normal(batch, clusters, seed=seed)
    assert np.abs(sinkhorn_targets(logits, 0.5).numpy() - sinkhorn_in_float64(logits.numpy(), 0.5)).max() < 1e-5


@given(*SIZES)
def test_sinkhorn_gives_every_row_its_whole_and_clusters_ever_more_alike(batch, clusters, seed):
    logits = normal(batch, clusters, seed=seed)
    unevenness = []
    for iterations in (1, 2, 3, 200):
        targets = sinkhorn_targets(logits, 0.7, iterations)
        assert (targets.sum(dim=1) - 1).abs().max() < 1e-5
        unevenness.append(float((targets.sum(dim=0) - batch / clusters).abs().sum()))
    assert all(later < earlier + 1e-4 for earlier, later in pairwise(unevenness))
    assert unevenness[-1] < 1e-2 * batch


@pytest.mark.parametrize("temperature", [0.04, 0.07, 1.0])
def test_no_size_of_logits_breaks_sinkhorn(temperature):
    """As exponentials all of these would overflow, or leave rows and columns of zeros."""
    for logits in (1e3 * normal(6, 5), normal(6, 5) + 1e4, normal(6, 5) - 1e4, 1e3 * torch.eye(5), torch.zeros(3, 4)):
        targets = sinkhorn_targets(logits, temperature)
        assert targets.isfinite().all()
        assert (targets.sum(dim=1) - 1).abs().max() < 1e-5


def test_sinkhorn_of_sharpened_predictions_as_msn_has_it():
    """p^(1/T) / Σ of p = softmax(logits / 0.1), T = 0.25, and then the same three iterations."""
    logits = normal(8, 6, seed=3)
    p = softmax_in_float64(logits.double().numpy() / 0.1) ** (1 / 0.25)
    sharpened = p / p.sum(axis=1, keepdims=True)
    found = sinkhorn_targets((logits / (0.1 * 0.25)).log_softmax(dim=-1), 1.0)
    assert np.abs(found.numpy() - sinkhorn_in_float64(np.log(sharpened), 1.0)).max() < 1e-5


def test_sinkhorn_spreads_what_is_the_same_for_all():
    one_cluster = torch.zeros(7, 4)
    one_cluster[:, 2] = 5
    for logits in (one_cluster, torch.zeros(7, 4), normal(1, 4).expand(7, 4)):
        assert (sinkhorn_targets(logits, 0.1) - 0.25).abs().max() < 1e-5


def test_patches_are_balanced_as_one_batch():
    logits = normal(3, 5, 4)
    assert torch.equal(sinkhorn_targets(logits, 0.3).flatten(0, 1), sinkhorn_targets(logits.flatten(0, 1), 0.3))


@given(*SIZES, st.floats(0.04, 1.0))
def test_centred_targets_are_the_formula(batch, clusters, seed, temperature):
    logits, centre = normal(batch, 3, clusters, seed=seed), normal(clusters, seed=seed + 1)
    exact = softmax_in_float64((logits.double().numpy() - centre.double().numpy()) / temperature)
    assert np.abs(centering_targets(logits, centre, temperature).numpy() - exact).max() < 1e-5


def test_three_steps_of_centring_from_first_principles():
    """The centre starts at 0; targets of a step see the batches before it only; patches are averaged per picture."""
    cls_batches = [normal(6, 5, seed=step) + torch.tensor([9.0, 0, 0, 0, 0]) for step in range(3)]
    patch_batches = [normal(6, 4, 5, seed=10 + step) for step in range(3)]
    for batches in (cls_batches, patch_batches):
        centre, exact_centre = torch.zeros(5), np.zeros(5)
        for logits in batches:
            exact = softmax_in_float64((logits.double().numpy() - exact_centre) / 0.07)
            assert np.abs(centering_targets(logits, centre, 0.07).numpy() - exact).max() < 1e-5
            of_pictures = [picture.double().numpy().reshape(-1, 5).mean(axis=0) for picture in logits]
            exact_centre = 0.9 * exact_centre + 0.1 * np.mean(of_pictures, axis=0)
            centre = next_centre(centre, logits)
            assert np.abs(centre.numpy() - exact_centre).max() < 1e-5


def test_a_constant_output_is_uniform_once_the_centre_has_come():
    logits = normal(1, 6).expand(8, 6)
    centre = torch.zeros(6)
    for _ in range(200):
        centre = next_centre(centre, logits)
    assert (centering_targets(logits, centre, 0.07) - 1 / 6).abs().max() < 1e-3


@given(*SIZES)
def test_me_max_lies_between_0_and_log_k(batch, clusters, seed):
    found = float(me_max(mean_prediction(5 * normal(batch, clusters, seed=seed), 0.3)))
    assert -1e-6 < found < math.log(clusters) + 1e-5


@pytest.mark.parametrize("clusters", [1, 3, 20, 8192])
def test_me_max_of_uniform_and_of_one_cluster(clusters):
    assert float(me_max(torch.full((clusters,), 1 / clusters))) == pytest.approx(0, abs=1e-6)
    one = torch.zeros(clusters)
    one[-1] = 1
    assert float(me_max(one)) == pytest.approx(math.log(clusters), abs=1e-5)


def test_me_max_moves_the_student_away_from_one_cluster():
    """Also where all other predictions round to 0: the gradient is finite."""
    logits = torch.tensor([[3.0, 0, 0], [2, 0, 0]], requires_grad=True)
    me_max(mean_prediction(logits, 0.5)).backward()
    assert logits.grad is not None
    assert (logits.grad[:, 0] > 0).all()
    far = torch.tensor([[900.0, 0, 0]], requires_grad=True)
    me_max(mean_prediction(far, 0.1)).backward()
    assert far.grad is not None
    assert far.grad.isfinite().all()


def test_mean_prediction_is_over_views_and_pictures():
    logits = normal(3, 4, 5)
    exact = softmax_in_float64(logits.double().numpy() / 0.1).reshape(-1, 5).mean(axis=0)
    assert np.abs(mean_prediction(logits, 0.1).numpy() - exact).max() < 1e-6


def test_cross_entropy_is_the_formula_and_trains_the_student_alone():
    teacher, student = normal(4, 3, 6).requires_grad_(), normal(4, 3, 6, seed=1).requires_grad_()
    loss = cross_entropy(teacher.softmax(dim=-1), student, 0.1)
    q, s = softmax_in_float64(teacher.detach().double().numpy()), student.detach().double().numpy() / 0.1
    assert np.abs(loss.detach().numpy() + (q * np.log(softmax_in_float64(s))).sum(axis=-1)).max() < 1e-4
    loss.sum().backward()
    assert teacher.grad is None
    assert student.grad is not None
    assert float(student.grad.abs().sum()) > 0


def test_no_target_carries_a_gradient():
    logits, centre = normal(4, 6).requires_grad_(), torch.zeros(6)
    for found in (sinkhorn_targets(logits, 0.1), centering_targets(logits, centre, 0.1), next_centre(centre, logits)):
        assert not found.requires_grad


def test_what_is_given_stays_as_it_was():
    logits, centre = normal(4, 6), normal(6, seed=1)
    before = logits.clone(), centre.clone()
    sinkhorn_targets(logits, 1.0)
    next_centre(centre, logits)
    assert torch.equal(logits, before[0])
    assert torch.equal(centre, before[1])


def test_half_precision_is_computed_in_float32():
    logits = normal(4, 6).bfloat16()
    for function in (lambda x: sinkhorn_targets(x, 0.1), lambda x: centering_targets(x, torch.zeros(6), 0.1)):
        assert torch.equal(function(logits), function(logits.float()))


@pytest.mark.parametrize(
    ("assignments", "entropy", "num_active", "highest"),
    [
        (torch.eye(5)[[2, 2, 2, 2]], 0, 1, 1),
        (torch.full((4, 5), 0.2), math.log(5), 1, 0.2),
        (torch.eye(5)[[0, 1, 2, 3, 4]], math.log(5), 5, 1),
        (torch.eye(4)[[0, 0, 1, 1]], math.log(2), 2, 1),
        (torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1]]), 0.9746, 2, 0.65),
    ],
    ids=["one cluster", "uniform", "each its own", "two of four", "soft"],
)
def test_what_is_watched(assignments, entropy, num_active, highest):
    for rows in (assignments, assignments[None]):
        found = cluster_usage(rows)
        assert found.entropy == pytest.approx(entropy, abs=1e-4)
        assert found.num_active == num_active
        assert found.highest == pytest.approx(highest)


def in_processes(parts: list[Tensor], compute: Callable[[Tensor, Gather], Any]) -> list[Any]:
    """One thread for each part, and a `gather` that waits for all of them."""
    slots: list[Tensor | None] = [None] * len(parts)
    barrier = threading.Barrier(len(parts), timeout=60)

    def run(rank: int) -> Any:
        def gather(own: Tensor) -> Tensor:
            slots[rank] = own.detach()
            barrier.wait()
            found = torch.stack([slot for slot in slots if slot is not None])
            barrier.wait()
            return found

        return compute(parts[rank], gather)

    with ThreadPoolExecutor(len(parts)) as pool:
        return list(pool.map(run, range(len(parts))))


@pytest.mark.parametrize("counts", [[4, 4], [1, 5, 2], [6, 0]])
def test_several_processes_give_what_one_would(counts):
    whole = 2 * normal(sum(counts), 5, seed=4)
    parts = list(whole.split(counts))
    sinkhorn = in_processes(parts, lambda part, gather: sinkhorn_targets(part, 0.2, gather=gather))
    assert (torch.cat(sinkhorn) - sinkhorn_targets(whole, 0.2)).abs().max() < 1e-5
    for found in in_processes(parts, lambda part, gather: mean_prediction(part, 0.2, gather)):
        assert (found - mean_prediction(whole, 0.2)).abs().max() < 1e-6


def test_the_centre_and_the_usage_of_several_processes_are_those_of_one():
    whole, centre = normal(7, 3, 5), normal(5, seed=1)
    parts = list(whole.split([2, 5]))
    centres = in_processes(parts, lambda part, gather: next_centre(centre, part, gather=gather))
    assert torch.equal(centres[0], centres[1])
    assert (centres[0] - next_centre(centre, whole)).abs().max() < 1e-6
    expected = cluster_usage(whole.softmax(dim=-1))
    for found in in_processes(parts, lambda part, gather: cluster_usage(part.softmax(dim=-1), gather)):
        assert found.num_active == expected.num_active
        assert (found.entropy, found.highest) == pytest.approx((expected.entropy, expected.highest))


def test_me_max_gradients_averaged_over_processes_are_those_of_one():
    whole = normal(9, 5)

    def gradient(part: Tensor, gather: Gather) -> Tensor:
        weight = torch.ones(5, requires_grad=True)
        me_max(mean_prediction(part * weight, 0.3, gather)).backward()
        assert weight.grad is not None
        return weight.grad

    averaged = torch.stack(in_processes(list(whole.split([4, 3, 2])), gradient)).mean(dim=0)
    assert (averaged - gradient(whole, gather_all)).abs().max() < 1e-6


RANK = """
import sys, torch
from torch import distributed
from maskmill.stages.pretrain.assignments import sinkhorn_targets, cluster_usage
rank = int(sys.argv[1])
distributed.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=2)
whole = torch.arange(30.0).view(6, 5).sin()
own = slice(0, 2) if rank == 0 else slice(2, 6)
found, watched = sinkhorn_targets(whole[own], 0.2), cluster_usage(whole[own].softmax(-1))
distributed.destroy_process_group()
assert (found - sinkhorn_targets(whole, 0.2)[own]).abs().max() < 1e-5
assert watched.num_active == cluster_usage(whole.softmax(-1)).num_active
"""


def test_processes_find_each_other_by_torch_distributed(tmp_path):
    ranks = [
        subprocess.Popen([sys.executable, "-c", RANK, str(rank), str(tmp_path / "meeting")], stderr=subprocess.PIPE)
        for rank in range(2)
    ]
    try:
        errors = [rank.communicate(timeout=300)[1].decode() for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.returncode for rank in ranks] == [0, 0], errors
