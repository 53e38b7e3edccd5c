"""The network of student and teacher: a backbone with pretraining heads.

Letters: B pictures, or views of them, M class token and patches, T patches, D width of a token.
"""

import copy
from typing import Any, TypeVar

import timm
import torch
from jaxtyping import Float
from timm.layers import DropPath  # type: ignore[attr-defined]
from torch import Tensor, nn

from ...manifests.errors import ConfigError
from ..learning.processes import BatchSlice
from .heads import ProjectionHead, ReconstructionHead

Module = TypeVar("Module", bound=nn.Module)


class Network(nn.Module):
    def __init__(self, backbone: Any, num_clusters: int, hidden: int) -> None:
        super().__init__()
        self.backbone = backbone
        width = backbone.embed_dim
        self.patch_px = backbone.patch_embed.patch_size[0]
        self.projection = ProjectionHead(width, num_clusters, hidden)
        self.reconstruction = ReconstructionHead(width, self.patch_px)

    def tokens(self, pictures: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B M D"]:
        return final_tokens(self.backbone, pictures)


def final_tokens(backbone: Any, pictures: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B M D"]:
    """The class token and the patches after the last norm, without registers."""
    tokens = backbone.forward_features(pictures)
    return torch.cat([tokens[:, :1], tokens[:, backbone.num_prefix_tokens :]], dim=1)


def make_backbone(name: str, size_px: int, drop_path: float) -> Any:
    """A backbone for views of any size, initialised from torch's global generator."""
    try:
        model: Any = timm.create_model(
            name, num_classes=0, img_size=size_px, dynamic_img_size=True, drop_path_rate=drop_path
        )
    except TypeError as error:
        raise ConfigError(
            f"backbone {name} does not take pictures of several sizes, which pretraining needs ({error}); "
            "choose a plain vision transformer such as vit_small_patch16_224"
        ) from error
    if not getattr(model, "num_prefix_tokens", 0) or getattr(model, "cls_token", None) is None:
        raise ConfigError(
            f"backbone {name} has no class token, which pretraining needs; choose another, such as "
            "vit_small_patch16_224"
        )
    if isinstance(model.norm, nn.Identity):
        raise ConfigError(
            f"backbone {name} has no norm after its last block, so extract could not give the tokens that "
            "were trained; choose another, such as vit_small_patch16_224"
        )
    return model


class PartOfDropPath(DropPath):
    """timm's DropPath, drawn for the whole batch. Rows are one view of each picture of this process, then the next
    view."""

    def __init__(self, rate: float, part: BatchSlice, pictures: int) -> None:
        super().__init__(rate)
        self._part, self._pictures = part, pictures

    def forward(self, x: Float[Tensor, "B M D"]) -> Float[Tensor, "B M D"]:
        if not self.training:
            return x
        views = len(x) // self._pictures
        keep = 1 - self.drop_prob
        drawn = x.new_empty(views, self._pictures * self._part.count).bernoulli_(keep).div_(keep)
        return x * self._part.take(drawn, dim=1).reshape(-1, 1, 1)


def replace_drop_paths(backbone: nn.Module, part: BatchSlice, pictures: int) -> None:
    """`pictures`: how many of each batch this process has."""
    for name, module in list(backbone.named_modules()):
        if isinstance(module, DropPath):
            backbone.set_submodule(name, PartOfDropPath(module.drop_prob, part, pictures))


def copy_as_teacher(student: Module) -> Module:
    """A frozen copy in evaluation mode."""
    return copy.deepcopy(student).eval().requires_grad_(False)


@torch.no_grad()
def update_moving_average(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    for slow, fast in zip(teacher.parameters(), student.parameters(), strict=True):
        slow.lerp_(fast, 1 - momentum)


def parameter_groups(student: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay for matrices only, not for biases, norms and other vectors (DINO, utils.py get_params_groups)."""
    parameters = [parameter for parameter in student.parameters() if parameter.requires_grad]
    return [
        {"params": [parameter for parameter in parameters if parameter.ndim > 1], "weight_decay": weight_decay},
        {"params": [parameter for parameter in parameters if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
