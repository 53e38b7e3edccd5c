"""The smallest backbone with long biases of its last keys, in files whose names tell a family, such as dinov2_tiny."""

from pathlib import Path

import timm
import torch
from safetensors.torch import save_file

from builders.small_tokens import BACKBONE


def write_biased_weights(file: Path) -> Path:
    """The same tensors at every call."""
    torch.manual_seed(0)
    state = timm.create_model(BACKBONE, pretrained=False).state_dict()
    state["blocks.5.attn.qkv.bias"].uniform_(-8, 8)
    save_file(state, file)
    return file
