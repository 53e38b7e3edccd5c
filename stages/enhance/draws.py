"""Pictures that an enhancer may learn from, parted into what it fits and what it stops on."""

from collections.abc import Sequence
from dataclasses import dataclass

STOPPING_SHARE = 5  # one picture of so many


@dataclass(frozen=True, slots=True)
class CrossFitFold:
    """What one network sees of the pictures that are drawn; it is never judged on either."""

    fitting: Sequence[str]
    stopping: Sequence[str]  # on which the best step is chosen; none where there is but one picture
    held_out: Sequence[str]  # drawn, and seen by other networks only


def cross_fit_folds(ids: Sequence[str], networks: int) -> list[CrossFitFold]:
    """For each network its part of the pictures, which are in order.

    A fifth of what a network sees, whatever its class, is what it stops on: an enhancer knows of no class, so that one
    mask of each is enough. With several networks each leaves out every `networks`-th picture for others to learn from.
    """
    found = []
    for network in range(networks):
        held_out = list(ids[network::networks]) if networks > 1 else []
        left_out = frozenset(held_out)
        seen = [identifier for identifier in ids if identifier not in left_out]
        num_stopping = max(1, round(len(seen) / STOPPING_SHARE)) if len(seen) > 1 else 0
        found.append(CrossFitFold(seen[num_stopping:], seen[:num_stopping], held_out))
    return found
