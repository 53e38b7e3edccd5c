"""One step of pretraining: views of pictures, what the teacher says of them, and what the student is asked.

Letters: B pictures, V views, G larger views, T patches, K clusters, S pixels of a side as stored.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from ..learning.lesson import Losses
from ..learning.schedules import Schedule
from ..vision.fitting import Colour
from .assignments import centred_targets, me_max, mean_prediction, sinkhorn_targets, updated_centre
from .config import PretrainConfig
from .draws import generator_at
from .masking import Corrupted, Masking, corrupt
from .network import Network, follow
from .objectives import cls_loss, contrastive_loss, patch_loss, reconstruction_loss
from .views import FIRST_GLOBAL, LOCAL, SECOND_GLOBAL, draw_views

STUDENT_TEMPERATURE = 0.1
TEACHER_TEMPERATURES = (0.04, 0.07)  # the second after so many epochs
TEACHER_WARMUP_EPOCHS = 30
NUM_GLOBAL = 2


class Centres(nn.Module):
    """Of class tokens and of patches, for centring; in a module, so that checkpoints have them."""

    cls_K: Tensor
    patch_K: Tensor

    def __init__(self, num_clusters: int) -> None:
        super().__init__()
        self.register_buffer("cls_K", torch.zeros(num_clusters))
        self.register_buffer("patch_K", torch.zeros(num_clusters))


class Teaching:
    """Student and teacher at one step after another."""

    def __init__(
        self, config: PretrainConfig, student: Network, teacher: Network, mean: Colour, std: Colour, epoch_steps: int
    ) -> None:
        self.config, self.student, self.teacher = config, student, teacher
        self.centres = Centres(config.clusters).to(next(student.parameters()).device)
        self._colours = mean, std
        self._epoch_steps = epoch_steps
        self._taught: tuple[Tensor, Tensor] | None = None  # logits of this step
        start, end = TEACHER_TEMPERATURES
        warmup = min(TEACHER_WARMUP_EPOCHS, config.epochs) * epoch_steps
        self._temperature = Schedule(start=start, end=end, steps=warmup, shape="linear")
        sized = [replace(each, size_px=config.global_size) for each in (FIRST_GLOBAL, SECOND_GLOBAL)]
        self._strengths = [*sized, *[replace(LOCAL, size_px=config.local_size)] * config.local_views]
        self._masking = Masking(align_px=config.align or student.patch_px)

    def losses(self, step: int, pictures: UInt8[Tensor, "B 3 S S"]) -> Losses:
        """All that are asked for, from the numbers drawn for this step."""
        generator = generator_at(self.config.seed, step)
        views = draw_views(pictures, self._strengths, *self._colours, generator)
        clean = torch.cat(views[:NUM_GLOBAL])
        corrupted = corrupt(clean, self._masking, self.student.patch_px, generator)
        self._freeze_prototypes(step < self._epoch_steps)
        tokens = self.student.tokens(corrupted.pictures)
        weights, parts = self.config.weights, dict[str, Tensor]()
        if self.config.clusters_used:
            parts |= self._clustering(step, tokens, views, clean, corrupted)
        if "reconstruction" in weights:
            grid = (clean.shape[2] // self.student.patch_px, clean.shape[3] // self.student.patch_px)
            drawn = self.student.reconstruction(tokens[:, 1:], grid)
            parts["reconstruction"] = reconstruction_loss(
                drawn, clean, corrupted.is_corrupted, self.config.reconstruction
            )
        if "contrastive" in weights:
            parts["contrastive"] = self._contrastive(tokens, clean)
        total = torch.stack([weights.get(name, 1.0) * value for name, value in parts.items()]).sum()
        return Losses(total, parts)

    def after(self, momentum: float) -> None:
        """Once the student has changed: the teacher follows, and so do the centres of what it said."""
        follow(self.teacher, self.student, momentum)
        if self.config.avoidance == "centering" and self._taught is not None:
            taught_VK, taught_VTK = self._taught
            self.centres.cls_K.copy_(updated_centre(self.centres.cls_K, taught_VK))
            self.centres.patch_K.copy_(updated_centre(self.centres.patch_K, taught_VTK))

    def _clustering(
        self,
        step: int,
        tokens: Float[Tensor, "V T D"],
        views: Sequence[Tensor],
        clean: Float[Tensor, "V 3 H W"],
        corrupted: Corrupted,
    ) -> dict[str, Tensor]:
        cls_VK, patch_VTK = self.student.projection(tokens)
        with torch.no_grad():
            taught_VK, taught_VTK = self.teacher.projection(self.teacher.tokens(clean))
        parts: dict[str, Tensor] = {}
        temperature = self._temperature.at(step)
        batch = len(views[0])
        if "cls" in self.config.weights:
            every = [cls_VK]
            if self.config.local_views:
                small = self.student.tokens(torch.cat(list(views[NUM_GLOBAL:])))
                every.append(self.student.projection(small[:, :1])[0])
            student_VBK = torch.cat(every).view(-1, batch, self.config.clusters)
            targets_VK = self._targets(taught_VK, self.centres.cls_K, temperature)
            targets_GBK = targets_VK.view(NUM_GLOBAL, batch, self.config.clusters)
            parts["cls"] = cls_loss(targets_GBK, student_VBK, STUDENT_TEMPERATURE)
            parts |= self._spread("cls", student_VBK)
        if "patch" in self.config.weights:
            targets_VTK = self._targets(taught_VTK, self.centres.patch_K, temperature)
            counted = corrupted.is_masked if self.config.patches == "masked" else None
            parts["patch"] = patch_loss(targets_VTK, patch_VTK, STUDENT_TEMPERATURE, counted)
            parts |= self._spread("patch", patch_VTK)
        self._taught = taught_VK, taught_VTK
        return parts

    def _targets(self, logits: Float[Tensor, "*N K"], centre_K: Tensor, temperature: float) -> Float[Tensor, "*N K"]:
        """ME-MAX alone leaves the teacher's softmax as it is: it spreads the student, whom the teacher follows."""
        if self.config.avoidance.startswith("sinkhorn"):
            return sinkhorn_targets(logits, temperature)
        return centred_targets(logits, centre_K if self.config.avoidance == "centering" else 0 * centre_K, temperature)

    def _spread(self, name: str, logits: Float[Tensor, "*N K"]) -> dict[str, Tensor]:
        """MSN has it for class tokens, the only ones it clusters; here patches have it too where they are clustered."""
        if not self.config.avoidance.endswith("me-max"):
            return {}
        return {f"me-max {name}": me_max(mean_prediction(logits, STUDENT_TEMPERATURE))}

    def _contrastive(self, tokens: Float[Tensor, "V M D"], clean: Float[Tensor, "V 3 H W"]) -> Tensor:
        """Between the two larger views, in the space before the prototypes."""
        with torch.no_grad():
            taught = self.teacher.projection.mlp(self.teacher.tokens(clean)[:, 0])
        asked = self.student.projection.mlp(tokens[:, 0])
        width = asked.shape[-1]
        return contrastive_loss(asked.view(NUM_GLOBAL, -1, width), taught.view(NUM_GLOBAL, -1, width))

    def _freeze_prototypes(self, is_frozen: bool) -> None:
        """In the first epoch (DINO, freeze_last_layer): without a gradient the optimiser leaves them."""
        for prototypes in (self.student.projection.cls_prototypes, self.student.projection.patch_prototypes):
            prototypes.requires_grad_(not is_frozen)
