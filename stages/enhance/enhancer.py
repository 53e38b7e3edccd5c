"""CST's enhancer: a small network that maps the maps of heads to one map, learned from a few masks.

Letters: B rows, H heads, P valid patches, R C rows and columns of patches.

Source: three convolutions of 3×3, heads → 128 → 128 → 1, ReLU, ReLU and sigmoid, as the author of CST gave them in
issue 1 of the released code; no other detail was published. This project's own: each head is normalised to mean 0 and
width 1 over the patches that it is fitted on, and every layer is 0 outside the picture's box, like a convolution's
padding.
"""

from itertools import pairwise

import torch
from jaxtyping import Bool, Float32
from torch import Tensor, nn

FEATURES = 128


class Enhancer(nn.Module):
    mean_H: Tensor
    width_H: Tensor

    def __init__(self, heads: int) -> None:
        super().__init__()
        widths = (heads, FEATURES, FEATURES, 1)
        self.layers = nn.ModuleList(
            nn.Conv2d(before, after, kernel_size=3, padding=1) for before, after in pairwise(widths)
        )
        self.register_buffer("mean_H", torch.zeros(heads))
        self.register_buffer("width_H", torch.ones(heads))

    def fit_normalisation(self, maps: Float32[Tensor, "B H R C"], valid: Bool[Tensor, "B R C"]) -> None:
        """Sets the mean and width of each head; the width of a constant head is 1."""
        values_HP = maps.transpose(0, 1)[:, valid].double()
        deviation_H = values_HP.std(dim=1, correction=0)
        self.mean_H.copy_(values_HP.mean(dim=1))
        self.width_H.copy_(torch.where(deviation_H > 0, deviation_H, 1))

    def logits(self, maps: Float32[Tensor, "B H R C"], valid: Bool[Tensor, "B R C"]) -> Float32[Tensor, "B R C"]:
        inside_B1RC = valid[:, None]
        features = (maps - self.mean_H[:, None, None]) / self.width_H[:, None, None] * inside_B1RC
        *hidden, last = self.layers
        for layer in hidden:
            features = torch.relu(layer(features)) * inside_B1RC
        logits: Tensor = last(features)[:, 0]
        return logits

    def forward(self, maps: Float32[Tensor, "B H R C"], valid: Bool[Tensor, "B R C"]) -> Float32[Tensor, "B R C"]:
        """Values from 0 to 1; 0 outside the box."""
        return torch.sigmoid(self.logits(maps, valid)) * valid
