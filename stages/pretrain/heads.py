"""The heads of student and teacher during pretraining; the checkpoint does not keep them.

Letters: B pictures, M class token and patches, T patches, D width of a token, E width before the prototypes,
K clusters, R C rows and columns of patches, p pixels of a patch.

Source: MC-SSL, vision_transformer.py:248-317. Initial weights come from torch's global generator.
"""

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import linear, normalize


class Prototypes(nn.Module):
    """One direction per cluster, normalised to length 1.

    Equals weight norm without bias and with g fixed at 1 (DINO, vision_transformer.py DINOHead), without a frozen
    parameter.
    """

    def __init__(self, width: int, num_clusters: int) -> None:
        super().__init__()
        self.directions = nn.Parameter(nn.Linear(width, num_clusters, bias=False).weight.detach())

    def forward(self, features: Float[Tensor, "*N E"]) -> Float[Tensor, "*N K"]:
        with torch.autocast(features.device.type, enabled=False):  # bfloat16 is too coarse for a cosine divided by 0.04
            return linear(features.float(), normalize(self.directions, dim=-1))


class ProjectionHead(nn.Module):
    """Cluster logits, the cosines of tokens and prototypes. Class token and patches share an MLP and have separate
    prototypes."""

    def __init__(self, width: int, num_clusters: int, hidden: int = 2048, bottleneck: int = 256) -> None:
        super().__init__()
        self.mlp = _mlp(width, hidden, hidden, bottleneck)
        self.cls_prototypes = Prototypes(bottleneck, num_clusters)
        self.patch_prototypes = Prototypes(bottleneck, num_clusters)

    def forward(self, tokens: Float[Tensor, "B M D"]) -> tuple[Float[Tensor, "B K"], Float[Tensor, "B T K"]]:
        """Logits of the class token (first) and of the patches after it. For local views, pass the class token only."""
        features_BME = normalize(self.mlp(tokens), dim=-1)
        return self.cls_prototypes(features_BME[:, 0]), self.patch_prototypes(features_BME[:, 1:])


class ReconstructionHead(nn.Module):
    """Predicts the pixels of each patch: the published transposed convolution (kernel and stride of one patch) as a
    linear layer, with a bias per pixel instead of per channel."""

    def __init__(self, width: int, patch_px: int) -> None:
        super().__init__()
        self.patch_px = patch_px
        self.mlp = nn.Sequential(_mlp(width, width, width), nn.GELU())
        self.to_pixels = nn.Linear(width, 3 * patch_px**2)

    def forward(self, patches: Float[Tensor, "B T D"], grid: tuple[int, int]) -> Float[Tensor, "B 3 rows columns"]:
        pixels = self.to_pixels(self.mlp(patches))
        pixels_BRC3pp = pixels.view(len(patches), *grid, 3, self.patch_px, self.patch_px)
        return pixels_BRC3pp.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)


def _mlp(*widths: int) -> nn.Sequential:
    """Linear layers with GELU between them, initialised normally with deviation 0.02 and biases of 0."""
    layers: list[nn.Module] = []
    for width, following in pairwise(widths):
        layer = nn.Linear(width, following)
        nn.init.trunc_normal_(layer.weight, std=0.02)
        nn.init.zeros_(layer.bias)
        layers += [layer, nn.GELU()]
    return nn.Sequential(*layers[:-1])
