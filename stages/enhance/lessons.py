"""How enhancers are fitted: all of a checkpoint's side by side, each on its own part, the best step of each kept.

Letters: N networks, B rows of a batch, R C rows and columns of cells.

Nothing of this was published; the choices are this project's own. Loss and resolution were chosen by measuring
(tests/benchmarks/enhancer_worth.py): without balance a network that knows little says background everywhere, because
most of a picture is that.
"""

import copy
import typing
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor, nn
from torch.nn.functional import softplus

from ..learning.lesson import Batch, Lesson, Losses
from ..learning.loop import Course
from ..learning.schedules import Schedule
from .config import Loss
from .enhancer import Enhancer
from .examples import Examples

STEPS, WATCHED_EVERY, ROWS = 200, 20, 16
LEARNING_RATE, WEIGHT_DECAY = 1e-3, 1e-2
LEAST_SHARE = 1e-3
LOSSES: tuple[Loss, ...] = typing.get_args(Loss)


class Best(nn.Module):
    """The best weights of each network so far, and the loss on what it stops on."""

    loss_N: Tensor
    step_N: Tensor

    def __init__(self, networks: Sequence[Enhancer]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(copy.deepcopy(each) for each in networks)
        self.register_buffer("loss_N", torch.full((len(networks),), torch.inf, dtype=torch.float64))
        self.register_buffer("step_N", torch.full((len(networks),), -1))

    def offer(self, network: int, step: int, loss: float, weights: Mapping[str, Tensor]) -> None:
        """Of equally good steps the first is kept."""
        if loss < self.loss_N[network]:
            self.networks[network].load_state_dict(weights)
            self.loss_N[network], self.step_N[network] = loss, step


def make_networks(heads: int, fitting: Sequence[Examples], seed: int) -> list[Enhancer]:
    """Touches no random numbers of the caller's."""
    networks = []
    for number, examples in enumerate(fitting):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(np.random.SeedSequence((seed, number)).generate_state(1)[0]))
            network = Enhancer(heads)
        network.fit_normalisation(examples.maps, examples.valid)
        networks.append(network)
    return networks


def make_lesson(
    networks: Sequence[Enhancer],
    best: Best,
    fitting: Sequence[Examples],
    stopping: Sequence[Examples],
    course: Course,
    loss: Loss,
) -> Lesson:
    shares = [foreground_share(examples) for examples in fitting]

    def batch(step: int) -> Batch:
        """Rows drawn with replacement, half of them mirrored."""
        drawn = []
        for number, examples in enumerate(fitting):
            generator = np.random.default_rng((course.seed, number, step))
            places = torch.from_numpy(generator.integers(len(examples.ids), size=ROWS))
            some = examples.at(places)
            drawn.append(_mirror_examples(some, torch.from_numpy(generator.random(ROWS) < 0.5)))
        ids = [identifier for some in drawn for identifier in some.ids]
        names = ("maps", "valid", "truth", "weight")
        return Batch(
            len(ids), {name: torch.stack([getattr(some, name) for some in drawn]) for name in names}, lambda: ids
        )

    def losses(step: int, found: Batch) -> Losses:
        given = found.tensors
        each = [
            loss_of(network.logits(maps, valid), truth, weight, loss, share)
            for network, maps, valid, truth, weight, share in zip(networks, *given.values(), shares, strict=True)
        ]
        parts = {f"loss {number}": value for number, value in enumerate(each)} if len(each) > 1 else {}
        return Losses(torch.stack(each).sum(), parts)

    def watch(step: int) -> Mapping[str, Any]:
        values = {}
        for number, (network, examples, share) in enumerate(zip(networks, stopping, shares, strict=True)):
            # Without any that tells something, the last step is the best.
            is_told = bool(examples.weight.any())
            found = _mean_loss(network, examples, loss, share) if is_told else -float(step)
            best.offer(number, step, found, network.state_dict())
            if is_told:
                values["stopping loss" if len(networks) == 1 else f"stopping loss {number}"] = found
        return values

    together = nn.ModuleList(networks)
    return Lesson(
        modules={"networks": together, "best": best},
        optimiser=torch.optim.AdamW(together.parameters(), weight_decay=WEIGHT_DECAY),
        batch=batch,
        losses=losses,
        watch=watch,
        learning_rate=Schedule(start=LEARNING_RATE, end=0.0, steps=course.steps, warmup=WATCHED_EVERY),
    )


def foreground_share(examples: Examples) -> float:
    """Of what is known; never so near 0 or 1 that one of both would weigh without bounds."""
    share = float((examples.weight * examples.truth).sum() / examples.weight.sum().clamp_min(1))
    return min(max(share, LEAST_SHARE), 1 - LEAST_SHARE)


def loss_of(
    logits: Float32[Tensor, "B R C"],
    truth: Float32[Tensor, "B R C"],
    weight: Float32[Tensor, "B R C"],
    loss: Loss,
    share: float,
) -> Float32[Tensor, ""]:
    """Cross-entropy over what is known, balanced so that foreground, of which there is this share, weighs as much as
    background; and one minus Dice's coefficient of each row. A row of which nothing is known adds nothing."""
    of_two = (0.5 / share, 0.5 / (1 - share)) if loss.startswith("balanced") else (1.0, 1.0)
    each = weight * (of_two[0] * truth * softplus(-logits) + of_two[1] * (1 - truth) * softplus(logits))
    entropy = each.sum() / weight.sum().clamp_min(1)
    if not loss.endswith("dice"):
        return entropy
    found = torch.sigmoid(logits) * weight
    both_B, sum_B = (found * truth).sum((1, 2)), (found + truth * weight).sum((1, 2))
    return entropy + (1 - (2 * both_B + 1) / (sum_B + 1)).mean()


@torch.no_grad()
def _mean_loss(network: Enhancer, examples: Examples, loss: Loss, share: float) -> float:
    """Over all rows together, a few at a time."""
    total, rows = 0.0, len(examples.ids)
    for start in range(0, rows, ROWS):
        some = examples.at(torch.arange(start, min(start + ROWS, rows)))
        logits = network.logits(some.maps, some.valid)
        total += float(loss_of(logits, some.truth, some.weight, loss, share)) * len(some.ids)
    return total / rows


def _mirror_examples(examples: Examples, is_mirrored_B: Tensor) -> Examples:
    def mirror_columns(values: Tensor) -> Tensor:
        shape = (-1, *[1] * (values.ndim - 1))
        return torch.where(is_mirrored_B.view(shape), values.flip(-1), values)

    return Examples(
        examples.ids,
        mirror_columns(examples.maps),
        mirror_columns(examples.valid),
        mirror_columns(examples.truth),
        mirror_columns(examples.weight),
    )
