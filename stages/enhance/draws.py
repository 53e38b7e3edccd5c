"""Splits the pictures of an enhancer into those for fitting and those for early stopping."""

from collections.abc import Sequence
from dataclasses import dataclass

STOPPING_SHARE = 5  # one picture of five


@dataclass(frozen=True, slots=True)
class CrossFitFold:
    """The drawn pictures of one network. It is never scored on those that it fits or stops on."""

    fitting: Sequence[str]
    stopping: Sequence[str]  # they choose the best step; empty if there is only one picture
    held_out: Sequence[str]  # drawn, but seen by other networks only


def cross_fit_folds(ids: Sequence[str], networks: int) -> list[CrossFitFold]:
    """One fold per network.

    A network stops on a fifth of its pictures, regardless of class, because an enhancer knows no classes. Of several
    networks, each holds out every `networks`-th picture.
    """
    folds = []
    for network in range(networks):
        held_out = list(ids[network::networks]) if networks > 1 else []
        left_out = frozenset(held_out)
        seen = [identifier for identifier in ids if identifier not in left_out]
        num_stopping = max(1, round(len(seen) / STOPPING_SHARE)) if len(seen) > 1 else 0
        folds.append(CrossFitFold(seen[num_stopping:], seen[:num_stopping], held_out))
    return folds
