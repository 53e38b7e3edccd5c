"""Saves, loads and applies the enhancers of a checkpoint.

Letters: H heads, R C rows and columns of patches, P Q of cells.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float32
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from ...manifests.artifact.artifact import Artifact
from ...manifests.artifact.checkpoints import WEIGHTS
from ...manifests.errors import CorruptArtifact
from ..maps.one_thread import one_thread
from ..vision.fitting import Box
from .cells import Cells
from .enhancer import Enhancer


def weights_bytes(networks: nn.ModuleList) -> bytes:
    return save({name: value.contiguous() for name, value in networks.state_dict().items()})


def load_networks(checkpoint: Artifact) -> nn.ModuleList:
    heads, count = (checkpoint.summary.counts[name] for name in ("heads", "networks"))
    networks = nn.ModuleList(Enhancer(heads) for _ in range(count))
    try:
        state: Mapping[str, Tensor] = load(checkpoint.file(WEIGHTS))
        networks.load_state_dict(state)
    except (SafetensorError, RuntimeError) as error:
        raise CorruptArtifact(
            f"{checkpoint.place.path(WEIGHTS)} is not {count} enhancers of {heads} heads ({error}); fit it again"
        ) from error
    return networks.eval()


@torch.no_grad()
def enhance_map(
    networks: Sequence[nn.Module], maps: Float32[np.ndarray, "H R C"], box: Box, cells: Cells
) -> Float32[np.ndarray, "P Q"]:
    """The mean output of the networks. One row at a time on one thread, so that its bytes depend neither on other rows
    nor on the machine's threads."""
    with one_thread():
        maps_1HPQ, valid_1PQ = torch.from_numpy(cells.upsample(maps[None])), torch.from_numpy(cells.valid(box))[None]
        outputs = torch.stack([network(maps_1HPQ, valid_1PQ)[0] for network in networks])
        return outputs.mean(dim=0).numpy()
