"""Trains the enhancers of a checkpoint together, each on its own fold, and keeps the best step of each.

Letters: N networks, B rows of a batch, R C rows and columns of cells.

CST published none of this; the choices are this project's own. Loss and resolution were chosen by measuring
(tests/benchmarks/enhancer_worth.py): without balance a weak network predicts background everywhere, because most
pixels are background.
"""

import copy
import typing
from collections.abc import Mapping, Sequence
from dataclasses import replace
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
TENSORS = ("maps", "valid", "truth", "weight")  # of examples
LOSSES: tuple[Loss, ...] = typing.get_args(Loss)


class Best(nn.Module):
    """The best weights of each network so far, with their loss on the stopping pictures and their step."""

    loss_N: Tensor
    step_N: Tensor

    def __init__(self, networks: Sequence[Enhancer]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(copy.deepcopy(network) for network in networks)
        self.register_buffer("loss_N", torch.full((len(networks),), torch.inf, dtype=torch.float64))
        self.register_buffer("step_N", torch.full((len(networks),), -1))

    def offer(self, network: int, step: int, loss: float, weights: Mapping[str, Tensor]) -> None:
        """Keeps the weights if they are better; the first of equally good steps stays."""
        if loss < self.loss_N[network]:
            self.networks[network].load_state_dict(weights)
            self.loss_N[network], self.step_N[network] = loss, step


def make_networks(heads: int, fitting: Sequence[Examples], seed: int) -> list[Enhancer]:
    """Leaves the caller's random state as it is."""
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
            drawn.append(_mirror_examples(examples.at(places), torch.from_numpy(generator.random(ROWS) < 0.5)))
        ids = [identifier for rows in drawn for identifier in rows.ids]
        tensors = {name: torch.stack([getattr(rows, name) for rows in drawn]) for name in TENSORS}
        return Batch(len(ids), tensors, lambda: ids)

    def losses(step: int, batch: Batch) -> Losses:
        values = [
            loss_of(network.logits(maps, valid), truth, weight, loss, share)
            for network, maps, valid, truth, weight, share in zip(
                networks, *batch.tensors.values(), shares, strict=True
            )
        ]
        parts = {f"loss {number}": value for number, value in enumerate(values)} if len(values) > 1 else {}
        return Losses(torch.stack(values).sum(), parts)

    def watch(step: int) -> Mapping[str, Any]:
        values = {}
        for number, (network, examples, share) in enumerate(zip(networks, stopping, shares, strict=True)):
            # Without stopping pictures whose masks are known somewhere, the last step is the best.
            has_stopping = bool(examples.weight.any())
            stopping_loss = _mean_loss(network, examples, loss, share) if has_stopping else -float(step)
            best.offer(number, step, stopping_loss, network.state_dict())
            if has_stopping:
                values["stopping loss" if len(networks) == 1 else f"stopping loss {number}"] = stopping_loss
        return values

    modules = nn.ModuleList(networks)
    return Lesson(
        modules={"networks": modules, "best": best},
        optimiser=torch.optim.AdamW(modules.parameters(), weight_decay=WEIGHT_DECAY),
        batch=batch,
        losses=losses,
        watch=watch,
        learning_rate=Schedule(start=LEARNING_RATE, end=0.0, steps=course.steps, warmup=WATCHED_EVERY),
    )


def foreground_share(examples: Examples) -> float:
    """The share of foreground in the known pixels, bounded away from 0 and 1 to bound the weights of the loss."""
    share = float((examples.weight * examples.truth).sum() / examples.weight.sum().clamp_min(1))
    return min(max(share, LEAST_SHARE), 1 - LEAST_SHARE)


def loss_of(
    logits: Float32[Tensor, "B R C"],
    truth: Float32[Tensor, "B R C"],
    weight: Float32[Tensor, "B R C"],
    loss: Loss,
    share: float,
) -> Float32[Tensor, ""]:
    """Cross-entropy over the known pixels, balanced so that foreground, with this share, weighs as much as background;
    plus one minus Dice's coefficient of each row. A row without known pixels adds nothing."""
    inside, outside = (0.5 / share, 0.5 / (1 - share)) if loss.startswith("balanced") else (1.0, 1.0)
    entropy_BRC = weight * (inside * truth * softplus(-logits) + outside * (1 - truth) * softplus(logits))
    entropy = entropy_BRC.sum() / weight.sum().clamp_min(1)
    if not loss.endswith("dice"):
        return entropy
    predicted = torch.sigmoid(logits) * weight
    both_B, sum_B = (predicted * truth).sum((1, 2)), (predicted + truth * weight).sum((1, 2))
    return entropy + (1 - (2 * both_B + 1) / (sum_B + 1)).mean()


@torch.no_grad()
def _mean_loss(network: Enhancer, examples: Examples, loss: Loss, share: float) -> float:
    """The mean over all rows, computed in batches."""
    total, num_rows = 0.0, len(examples.ids)
    for start in range(0, num_rows, ROWS):
        rows = examples.at(torch.arange(start, min(start + ROWS, num_rows)))
        logits = network.logits(rows.maps, rows.valid)
        total += float(loss_of(logits, rows.truth, rows.weight, loss, share)) * len(rows.ids)
    return total / num_rows


def _mirror_examples(examples: Examples, is_mirrored_B: Tensor) -> Examples:
    def mirror_columns(values: Tensor) -> Tensor:
        shape = (-1, *[1] * (values.ndim - 1))
        return torch.where(is_mirrored_B.view(shape), values.flip(-1), values)

    mirrored: dict[str, Any] = {name: mirror_columns(getattr(examples, name)) for name in TENSORS}
    return replace(examples, **mirrored)
