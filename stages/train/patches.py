"""Patches and the labels in them, which the quick classifier learns from; kept in memory up to a limit.

Letters: B pictures, M class token and patches, T patches in a grid of R rows and C columns, D width of a token,
K classes with background as the first, P classes that occur in a picture.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float16, Float32
from torch import Tensor

from ..students.feature_names import ONE_BLOCK
from ..students.features import Features
from ..students.linear import label_shares
from ..vision.fitting import Box
from .published import PublishedDataset

KEPT_BYTES = 2**31  # ViT-S/16 at 224 takes 151 kB a picture, ViT-S/8 at 400 1.9 MB


@dataclass(frozen=True, slots=True)
class _PicturePatches:
    tokens_TD: Float16[Tensor, "T D"]
    present_P: np.ndarray
    shares_PRC: Float16[np.ndarray, "P R C"]

    @property
    def num_bytes(self) -> int:
        return self.tokens_TD.numel() * 2 + self.shares_PRC.nbytes


class Patches:
    """Patches by picture; a picture has the same numbers whether they were kept or computed again."""

    def __init__(self, features: Features, published: PublishedDataset) -> None:
        self._features, self._published = features, published
        self._kept: dict[str, _PicturePatches] = {}
        self._bytes = 0

    def read_batch(self, ids: Sequence[str]) -> tuple[Float16[Tensor, "B T D"], Float32[Tensor, "B K T"]]:
        pictures = {identifier: self._kept[identifier] for identifier in ids if identifier in self._kept}
        pictures |= self._read_pictures([identifier for identifier in dict.fromkeys(ids) if identifier not in pictures])
        rows, columns = self._features.sight.grid
        shares_BKRC = torch.zeros(len(ids), self._published.num_classes, rows, columns)
        for place, identifier in enumerate(ids):
            picture = pictures[identifier]
            shares_BKRC[place, torch.from_numpy(picture.present_P)] = torch.from_numpy(picture.shares_PRC).float()
        return torch.stack([pictures[identifier].tokens_TD for identifier in ids]), shares_BKRC.flatten(2)

    def _read_pictures(self, ids: Sequence[str]) -> dict[str, _PicturePatches]:
        if not ids:
            return {}
        read = self._features.read(ids, [ONE_BLOCK])
        pictures: dict[str, _PicturePatches] = {}
        for identifier, tokens_MD, box in zip(ids, read.fields[ONE_BLOCK], read.boxes, strict=True):
            picture = pictures[identifier] = self._make_picture(identifier, tokens_MD, box)
            if self._bytes + picture.num_bytes <= KEPT_BYTES:
                self._kept[identifier] = picture
                self._bytes += picture.num_bytes
        return pictures

    def _make_picture(self, identifier: str, tokens_MD: Tensor, box: Box) -> _PicturePatches:
        sight, label_HW = self._features.sight, self._published.mask(identifier)
        shares_KRC = label_shares(label_HW, self._published.num_classes, box, sight.patch, sight.grid)
        present_P = np.flatnonzero(shares_KRC.any(axis=(1, 2)))
        return _PicturePatches(tokens_MD[1:].half().clone(), present_P, shares_KRC[present_P].astype(np.float16))
