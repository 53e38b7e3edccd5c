"""One step of pretraining: views, teacher targets and student losses.

Letters: B pictures, V views, G larger views, T patches, K clusters, S pixels of a side as stored.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from ..learning.lesson import Losses
from ..learning.processes import BatchSlice
from ..learning.schedules import Schedule
from ..vision.fitting import Colour
from .assignments import centering_targets, me_max, mean_prediction, next_centre, sinkhorn_targets
from .config import PretrainConfig
from .draws import Draws, draws_at
from .masking import Corrupted, Masking, corrupt_pictures
from .network import Network, update_moving_average
from .objectives import cls_loss, contrastive_loss, patch_loss, reconstruction_loss
from .views import FIRST_GLOBAL, LOCAL, SECOND_GLOBAL, draw_views

STUDENT_TEMPERATURE = 0.1
TEACHER_TEMPERATURES = (0.04, 0.07)  # linear from the first to the second during the warm-up
TEACHER_WARMUP_EPOCHS = 30
NUM_GLOBAL = 2
ME_MAX = "me-max "  # prefix of the name of its loss


class Centres(nn.Module):
    """The centres of class tokens and patches, in a module so that checkpoints include them."""

    def __init__(self, num_clusters: int) -> None:
        super().__init__()
        for name in ("cls", "patch"):
            self.register_buffer(f"{name}_K", torch.zeros(num_clusters))

    def get(self, name: str) -> Tensor:
        return self.get_buffer(f"{name}_K")


class Teaching:
    """Student, teacher and centres."""

    def __init__(
        self,
        config: PretrainConfig,
        student: Network,
        teacher: Network,
        mean: Colour,
        std: Colour,
        epoch_steps: int,
        part: BatchSlice,
    ) -> None:
        self.part = part
        self.config, self.student, self.teacher = config, student, teacher
        self.centres = Centres(config.clusters).to(next(student.parameters()).device)
        self._colours = mean, std
        self._epoch_steps = epoch_steps
        self._next_centres: dict[str, Tensor] = {}
        start, end = TEACHER_TEMPERATURES
        warmup = min(TEACHER_WARMUP_EPOCHS, config.epochs) * epoch_steps
        self._temperature = Schedule(start=start, end=end, steps=warmup, shape="linear")
        sized = [replace(view, size_px=config.global_size) for view in (FIRST_GLOBAL, SECOND_GLOBAL)]
        self.strengths = [*sized, *[replace(LOCAL, size_px=config.local_size)] * config.smaller_views]
        self.masking = Masking(align_px=config.align or student.patch_px)

    def losses(self, step: int, pictures: UInt8[Tensor, "B 3 S S"]) -> Losses:
        """The losses of this process's slice of the batch. Changes nothing that a checkpoint holds."""
        draws = draws_at(self.config.seed, step, part=self.part)
        views = draw_views(pictures, self.strengths, *self._colours, draws)
        clean = torch.cat(views[:NUM_GLOBAL])
        corrupted = self._corrupt_views(views[:NUM_GLOBAL], draws)
        self.student.projection.cls_prototypes.requires_grad_(step >= self._epoch_steps)
        tokens = self.student.tokens(corrupted.pictures)
        weights, parts = self.config.weights, dict[str, Tensor]()
        if weights.keys() - {"reconstruction"}:
            with torch.no_grad():
                teacher_tokens = self.teacher.tokens(clean)
            temperature = self._temperature.at(step)
            if "cls" in weights:
                parts |= self._cls_losses(tokens, teacher_tokens, views[NUM_GLOBAL:], temperature)
            if "patch" in weights:
                parts |= self._patch_losses(tokens, teacher_tokens, corrupted, temperature)
            if "contrastive" in weights:
                parts["contrastive"] = self._contrastive_loss(tokens, teacher_tokens)
        if "reconstruction" in weights:
            grid = (clean.shape[2] // self.student.patch_px, clean.shape[3] // self.student.patch_px)
            reconstructed = self.student.reconstruction(tokens[:, 1:], grid)
            parts["reconstruction"] = reconstruction_loss(
                reconstructed, clean, corrupted.is_corrupted, self.config.reconstruction
            )
        total = torch.stack([weights[name.removeprefix(ME_MAX)] * value for name, value in parts.items()]).sum()
        return Losses(total, parts)

    def update_teacher(self, momentum: float) -> None:
        """Updates the teacher and the centres after the student's update."""
        update_moving_average(self.teacher, self.student, momentum)
        for name, centre_K in self._next_centres.items():
            self.centres.get(name).copy_(centre_K)
        self._next_centres = {}

    def _corrupt_views(self, views: Sequence[Tensor], draws: Draws) -> Corrupted:
        """Corrupts each view separately, so that replaced parts come from other pictures, not from another view."""
        corrupted = [corrupt_pictures(view, self.masking, self.student.patch_px, draws) for view in views]
        return Corrupted(
            torch.cat([view.pictures for view in corrupted]),
            torch.cat([view.is_corrupted for view in corrupted]),
            torch.cat([view.is_masked for view in corrupted]),
        )

    def _cls_losses(
        self,
        tokens: Float[Tensor, "V M D"],
        teacher_tokens: Float[Tensor, "V M D"],
        small: Sequence[Tensor],
        temperature: float,
    ) -> dict[str, Tensor]:
        batch = len(tokens) // NUM_GLOBAL
        cls_tokens = [tokens[:, :1]]
        if small:
            cls_tokens.append(self.student.tokens(torch.cat(list(small)))[:, :1])
        student_VBK = self.student.projection(torch.cat(cls_tokens))[0].view(-1, batch, self.config.clusters)
        with torch.no_grad():
            teacher_VK = self.teacher.projection(teacher_tokens[:, :1])[0]
        targets_GBK = self._targets("cls", teacher_VK, temperature).view(NUM_GLOBAL, batch, self.config.clusters)
        self._follow_centre("cls", teacher_VK)
        return {
            "cls": cls_loss(targets_GBK, student_VBK, STUDENT_TEMPERATURE),
            **self._me_max_losses("cls", student_VBK),
        }

    def _patch_losses(
        self,
        tokens: Float[Tensor, "V M D"],
        teacher_tokens: Float[Tensor, "V M D"],
        corrupted: Corrupted,
        temperature: float,
    ) -> dict[str, Tensor]:
        """With masked patches only, balancing covers only these too (iBOT, DINOv2)."""
        student_VTK = self.student.projection(tokens)[1]
        with torch.no_grad():
            teacher_VTK = self.teacher.projection(teacher_tokens)[1]
        self._follow_centre("patch", teacher_VTK)
        if self.config.patches == "all":
            targets_VTK = self._targets("patch", teacher_VTK, temperature)
            loss = patch_loss(targets_VTK, student_VTK, STUDENT_TEMPERATURE)
            return {"patch": loss, **self._me_max_losses("patch", student_VTK)}
        counted_VT = corrupted.is_masked
        targets_VTK = torch.zeros_like(teacher_VTK, dtype=torch.float32)
        targets_VTK[counted_VT] = self._targets("patch", teacher_VTK[counted_VT], temperature)
        loss = patch_loss(targets_VTK, student_VTK, STUDENT_TEMPERATURE, counted_VT)
        return {"patch": loss, **self._me_max_losses("patch", student_VTK[counted_VT])}

    def _targets(self, name: str, logits: Float[Tensor, "*N K"], temperature: float) -> Float[Tensor, "*N K"]:
        """ME-MAX alone changes the student's predictions only, so the teacher's softmax stays as it is."""
        if self.config.avoidance.startswith("sinkhorn"):
            return sinkhorn_targets(logits, temperature)
        return centering_targets(logits, self.centres.get(name), temperature)  # the centre stays 0 without centering

    def _follow_centre(self, name: str, logits: Float[Tensor, "B *N K"]) -> None:
        if self.config.avoidance == "centering":
            self._next_centres[name] = next_centre(self.centres.get(name), logits)

    def _me_max_losses(self, name: str, logits: Float[Tensor, "*N K"]) -> dict[str, Tensor]:
        """For class tokens as in MSN, and for patches if they are clustered; with the weight of their loss."""
        if not self.config.avoidance.endswith("me-max"):
            return {}
        return {f"{ME_MAX}{name}": me_max(mean_prediction(logits, STUDENT_TEMPERATURE))}

    def _contrastive_loss(self, tokens: Float[Tensor, "V M D"], teacher_tokens: Float[Tensor, "V M D"]) -> Tensor:
        """Compares the two global views in the space before the prototypes."""
        with torch.no_grad():
            teacher = self.teacher.projection.mlp(teacher_tokens[:, 0])
        student = self.student.projection.mlp(tokens[:, 0])
        width = student.shape[-1]
        views = student.view(NUM_GLOBAL, -1, width), teacher.view(NUM_GLOBAL, -1, width)
        return contrastive_loss(*views, part=self.part)
