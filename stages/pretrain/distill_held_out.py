"""How well a student predicts the teacher's tokens of pictures that it does not learn from, and the choice of a loss.

Letters: N pictures, B of a batch, M class token and patches, D width of a student's token.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor

from ...manifests.artifact.pixels import Pixels
from ..learning.lesson import Batch
from ..learning.processes import average_gradients
from ..learning.schedules import Schedule
from .distill_losses import LOSSES, DistillLoss, mean_of_parts, scale_tokens, token_cosines
from .distilling import Distilled, Prepared, normalise, shorter_type
from .network import final_tokens, parameter_groups
from .stored_teacher import StoredTeacher
from .views import Crops, cut_crops

SHARE, MOST = 20, 1000  # one picture of twenty is held out, at most a thousand
AT_ONCE = 64


def hold_out_rows(rows: Int64[np.ndarray, " N"], seed: int) -> tuple[Int64[np.ndarray, " _"], Int64[np.ndarray, " _"]]:
    """The rows to learn from, and those to judge by; deterministic for a seed."""
    order = np.random.default_rng([seed, 3]).permutation(len(rows))
    count = min(MOST, max(1, len(rows) // SHARE))
    return np.sort(rows[order[count:]]), np.sort(rows[order[:count]])


@dataclass(frozen=True, slots=True)
class HeldOut:
    rows: Int64[np.ndarray, " N"]
    pixels: Pixels
    teacher: StoredTeacher
    grid: tuple[int, int]  # the student's rows and columns of patches

    @torch.no_grad()
    def cosines(self, student: Distilled, prepared: Prepared) -> dict[str, float]:
        """The mean cosine of predicted and centred tokens over whole pictures, as in the losses."""
        sums, device = np.zeros(2), student.head.weight.device
        for start in range(0, len(self.rows), AT_ONCE):
            rows = self.rows[start : start + AT_ONCE]
            pictures = torch.from_numpy(self.pixels.at(rows)).permute(0, 3, 1, 2)
            targets = self.teacher.match(rows, whole_pictures(pictures), self.grid)
            with shorter_type(prepared.config, device):
                predicted_BMD = student(whole_views(pictures.to(device), prepared))
            scaled_BMD = scale_tokens(targets.tokens_BMD.to(device), prepared.scale)
            parts = mean_of_parts(token_cosines(predicted_BMD, scaled_BMD), targets.is_counted_BT.to(device))
            sums += len(rows) * np.array([float(part) for part in parts])
        cls, patch = (sums / len(self.rows)).tolist()
        return {"held-out cls cosine": cls, "held-out patch cosine": patch}


def whole_pictures(pictures: UInt8[Tensor, "B 3 S S"]) -> Crops:
    batch, side = len(pictures), pictures.shape[2]
    box_B4 = torch.tensor([0, 0, side, side]).expand(batch, 4)
    return Crops(box_B4, torch.zeros(batch, dtype=torch.bool))


def whole_views(pictures: UInt8[Tensor, "B 3 S S"], prepared: Prepared) -> Float32[Tensor, "B 3 O O"]:
    """Uncropped pictures at the size of the views, normalised."""
    crops = whole_pictures(pictures)
    on_device = Crops(crops.box_B4.to(pictures.device), crops.is_flipped_B)
    view = cut_crops(pictures.float().div_(255), on_device, prepared.strengths.size_px)
    return normalise(view, prepared.colours)


@torch.no_grad()
def class_tokens(
    student: Distilled, pixels: Pixels, rows: Int64[np.ndarray, " N"], prepared: Prepared
) -> Float32[Tensor, "N D"]:
    """The backbone's own class tokens, without the head."""
    tokens, device = [], student.head.weight.device
    for start in range(0, len(rows), AT_ONCE):
        pictures = torch.from_numpy(pixels.at(rows[start : start + AT_ONCE])).permute(0, 3, 1, 2).to(device)
        with shorter_type(prepared.config, device):
            tokens.append(final_tokens(student.backbone, whole_views(pictures, prepared))[:, 0].float())
    return torch.cat(tokens)


def try_losses(
    prepared: Prepared,
    student: Distilled,
    batch: Callable[[int], Batch],
    held_out: HeldOut,
    steps: int,
    rate: float,
) -> Mapping[DistillLoss, float]:
    """Loss → the held-out cosine after a short fit of a copy of the student: the mean of class token and patches. The
    losses themselves have different units. Every fit sees the same batches in the same order."""
    cosines: dict[DistillLoss, float] = {}
    for loss in LOSSES:
        fitted = copy.deepcopy(student)
        _fit_briefly(prepared, fitted, loss, batch, steps, rate)
        cosines[loss] = float(np.mean(list(held_out.cosines(fitted.eval(), prepared).values())))
    return cosines


def best_loss(cosines: Mapping[DistillLoss, float], order: Sequence[DistillLoss] = LOSSES) -> DistillLoss:
    """The one with the highest cosine; the first of equal ones."""
    return max(order, key=lambda loss: cosines[loss])


def _fit_briefly(
    prepared: Prepared, student: Distilled, loss: DistillLoss, batch: Callable[[int], Batch], steps: int, rate: float
) -> None:
    groups = parameter_groups(student, 0.0)
    optimiser = torch.optim.AdamW(groups)
    schedule = Schedule(start=rate, end=0.1 * rate, steps=steps, warmup=steps // 4)
    device = student.head.weight.device
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = schedule.at(step)
        tensors = {name: value.to(device) for name, value in batch(step).tensors.items()}
        optimiser.zero_grad(set_to_none=True)
        prepared.losses(student, loss, step, tensors).total.backward()  # type: ignore[no-untyped-call]
        average_gradients([parameter for group in groups for parameter in group["params"]])
        optimiser.step()
