"""Runs the refiners that smooth scores along a picture's colours: PAR and the guided filter.

Letters: S sets of scores (one per background score), L labels, H W pixels.
"""

from collections.abc import Sequence
from contextlib import nullcontext

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

from ...manifests.errors import EnvironmentFault
from ..maps.one_thread import one_thread
from .guided import guided_filter
from .par import pixel_adaptive_scores
from .presets import ParPreset, Smoother


def smooth_scores(
    pictures: Sequence[UInt8[np.ndarray, "H W 3"]],
    scores: Sequence[Float32[np.ndarray, "S L H W"]],
    smoother: Smoother,
    device: str,
) -> list[Float32[np.ndarray, "S L H W"]]:
    """Smooths pictures of one size together if the device has room. A result does not depend on the other pictures.

    On a CPU one thread works on one picture, because one picture fills the caches.
    """
    try:
        with one_thread() if device == "cpu" else nullcontext():
            return _smooth_together(pictures, scores, smoother, device)
    except torch.OutOfMemoryError as error:
        if len(pictures) == 1:
            height, width = pictures[0].shape[:2]
            raise EnvironmentFault(
                f"{device} has too little memory to refine a picture of {width}×{height} pixels; choose --device cpu, "
                "or a device with more memory"
            ) from error
    torch.cuda.empty_cache()
    pairs = zip(pictures, scores, strict=True)
    return [_smooth_together([picture], [own], smoother, device)[0] for picture, own in pairs]


def _smooth_together(
    pictures: Sequence[np.ndarray], scores: Sequence[np.ndarray], smoother: Smoother, device: str
) -> list[np.ndarray]:
    pictures_B3HW = _stack_on_device(device, pictures).permute(0, 3, 1, 2)
    scores_BSLHW = _stack_on_device(device, scores)
    if isinstance(smoother, ParPreset):
        smooth_BSLHW = pixel_adaptive_scores(pictures_B3HW, scores_BSLHW, smoother)
    else:
        smooth_BSLHW = guided_filter(pictures_B3HW, scores_BSLHW.flatten(1, 2), smoother).view(scores_BSLHW.shape)
    return list(smooth_BSLHW.cpu().numpy())


def _stack_on_device(device: str, arrays: Sequence[np.ndarray]) -> Tensor:
    """A single array is copied on a CPU only if it is read-only."""
    joined = np.stack(arrays) if len(arrays) > 1 else np.ascontiguousarray(arrays[0])[None]
    return torch.from_numpy(joined if joined.flags.writeable else joined.copy()).to(device)
