"""Teacher assignments of pictures and patches to clusters, balanced against collapse, and how they use the clusters.

Letters: P processes, B pictures of this process, T patches of a picture, N any number of axes, K clusters.

Logits are products with the prototypes, before any temperature. Targets are float32 and carry no gradient. `gather`
stacks a tensor of every process to [P, …], in the same order everywhere, so that all processes compute the same bits,
as one process would with the whole batch.

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
    """Softmax of the centred logits, so that no cluster dominates for every picture."""
    return ((logits.detach().float() - centre) / temperature).softmax(dim=-1)


def next_centre(
    centre: Float32[Tensor, " K"],
    logits: Float[Tensor, "B *N K"],
    momentum: float = 0.9,
    gather: Gather = gather_all,
) -> Float32[Tensor, " K"]:
    """The centre for the next step; targets of this step use the previous one.

    Class tokens and patches have separate centres. A picture's patches are averaged first, then the pictures.
    """
    picture_BK = logits.detach().float().reshape(len(logits), -1, logits.shape[-1]).mean(dim=1)
    return momentum * centre + (1 - momentum) * _mean_of_all(picture_BK, gather)


def sinkhorn_targets(
    logits: Float[Tensor, "*N K"], temperature: float, iterations: int = 3, gather: Gather = gather_all
) -> Float32[Tensor, "*N K"]:
    """Balanced assignments: exp(logit / temperature), then alternately every cluster divided by its sum over the batch
    and every picture or patch divided by its sum over the clusters, which ends at 1.

    The published code's factors of the total, K and B cancel. Computing in logarithms avoids overflow and 0/0. A batch
    of masked patches may have a different size on each process, including 0.

    MSN balances sharpened predictions instead: pass their logarithm at temperature 1.
    """
    assert iterations >= 1, "assignments sum to 1 only after an iteration"
    log = logits.detach().float().flatten(0, -2) / temperature  # [B K]; a new tensor, changed in place from here on
    for _ in range(iterations):
        log.sub_(gather(log.logsumexp(dim=0)).logsumexp(dim=0))
        log.sub_(log.logsumexp(dim=1, keepdim=True))
    return log.exp_().view(logits.shape)


def mean_prediction(
    student_logits: Float[Tensor, "*N K"], temperature: float, gather: Gather = gather_all
) -> Float32[Tensor, " K"]:
    """The mean prediction of each cluster, over all views and processes.

    Its gradient is P times this process's share, so that averaging over processes gives the gradient of a single
    process (as MSN's AllReduce does).
    """
    predictions = (student_logits.float() / temperature).softmax(dim=-1).flatten(0, -2)
    own_K, counts_P = predictions.sum(dim=0), gather(_count(predictions))
    exact_K = gather(own_K).sum(dim=0) / counts_P.sum()
    differentiable_K = own_K * (len(counts_P) / counts_P.sum())
    return differentiable_K + (exact_K - differentiable_K).detach()


def me_max(mean: Float32[Tensor, " K"]) -> Float32[Tensor, ""]:
    """MSN's regulariser of the student, log K minus the entropy of the mean prediction: 0 if clusters are used evenly,
    log K if only one is used. Added to the loss with weight 1."""
    return _divergence_from_uniform(mean)


def cross_entropy(
    targets: Float[Tensor, "*N K"], student_logits: Float[Tensor, "*N K"], student_temperature: float
) -> Float32[Tensor, "*N"]:
    """The cross-entropy of each picture or patch; only the student gets gradients."""
    return -(targets.detach() * (student_logits.float() / student_temperature).log_softmax(dim=-1)).sum(dim=-1)


@dataclass(frozen=True, slots=True)
class Usage:
    """Signs of a collapse, measured during training."""

    entropy: float  # of the mean assignment, in nats: log K if clusters are used evenly, 0 if one takes all
    num_active: int  # clusters that are the first choice of some picture or patch (np in MSN's logs)
    highest: float  # mean probability of the first choice: 1/K if undecided (MSN's max_t)


def cluster_usage(assignments: Float[Tensor, "*N K"], gather: Gather = gather_all) -> Usage:
    """Measures targets or predictions; synchronises with the device."""
    rows = assignments.detach().float().flatten(0, -2)
    num_clusters = rows.shape[-1]
    highest = rows.max(dim=-1)
    chosen_K = gather(torch.bincount(highest.indices, minlength=num_clusters)).sum(dim=0)
    mean_K = _mean_of_all(rows, gather)
    entropy = torch.log(torch.tensor(float(num_clusters))) - _divergence_from_uniform(mean_K).cpu()
    return Usage(
        entropy=max(0.0, float(entropy)),  # removes rounding errors only
        num_active=int((chosen_K > 0).sum()),
        highest=float(_mean_of_all(highest.values[:, None], gather)),
    )


def _divergence_from_uniform(mean_K: Tensor) -> Float32[Tensor, ""]:
    """Σ p log(K p), which equals log K − H(p) if p sums to 1, and rounds to 0 for uniform p.

    Clamped, because a softmax may round to 0, where the gradient of p log p is infinite.
    """
    return (mean_K * (mean_K.clamp_min(torch.finfo(torch.float32).tiny) * len(mean_K)).log()).sum()


def _mean_of_all(rows_BK: Tensor, gather: Gather) -> Float32[Tensor, " K"]:
    """The mean over all rows of all processes."""
    return gather(rows_BK.sum(dim=0)).sum(dim=0) / gather(_count(rows_BK)).sum()


def _count(rows: Tensor) -> Float32[Tensor, ""]:
    return torch.tensor(float(len(rows)), device=rows.device)
