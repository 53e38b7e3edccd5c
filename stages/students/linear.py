"""Classify patches from their last tokens with one or two layers: a test of labels that takes a minute.

Letters: B pictures, T patches in a grid of R rows and C columns, D width of a token, K classes with background as the
first, H W pixels.

This project's own. The target of a patch is the share of each label in it, not the label at its centre. Cross-entropy
with shares, weighted by how much of a patch is labelled, equals the mean over labelled pixels of the cross-entropy with
the prediction of their patch, so the whole label map counts, thin objects too. 255 and pixels outside the picture's box
have no share.
"""

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor, nn

from ...manifests.classes import IGNORE
from ..maps.upsampling import upsample_maps
from ..vision.fitting import Box

Size = tuple[int, int]  # rows and columns


class PatchClassifier(nn.Module):
    """One linear layer, or two with `hidden` values and GELU between them."""

    def __init__(self, width: int, num_classes: int, hidden: int = 0) -> None:
        super().__init__()
        first = [nn.Linear(width, hidden), nn.GELU()] if hidden else []
        self.layers = nn.Sequential(*first, nn.Linear(hidden or width, num_classes))

    def forward(self, tokens: Float[Tensor, "B T D"]) -> Float32[Tensor, "B K T"]:
        """`tokens` are those of one block, without the class token."""
        return self.layers(tokens.float()).transpose(1, 2)


def label_shares(
    label_HW: UInt8[np.ndarray, "H W"], num_classes: int, box: Box, patch: Size, grid: Size
) -> Float32[np.ndarray, "K R C"]:
    """The share of each label in the area of each patch; they sum to the labelled part of the patch.

    The picture lies in the box of the view, so a pixel may be larger than a patch, or belong to several.
    """
    rows_RH = _overlaps(label_HW.shape[0], (box[0], box[2]), patch[0], grid[0])
    columns_CW = _overlaps(label_HW.shape[1], (box[1], box[3]), patch[1], grid[1])
    shares_KRC = np.zeros((num_classes, *grid), np.float32)
    for label in np.unique(label_HW[label_HW != IGNORE]):
        assert label < num_classes, f"label {label} is not one of {num_classes} classes"
        shares_KRC[label] = rows_RH @ (label_HW == label).astype(np.float32) @ columns_CW.T
    return shares_KRC


def share_loss(logits: Float[Tensor, "B K T"], shares: Float32[Tensor, "B K T"]) -> Float32[Tensor, ""]:
    """Cross-entropy, weighted by how much of a patch is labelled; 0 without labels."""
    surprise = -(shares * logits.float().log_softmax(dim=1)).sum()
    return surprise / shares.sum().clamp_min(torch.finfo(torch.float32).tiny)


def predict_labels(logits: Float32[np.ndarray, "K R C"], size: Size, box: Box, patch: Size) -> UInt8[np.ndarray, "H W"]:
    """The label map at the size of the picture in the box: upsamples logits bilinearly, then the highest decides."""
    return upsample_maps(logits, size, box, patch, align_corners=False).argmax(axis=0).astype(np.uint8)


def _overlaps(
    num_pixels: int, inside: tuple[int, int], patch_px: int, num_patches: int
) -> Float32[np.ndarray, "patches pixels"]:
    """The part of each patch that each pixel covers along one axis."""
    edges_px = inside[0] + np.arange(num_pixels + 1) * ((inside[1] - inside[0]) / num_pixels)
    starts_px = np.arange(num_patches)[:, None] * patch_px
    covered_px = np.minimum(edges_px[1:], starts_px + patch_px) - np.maximum(edges_px[:-1], starts_px)
    return (np.clip(covered_px, 0, None) / patch_px).astype(np.float32)
