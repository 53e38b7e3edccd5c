"""How a training begins and ends: the network with its first weights, and the checkpoint of the last."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from safetensors.torch import save
from torch import nn

from ...manifests.artifact.checkpoints import SEEN, WEIGHTS, training_ids_json
from ...manifests.files.sealed import Json
from ..learning.processes import own_batch_slice, own_device
from ..stage import Findings
from ..vision.architecture import load_state
from ..vision.backbone import backbone_facts, find_device
from ..vision.weights import read_weights
from .config import PretrainConfig
from .draws import draws_at
from .network import make_backbone, replace_drop_paths

METRICS = "metrics.jsonl"
Student = TypeVar("Student", bound=nn.Module)


def own_torch_device(config: PretrainConfig) -> torch.device:
    return find_device(own_device(config.device))


def start_backbone(config: PretrainConfig, drop_path: float, add_heads: Callable[[Any], Student]) -> Student:
    """The network on its device, with random weights by the seed; those of the backbone are --initial-weights, if there
    are some. Leaves torch's global random state unchanged."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(draws_at(config.seed).generator.initial_seed())
        backbone = make_backbone(config.backbone, config.global_size, drop_path)
        student = add_heads(backbone)
    if config.initial_weights:
        _load_initial_weights(config, backbone)
    part = own_batch_slice()
    if part.count > 1:
        replace_drop_paths(backbone, part, config.batch // part.count)
    return student.to(own_torch_device(config))


def _load_initial_weights(config: PretrainConfig, backbone: Any) -> None:
    _, state = read_weights(config.backbone, config.initial_weights, config.initial_sha256)
    grid = backbone_facts(config.backbone, config.global_size, config.global_size).grid
    load_state(backbone, config.backbone, state, grid, "timm")


def finish_backbone(
    config: PretrainConfig,
    backbone: nn.Module,
    lines: Sequence[str],
    facts: Mapping[str, Json],
    warnings: Sequence[str] = (),
) -> Findings:
    """The checkpoint that extraction takes, without heads."""
    state = {name: value.cpu().contiguous() for name, value in backbone.state_dict().items()}
    return Findings(
        files={
            WEIGHTS: save(state, {"licence": config.licence}),
            METRICS: "".join(line + "\n" for line in lines).encode(),
            SEEN: training_ids_json([], [], [], []),  # labels are used for metrics only
        },
        facts=facts,
        warnings=warnings,
    )
