"""The pretraining losses, each a scalar. MC-SSL adds the first three with weight 1 (main_MCSSL.py:254).

Letters: G global views, V student views, B pictures, T patches, K clusters, E width of an embedding, H W pixels.

Means are over the pictures of this process. All processes have equally many, so that averaged gradients are those of
the whole batch. `gather` collects tensors of the other processes (see `processes`).
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
    """Cross-entropy of every student view against every other teacher view, averaged over pairs.

    The first G student views are the teacher's crops in the same order; pairs of the same crop are left out (DINO;
    MC-SSL, losses.py:36-45).
    """
    pairs = [(g, v) for g in range(len(targets)) for v in range(len(student_logits)) if g != v]
    assert pairs, "a teacher's and a student's view of the same crop make no pair"
    pair_losses = [cross_entropy(targets[g], student_logits[v], student_temperature).mean() for g, v in pairs]
    return torch.stack(pair_losses).mean()


def patch_loss(
    targets: Float[Tensor, "B T K"],
    student_logits: Float[Tensor, "B T K"],
    student_temperature: float = 0.1,
    is_counted: Bool[Tensor, "B T"] | None = None,
) -> Scalar:
    """The student's patches of corrupted crops against the teacher's patches of the clean crops: all of them (MC-SSL,
    losses.py:49-59), or those in `is_counted`, such as the masked ones (iBOT, main_ibot.py iBOTLoss).

    As in iBOT, counted patches are averaged per picture first, so that pictures have equal weight. A picture without
    counted patches adds a 0 to the mean.
    """
    loss_BT = cross_entropy(targets, student_logits, student_temperature)
    if is_counted is None:
        return loss_BT.mean()
    loss_B = loss_BT.where(is_counted, 0).sum(dim=1) / is_counted.sum(dim=1).clamp_min(1)
    return loss_B.mean()


def reconstruction_loss(
    reconstructed: Float[Tensor, "B 3 H W"],
    clean: Float[Tensor, "B 3 H W"],
    is_corrupted: Bool[Tensor, "B H W"],
    kind: Literal["mse", "l1"] = "mse",
    gather: Gather = gather_all,
) -> Scalar:
    """The mean error over the corrupted pixels of the whole batch; 0 if there are none. MSE is MC-SSL's
    (main_MCSSL.py:243-244), L1 is GMML's and SiT's."""
    difference = reconstructed.float() - clean.detach().float()
    error = difference.square() if kind == "mse" else difference.abs()
    counts_P = gather(3 * is_corrupted.sum())
    return error.where(is_corrupted[:, None], 0).sum() * len(counts_P) / counts_P.sum().clamp_min(1)


def contrastive_loss(
    student: Float[Tensor, "2 B E"],
    teacher: Float[Tensor, "2 B E"],
    temperature: float = 0.2,
    gather: Gather = gather_all,
    part: BatchSlice = WHOLE,
) -> Scalar:
    """Each student embedding should match the teacher's embedding of the picture's other view among the whole batch;
    the published code compares within one process.

    Normalises embeddings, then adds the cross-entropies of cosine / temperature of both directions, times twice the
    temperature so that the gradient scale depends little on it (SiT as published with GMML, class SimCLR).
    """
    other_2BE = gather(normalize(teacher.detach().float(), dim=-1).flip(0)).transpose(0, 1).flatten(1, 2)
    with torch.autocast(student.device.type, enabled=False):  # as for prototypes
        logits_2BB = normalize(student.float(), dim=-1) @ other_2BE.mT / temperature
    own_B = part.take(torch.arange(other_2BE.shape[1], device=student.device))
    first, second = (functional.cross_entropy(logits_BB, own_B) for logits_BB in logits_2BB)
    return 2 * temperature * (first + second)
