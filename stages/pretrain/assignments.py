"""What the teacher says of each picture or patch, kept from saying the same of all; and how far that succeeds.

Letters: P processes, B pictures of this process, T patches of a picture, N any number of axes, K clusters.

Logits are products with the prototypes, before any temperature. Targets are computed in float32 and carry no gradient.
Where several processes each hold a part of the batch, `gather` gives what every one of them passed, as [P, …] in the
same order everywhere; each then computes what one process would with the whole batch, and all of them the same bits.

Sources: DINO, main_dino.py DINOLoss; iBOT, main_ibot.py iBOTLoss; MC-SSL, losses.py:13-76; SwAV's Sinkhorn as in
DINOv2, loss/dino_clstoken_loss.py:35-61 and loss/ibot_patch_loss.py:62-90; MSN, losses.py:33-77.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float32
from torch import Tensor

from ..learning.processes import gather_all

Gather = Callable[[Tensor], Tensor]


def centering_targets(
    logits: Float[Tensor, "*N K"], centre: Float32[Tensor, " K"], temperature: float
) -> Float32[Tensor, "*N K"]:
    """Softmax of logits from which the centre was taken: no cluster is large because it is so for every picture."""
    return ((logits.detach().float() - centre) / temperature).softmax(dim=-1)


def next_centre(
    centre: Float32[Tensor, " K"],
    logits: Float[Tensor, "B *N K"],
    momentum: float = 0.9,
    gather: Gather = gather_all,
) -> Float32[Tensor, " K"]:
    """For the next step: targets of this step are made with the centre as it was before.

    Class tokens and patches have a centre each. A picture's patches are averaged first, then the pictures.
    """
    of_picture_BK = logits.detach().float().reshape(len(logits), -1, logits.shape[-1]).mean(dim=1)
    return momentum * centre + (1 - momentum) * _mean_of_all(of_picture_BK, gather)


def sinkhorn_targets(
    logits: Float[Tensor, "*N K"], temperature: float, iterations: int = 3, gather: Gather = gather_all
) -> Float32[Tensor, "*N K"]:
    """Assignments that use all clusters about alike: exp(logit / temperature), then in turns every cluster divided by
    its sum over the batch, and every picture or patch by its sum over the clusters, which therefore is 1.

    The published code also divides by the total, by K and by B and multiplies by B, which cancels. Logarithms are kept
    until the end, so that no temperature overflows and no row or column becomes 0/0. A batch of masked patches may
    have another size on each process, 0 also.

    MSN balances predictions that were sharpened instead: give their logarithm, at temperature 1.
    """
    assert iterations >= 1, "without an iteration nothing sums to 1"
    log = logits.detach().float().flatten(0, -2) / temperature  # [B K]; a new tensor, changed in place from here on
    for _ in range(iterations):
        log.sub_(gather(log.logsumexp(dim=0)).logsumexp(dim=0))
        log.sub_(log.logsumexp(dim=1, keepdim=True))
    return log.exp_().view(logits.shape)


def mean_prediction(
    student_logits: Float[Tensor, "*N K"], temperature: float, gather: Gather = gather_all
) -> Float32[Tensor, " K"]:
    """How much each cluster is predicted, over all views and processes.

    Its gradient is P times that of this process's part: after the usual averaging of gradients over the processes it
    is the one that a single process would have had (MSN's AllReduce does the same).
    """
    predictions = (student_logits.float() / temperature).softmax(dim=-1).flatten(0, -2)
    own_K, counts_P = predictions.sum(dim=0), gather(_count(predictions))
    exact_K = gather(own_K).sum(dim=0) / counts_P.sum()
    differentiable_K = own_K * (len(counts_P) / counts_P.sum())
    return differentiable_K + (exact_K - differentiable_K).detach()


def me_max(mean: Float32[Tensor, " K"]) -> Float32[Tensor, ""]:
    """MSN's regulariser of the student: log K minus the entropy of the mean prediction; 0 where all clusters are used
    alike, log K where one is. Added to the loss with weight 1."""
    return _divergence_from_uniform(mean)


def cross_entropy(
    targets: Float[Tensor, "*N K"], student_logits: Float[Tensor, "*N K"], student_temperature: float
) -> Float32[Tensor, "*N"]:
    """Of each picture or patch; gradients reach the student alone."""
    return -(targets.detach() * (student_logits.float() / student_temperature).log_softmax(dim=-1)).sum(dim=-1)


@dataclass(frozen=True, slots=True)
class Usage:
    """What is watched to see a collapse while it happens."""

    entropy: float  # of the mean assignment, in nats: log K where clusters are used alike, 0 where one takes all
    num_active: int  # clusters that are the first choice of at least one picture or patch (MSN logs it as np)
    highest: float  # the probability of the first choice, on average: 1/K where nothing is decided (MSN's max_t)


def cluster_usage(assignments: Float[Tensor, "*N K"], gather: Gather = gather_all) -> Usage:
    """Of targets or of predictions; waits for the device."""
    rows = assignments.detach().float().flatten(0, -2)
    num_clusters = rows.shape[-1]
    highest = rows.max(dim=-1)
    chosen_K = gather(torch.bincount(highest.indices, minlength=num_clusters)).sum(dim=0)
    mean_K = _mean_of_all(rows, gather)
    entropy = torch.log(torch.tensor(float(num_clusters))) - _divergence_from_uniform(mean_K).cpu()
    return Usage(
        entropy=max(0.0, float(entropy)),  # rounding alone leads below
        num_active=int((chosen_K > 0).sum()),
        highest=float(_mean_of_all(highest.values[:, None], gather)),
    )


def _divergence_from_uniform(mean_K: Tensor) -> Float32[Tensor, ""]:
    """Σ p log(K p), which for p that sum to 1 is log K − H(p) and rounds to 0 at the uniform one.

    Clamped, because the gradient of p log p is infinite at 0, and a softmax may round to it.
    """
    return (mean_K * (mean_K.clamp_min(torch.finfo(torch.float32).tiny) * len(mean_K)).log()).sum()


def _mean_of_all(rows_BK: Tensor, gather: Gather) -> Float32[Tensor, " K"]:
    """Processes count by how many rows they have."""
    return gather(rows_BK.sum(dim=0)).sum(dim=0) / gather(_count(rows_BK)).sum()


def _count(rows: Tensor) -> Float32[Tensor, ""]:
    return torch.tensor(float(len(rows)), device=rows.device)
