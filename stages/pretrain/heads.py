"""The heads that a student and its teacher have while they are pretrained, and lose afterwards.

Letters: B pictures, M class token and patches, T patches, D width of a token, E width before the prototypes,
K clusters, R C rows and columns of patches, p pixels of a patch.

Source: MC-SSL, vision_transformer.py:248-317. First weights come from torch's own generator.
"""

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import linear, normalize


class Prototypes(nn.Module):
    """One direction per cluster; of length 1, whatever the parameter's own.

    It is weight norm without bias whose g is 1 and never trained (DINO, vision_transformer.py DINOHead), with nothing
    frozen among the parameters.
    """

    def __init__(self, width: int, num_clusters: int) -> None:
        super().__init__()
        self.directions = nn.Parameter(nn.Linear(width, num_clusters, bias=False).weight.detach())

    def forward(self, features: Float[Tensor, "*N E"]) -> Float[Tensor, "*N K"]:
        with torch.autocast(features.device.type, enabled=False):  # a cosine of 8 bits over 0.04 is no logit
            return linear(features.float(), normalize(self.directions, dim=-1))


class ProjectionHead(nn.Module):
    """Logits of clusters, each the cosine of a token and a prototype. One MLP serves class token and patches, which
    have prototypes of their own."""

    def __init__(self, width: int, num_clusters: int, hidden: int = 2048, bottleneck: int = 256) -> None:
        super().__init__()
        self.mlp = _mlp(width, hidden, hidden, bottleneck)
        self.cls_prototypes = Prototypes(bottleneck, num_clusters)
        self.patch_prototypes = Prototypes(bottleneck, num_clusters)

    def forward(self, tokens: Float[Tensor, "B M D"]) -> tuple[Float[Tensor, "B K"], Float[Tensor, "B T K"]]:
        """Of the class token, which is the first, and of the patches after it; of local views give the first alone."""
        features_BME = normalize(self.mlp(tokens), dim=-1)
        return self.cls_prototypes(features_BME[:, 0]), self.patch_prototypes(features_BME[:, 1:])


class ReconstructionHead(nn.Module):
    """Pixels of each patch. As a linear layer it is the published transposed convolution whose kernel and stride are
    the patch, but with a bias per pixel rather than per channel."""

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
    """Linear layers with GELU between them; weights begin normal with deviation 0.02, biases at 0."""
    layers: list[nn.Module] = []
    for width, following in pairwise(widths):
        layer = nn.Linear(width, following)
        nn.init.trunc_normal_(layer.weight, std=0.02)
        nn.init.zeros_(layer.bias)
        layers += [layer, nn.GELU()]
    return nn.Sequential(*layers[:-1])
