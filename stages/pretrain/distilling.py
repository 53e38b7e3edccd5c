"""One step of distillation: a student learns to predict the stored tokens of a larger backbone.

A linear head maps the student's tokens to the teacher's width; the checkpoint does not keep it. What is kept is the
moving average of the student.

Letters: B pictures, M class token and patches, T patches, D width of a teacher's token.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn

from ..learning.lesson import Losses
from ..learning.processes import BatchSlice
from ..vision.fitting import Colour
from .config import PretrainConfig
from .distill_losses import LOSSES, DistillLoss, TokenScale, mean_of_parts, scale_tokens, token_losses
from .draws import draws_at
from .network import final_tokens, update_moving_average
from .views import Crops, Strengths, cut_crops, distort_colours

# Gentler than for learning without labels: a target is right for what its own crop shows, and the teacher saw true
# colours.
STRENGTHS = Strengths(size_px=224, scale=(0.4, 1.0), jittered=0.5, hue=0.05, grey=0.05, blurred=0.1)


class Distilled(nn.Module):
    """A backbone with the linear head."""

    def __init__(self, backbone: Any, teacher_width: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(backbone.embed_dim, teacher_width)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def forward(self, pictures: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B M D"]:
        return self.head(final_tokens(self.backbone, pictures))


class Choice(nn.Module):
    """The loss that was chosen, in a module so that a resumed training does not choose again."""

    def __init__(self, loss: str) -> None:
        super().__init__()
        chosen = [index for index, name in enumerate(LOSSES) if name == loss]
        self.register_buffer("place", torch.tensor(chosen[0] if chosen else -1))

    @property
    def loss(self) -> DistillLoss | None:
        place = int(self.get_buffer("place"))
        return LOSSES[place] if place >= 0 else None

    def settle(self, loss: DistillLoss) -> None:
        self.get_buffer("place").fill_(LOSSES.index(loss))


@dataclass(frozen=True, slots=True)
class Prepared:
    """What stays the same from step to step."""

    config: PretrainConfig
    strengths: Strengths
    scale: TokenScale
    colours: tuple[Colour, Colour]
    part: BatchSlice

    def losses(self, student: Distilled, loss: DistillLoss, step: int, tensors: Mapping[str, Tensor]) -> Losses:
        """The losses of this process's slice of the batch; class token and patches have equal weight."""
        predicted_BMD = student(self._view(step, tensors))
        targets_BMD = scale_tokens(tensors["tokens"], self.scale)
        values_BM = token_losses(predicted_BMD, targets_BMD, loss)
        cls, patch = mean_of_parts(values_BM, tensors["is_counted"])
        return Losses(cls + patch, {"cls": cls, "patch": patch})

    def _view(self, step: int, tensors: Mapping[str, Tensor]) -> Float32[Tensor, "B 3 O O"]:
        crops = Crops(tensors["crops"], tensors["is_flipped"].cpu())
        view = cut_crops(tensors["pictures"].float().div_(255), crops, self.strengths.size_px)
        view = distort_colours(view, self.strengths, draws_at(self.config.seed, step, 1, part=self.part))
        return normalise(view, self.colours)


class Distilling:
    """Student and moving average. `choose` tries the losses, if none was asked for."""

    def __init__(
        self, prepared: Prepared, student: Distilled, average: Distilled, choose: Callable[["Distilling"], DistillLoss]
    ) -> None:
        self.prepared, self.student, self.average = prepared, student, average
        self.choice = Choice(prepared.config.distill_loss)
        self._choose = choose

    def losses(self, step: int, tensors: Mapping[str, Tensor]) -> Losses:
        if self.choice.loss is None:
            self.choice.settle(self._choose(self))
        loss = self.choice.loss
        assert loss is not None
        return self.prepared.losses(self.student, loss, step, tensors)

    def update_average(self, momentum: float) -> None:
        update_moving_average(self.average, self.student, momentum)


def shorter_type(config: PretrainConfig, device: torch.device) -> torch.autocast:
    """As while learning."""
    return torch.autocast(device.type, torch.bfloat16, enabled=config.autocast == "bfloat16")


def normalise(view: Float32[Tensor, "B 3 O O"], colours: tuple[Colour, Colour]) -> Float32[Tensor, "B 3 O O"]:
    """Changes the view in place."""
    shift, width = (torch.tensor(values, device=view.device).view(3, 1, 1) for values in colours)
    return view.sub_(shift).div_(width)
