"""The losses of pretraining. Each is one number; MC-SSL adds the first three with weight 1 (main_MCSSL.py:254).

Letters: G global views, V student views, B pictures, T patches, K clusters, E width of an embedding, H W pixels.

A mean is over the pictures of this process. Processes have equally many, so that gradients averaged over them are those
of all pictures together; where that takes what the others have, `gather` gives it (see `processes`).
"""

from typing import Literal

import torch
from jaxtyping import Bool, Float, Float32
from torch import Tensor
from torch.nn import functional
from torch.nn.functional import normalize

from ..learning.processes import WHOLE, BatchSlice, gather_all
from .assignments import Gather, cross_entropy

Scalar = Float32[Tensor, ""]


def cls_loss(
    targets: Float[Tensor, "G B K"], student_logits: Float[Tensor, "V B K"], student_temperature: float = 0.1
) -> Scalar:
    """Every view of the student against the teacher's of every other, averaged over the pairs.

    The first G views are the crops that the teacher saw, in its order; no view is asked for its own (DINO; MC-SSL,
    losses.py:36-45). One view alone has no pair.
    """
    pairs = [(g, v) for g in range(len(targets)) for v in range(len(student_logits)) if g != v]
    assert pairs, "a teacher's and a student's view of the same crop make no pair"
    of_pairs = [cross_entropy(targets[g], student_logits[v], student_temperature).mean() for g, v in pairs]
    return torch.stack(of_pairs).mean()


def patch_loss(
    targets: Float[Tensor, "B T K"],
    student_logits: Float[Tensor, "B T K"],
    student_temperature: float = 0.1,
    is_counted: Bool[Tensor, "B T"] | None = None,
) -> Scalar:
    """The student's patches of corrupted crops against the teacher's of the same crops when they were clean: all of
    them (MC-SSL, losses.py:49-59), or those counted, such as the masked ones (iBOT, main_ibot.py iBOTLoss).

    As in iBOT a picture is the mean over its counted patches, so that pictures weigh alike: where many patches are
    masked, each weighs less. A picture without any gives 0 and is still among those averaged.
    """
    of_patch_BT = cross_entropy(targets, student_logits, student_temperature)
    if is_counted is None:
        return of_patch_BT.mean()
    of_picture_B = of_patch_BT.where(is_counted, 0).sum(dim=1) / is_counted.sum(dim=1).clamp_min(1)
    return of_picture_B.mean()


def reconstruction_loss(
    reconstructed: Float[Tensor, "B 3 H W"],
    clean: Float[Tensor, "B 3 H W"],
    is_corrupted: Bool[Tensor, "B H W"],
    kind: Literal["mse", "l1"] = "mse",
    gather: Gather = gather_all,
) -> Scalar:
    """Over corrupted pixels alone, each of the whole batch with the same weight; 0 where there are none. MSE is
    MC-SSL's (main_MCSSL.py:243-244), L1 is GMML's and SiT's."""
    difference = reconstructed.float() - clean.detach().float()
    of_pixel = difference.square() if kind == "mse" else difference.abs()
    counts_P = gather(3 * is_corrupted.sum())
    return of_pixel.where(is_corrupted[:, None], 0).sum() * len(counts_P) / counts_P.sum().clamp_min(1)


def contrastive_loss(
    student: Float[Tensor, "2 B E"],
    teacher: Float[Tensor, "2 B E"],
    temperature: float = 0.2,
    gather: Gather = gather_all,
    part: BatchSlice = WHOLE,
) -> Scalar:
    """Each student's embedding is to find the teacher's of the same picture's other view among those of the whole
    batch, not of one process's part as published.

    Embeddings are normalised here. Cross-entropy of the cosines over the temperature, times twice the temperature so
    that the size of gradients depends on it little; both directions added (SiT as published with GMML, class SimCLR).
    """
    other_2BE = gather(normalize(teacher.detach().float(), dim=-1).flip(0)).transpose(0, 1).flatten(1, 2)
    with torch.autocast(student.device.type, enabled=False):  # as of prototypes
        logits_2BB = normalize(student.float(), dim=-1) @ other_2BE.mT / temperature
    own_B = part.take(torch.arange(other_2BE.shape[1], device=student.device))
    first, second = (functional.cross_entropy(logits_BB, own_B) for logits_BB in logits_2BB)
    return 2 * temperature * (first + second)
