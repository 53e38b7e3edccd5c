"""Fits the head of FOUND on stored tokens, and writes a checkpoint for `mask --method found`.

Letters: N drawn pictures, B pictures of a batch, T patches, K width of the feature.

Optimiser, number of steps, batch, learning rate and the weights of the losses are those of the published
`found_DUTS-TR.yaml`. Features are divided by their root mean square, so that the learning rate suits features of any
length; the checkpoint holds the weights for features as they are stored.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64
from safetensors.numpy import load, save
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, linear

from ...manifests.artifact.artifact import Artifact
from ...manifests.artifact.checkpoints import SEEN, WEIGHTS, training_ids_json
from ...manifests.artifact.tokens import Tokens
from ...manifests.artifact.underway import Underway
from ...manifests.counts import count_of
from ...manifests.errors import ConfigError
from ..learning.lesson import Batch, Lesson, Losses
from ..learning.loop import Course, train
from ..learning.schedules import StepDecay
from ..maps.one_thread import one_thread
from ..stage import Findings, Inputs
from ..vision.feature_forms import Feature
from ..vision.fitting import valid_patches
from ..vision.patch_features import fields_of, num_heads, read_patches
from .config import FitConfig
from .found import FoundHead, coarse_foreground, connect_neighbours, smooth_masks

KIND, METRICS = "found", "metrics.jsonl"
STEPS, BATCH = 500, 50  # max_iter, batch_size
COARSE_STEPS = 100  # stop_bkg_loss
LEARNING_RATE = StepDecay(start=5e-2, factor=0.95, every=50)  # lr0, step_lr_gamma, step_lr_size
SMOOTHED_WEIGHT, OWN_WEIGHT = 1.5, 4.0  # w_bs_loss, w_self_loss
MOST_PICTURES = STEPS * BATCH


class Head(nn.Module):
    has_seen_foreground: Tensor  # whether any coarse mask so far has a patch

    def __init__(self, width: int, seed: int) -> None:
        """Leaves the caller's random state as it is."""
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))
            self.linear = nn.Linear(width, 1)
        self.register_buffer("has_seen_foreground", torch.tensor(False))


@dataclass(frozen=True, slots=True)
class Pictures:
    """The pictures that a head is fitted on; read a batch at a time."""

    tokens: Tokens
    feature: Feature
    positions_N: Int64[np.ndarray, " N"]
    seed: int

    def batch(self, step: int) -> Batch:
        """Every picture once before any comes again; pictures that do not fill a batch are left out of a round."""
        size = min(BATCH, len(self.positions_N))
        number, place = divmod(step, len(self.positions_N) // size)
        order_N = np.random.default_rng([self.seed, 1, number]).permutation(len(self.positions_N))
        positions = np.sort(self.positions_N[order_N[place * size : (place + 1) * size]]).tolist()
        arrays = {
            "patches": read_patches(self.tokens, self.feature, positions),
            "attention": self.tokens.at("cls_attention", positions)[:, -1],
        }
        for name, values in arrays.items():
            for position, picture in zip(positions, values, strict=True):
                if not np.isfinite(picture).all():
                    raise ConfigError(
                        f"{name} of {self._ids([position])[0]!r} in {self.tokens.artifact.place} are not finite; "
                        "extract the tokens again"
                    )
        tensors = {name: torch.from_numpy(values) for name, values in arrays.items()}
        return Batch(size, {**tensors, "valid": self._valid(positions)}, lambda: self._ids(positions))

    def _ids(self, positions: list[int]) -> list[str]:
        ids: list[str] = self.tokens.artifact.rows_at(positions, ["id"]).column("id").to_pylist()
        return ids

    def _valid(self, positions: list[int]) -> Bool[Tensor, "B T"]:
        """Of patches as they are stored: those of mirrored pictures are not turned back."""
        backbone = self.tokens.facts.backbone
        boxes = self.tokens.artifact.rows_at(positions, ["box"]).column("box").to_pylist()
        masks = [valid_patches(tuple(box), backbone.patch, backbone.grid).ravel() for box in boxes]
        return torch.from_numpy(np.stack(masks))


def fit_found(config: FitConfig, inputs: Inputs, underway: Underway) -> Findings:
    tokens = Tokens(inputs["tokens"])
    assert config.feature is not None
    positions_N = draw_positions(tokens.artifact, fields_of(config.feature)[0], MOST_PICTURES, config.seed)
    if not len(positions_N):
        raise ConfigError(f"{tokens.artifact.place} holds no picture to learn from; extract some")
    pictures = Pictures(tokens, config.feature, positions_N, config.seed)
    with one_thread():  # so that a checkpoint does not depend on the machine's threads
        first = pictures.batch(0)
        scale = _root_mean_square(first)
        head = Head(first.tensors["patches"].shape[-1], config.seed)
        course = Course(steps=STEPS, steps_per_epoch=50, seed=config.seed)
        lines = train(_make_lesson(head, pictures, scale), course, underway)
        fitted = FoundHead(head.linear.weight.detach()[0] / scale, head.linear.bias.detach()[0])
        share = _foreground_share(fitted, first, tokens)
    weights = {"weight": fitted.weight_K.numpy(), "bias": fitted.bias.numpy()}
    return Findings(
        files={
            WEIGHTS: save(weights),
            METRICS: "".join(line + "\n" for line in lines).encode(),
            SEEN: training_ids_json([], [], [], []),
        },
        facts={"kind": KIND, "pictures": len(positions_N), "foreground": round(share, 4)},
    )


def load_found(checkpoint: Artifact) -> FoundHead:
    weights = load(checkpoint.file(WEIGHTS))
    return FoundHead(torch.from_numpy(weights["weight"]), torch.from_numpy(weights["bias"]))


def draw_positions(tokens: Artifact, field: str, most: int, seed: int) -> Int64[np.ndarray, " N"]:
    """Positions of pictures that did not fail, at most so many, sorted. They are drawn by whole units, because reading
    one row of a unit checks the unit's whole file."""
    failures = tokens.failures()
    units = list(tokens.plan.layout(tokens.plan.group_of(field)).units())
    drawn: list[int] = []
    for place in np.random.default_rng([seed, 0]).permutation(len(units)).tolist():
        if len(drawn) >= most:
            break
        drawn += [row for row in range(units[place].start, units[place].stop) if row not in failures]
    return np.sort(np.array(drawn[:most], np.int64))


def _make_lesson(head: Head, pictures: Pictures, scale: float) -> Lesson:
    facts = pictures.tokens.facts
    grid, heads = facts.backbone.grid, num_heads(facts, pictures.feature)

    def losses(step: int, batch: Batch) -> Losses:
        patches, attention, valid = (batch.tensors[name] for name in ("patches", "attention", "valid"))
        logits_BT = linear(patches.float(), head.linear.weight / scale, head.linear.bias)[..., 0]
        own_BT = (logits_BT.detach() > 0) & valid
        neighbours = connect_neighbours(patches, valid, grid)
        smoothed = mask_loss(logits_BT, smooth_masks(own_BT, neighbours, grid), valid)
        share = own_BT.sum() / valid.sum()
        if step < COARSE_STEPS:
            coarse_BT = coarse_foreground(patches, attention, valid, heads)
            head.has_seen_foreground |= coarse_BT.any()  # twice is like once, if a stopped step is repeated
            coarse = mask_loss(logits_BT, smooth_masks(coarse_BT, neighbours, grid), valid)
            return Losses(SMOOTHED_WEIGHT * smoothed + coarse, {"coarse loss": coarse, "foreground": share})
        _refuse_without_foreground(head, pictures)
        own = mask_loss(logits_BT, own_BT, valid)
        return Losses(SMOOTHED_WEIGHT * smoothed + OWN_WEIGHT * own, {"own loss": own, "foreground": share})

    return Lesson(
        modules={"head": head},
        optimiser=torch.optim.AdamW(head.parameters()),
        batch=pictures.batch,
        losses=losses,
        learning_rate=LEARNING_RATE,
    )


def mask_loss(
    logits: Float32[Tensor, "B T"], target: Bool[Tensor, "B T"], valid: Bool[Tensor, "B T"]
) -> Float32[Tensor, ""]:
    """The cross-entropy, averaged over valid patches."""
    return binary_cross_entropy_with_logits(logits[valid], target[valid].float())


def _refuse_without_foreground(head: Head, pictures: Pictures) -> None:
    if not head.has_seen_foreground:
        raise ConfigError(
            f"no picture of {pictures.tokens.artifact.place} shows foreground to learn from: every patch is as the "
            f"background by its {pictures.feature}; choose another --feature, or give pictures that show objects"
        )


def _foreground_share(head: FoundHead, batch: Batch, tokens: Tokens) -> float:
    """Of the patches of a batch. Refuses a head that has learned to call everything background."""
    valid_BT = batch.tensors["valid"]
    is_foreground_BT = (head.probability(batch.tensors["patches"]) > 0.5) & valid_BT
    if not is_foreground_BT.any():
        raise ConfigError(
            f"the head finds no foreground in {count_of(batch.rows, 'picture')} of {tokens.artifact.place} after "
            "fitting; fit it on more pictures, or choose another --feature"
        )
    return float(is_foreground_BT.sum() / valid_BT.sum())


def _root_mean_square(batch: Batch) -> float:
    squares = batch.tensors["patches"][batch.tensors["valid"]].float().square()
    return max(math.sqrt(float(squares.mean())), 1e-12)
