"""The losses from first principles, and that all networks of a checkpoint learn as each would alone."""

import pytest
import torch
from torch.nn.functional import binary_cross_entropy, binary_cross_entropy_with_logits

from maskmill.manifests.artifact.underway import Underway
from maskmill.manifests.files.place import place
from maskmill.stages.enhance.config import Loss
from maskmill.stages.enhance.examples import Examples
from maskmill.stages.enhance.lessons import LOSSES, Best, foreground_share, loss_of, make_lesson, make_networks
from maskmill.stages.learning.loop import Course, train


def given(seed: int = 0, rows: int = 6) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits, truth, weight = torch.rand(3, rows, 5, 4, generator=generator)
    return 4 * logits - 2, truth, weight.round()


def test_without_balance_it_is_the_cross_entropy_of_what_is_known() -> None:
    logits, truth, weight = given()
    known = weight > 0
    wanted = binary_cross_entropy_with_logits(logits[known], truth[known])
    torch.testing.assert_close(loss_of(logits, truth, weight, "bce", 0.2), wanted)


def test_balanced_it_is_the_mean_of_both_kinds() -> None:
    """Of a truth without mixed cells: what foreground and what background loses, each by itself."""
    logits, truth, weight = given()
    truth, weight = truth.round(), torch.ones_like(weight)
    share = float(truth.mean())
    chances = torch.sigmoid(logits)
    each = [binary_cross_entropy(chances[truth == kind], truth[truth == kind]) for kind in (0, 1)]
    torch.testing.assert_close(loss_of(logits, truth, weight, "balanced", share), (each[0] + each[1]) / 2)


@pytest.mark.parametrize("share", [0.05, 0.3, 0.8])
def test_balanced_a_guess_that_knows_nothing_is_a_half(share: float) -> None:
    """Whichever is more common; so 0.5 is where a map can be cut."""
    truth = torch.full((1, 20, 20), share)
    logits = torch.zeros(1, 20, 20, requires_grad=True)
    (gradient,) = torch.autograd.grad(loss_of(logits, truth, torch.ones(1, 20, 20), "balanced", share), logits)
    assert float(gradient.abs().max()) < 1e-8


@pytest.mark.parametrize("plain", ["bce", "balanced"])
def test_dice_is_that_of_each_row(plain: Loss) -> None:
    truth = torch.zeros(2, 4, 4)
    truth[0, :2], truth[1, 1, 1] = 1, 1
    logits = torch.full((2, 4, 4), -30.0)
    logits[:, :2] = 30  # 8 cells: the first row is right
    weight = torch.ones(2, 4, 4)
    with_dice: Loss = "bce+dice" if plain == "bce" else "balanced+dice"
    added = loss_of(logits, truth, weight, with_dice, 0.3) - loss_of(logits, truth, weight, plain, 0.3)
    assert float(added) == pytest.approx((0 + 1 - (2 * 1 + 1) / (8 + 1 + 1)) / 2, abs=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
def test_what_is_not_known_has_no_share(loss: Loss) -> None:
    logits, truth, weight = given()
    weight[2] = 0
    other = torch.where(weight > 0, truth, 1 - truth)
    found = loss_of(logits, truth, weight, loss, 0.3)
    assert found.isfinite()
    torch.testing.assert_close(loss_of(logits, other, weight, loss, 0.3), found)
    assert loss_of(logits, truth, torch.zeros_like(weight), loss, 0.3) == 0


def examples(seed: int, rows: int) -> Examples:
    generator = torch.Generator().manual_seed(seed)
    maps, truth = torch.rand(rows, 2, 4, 4, generator=generator), torch.rand(rows, 4, 4, generator=generator)
    valid = torch.ones(rows, 4, 4, dtype=torch.bool)
    return Examples([str(row) for row in range(rows)], maps, valid, truth, valid.float())


def learned(fitting: list[Examples], stopping: list[Examples]) -> Best:
    networks = make_networks(2, fitting, 0)
    best, course = Best(networks), Course(steps=6, steps_per_epoch=3, seed=0)
    nowhere = Underway(place("/nowhere"))  # six steps keep nothing
    train(make_lesson(networks, best, fitting, stopping, course, "balanced+dice"), course, nowhere)
    return best


def test_networks_side_by_side_learn_as_the_first_does_alone() -> None:
    fitting, stopping = [examples(0, 9), examples(1, 7)], [examples(2, 3), examples(3, 2)]
    both, alone = learned(fitting, stopping), learned(fitting[:1], stopping[:1])
    for found, wanted in zip(both.networks[0].parameters(), alone.networks[0].parameters(), strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-7)
    assert not torch.equal(next(both.networks[1].parameters()), next(both.networks[0].parameters()))


def test_the_share_is_of_what_is_known_and_never_nothing() -> None:
    some = examples(0, 4)
    nothing = Examples(some.ids, some.maps, some.valid, torch.zeros_like(some.truth), some.weight)
    assert foreground_share(some) == pytest.approx(float(some.truth.mean()))
    assert foreground_share(nothing) == pytest.approx(1e-3)
