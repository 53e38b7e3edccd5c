"""The views of the pictures that maps are made of: that they belong together, and each as a process reads it.

Letters: N pictures.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count, takewhile

import numpy as np
from jaxtyping import Int64
from torch import Tensor

from ...manifests.artifact.artifact import Artifact
from ...manifests.artifact.facts import TokensFacts
from ...manifests.artifact.tokens import Tokens
from ...manifests.errors import ConfigError
from ...manifests.files.sealed import Json
from ..stage import Inputs
from ..vision.fitting import Box
from .config import TOKENS, VIEW
from .merging import Lattice
from .methods import Method
from .supports import ClassQueryCache, GroupKey, SupportGroup


def view_roles(inputs: Inputs) -> list[str]:
    """That of the first view, whose grid the maps have, then those of the others in the order in which they came."""
    return [TOKENS, *takewhile(inputs.__contains__, (f"{VIEW}{number}" for number in count(2)))]


def views_of(inputs: Inputs) -> list[Artifact]:
    return [inputs[role] for role in view_roles(inputs)]


def refuse_several_views(method: Method, number: int) -> None:
    if number > 1 and method.merge is None:
        raise ConfigError(f"method {method.name} does not merge maps of several views; give it one")


def refuse_strange_views(method: Method, views: Sequence[Artifact]) -> None:
    """Views are merged that one backbone has given of the same pictures, by a method that says how."""
    first, *others = views
    refuse_several_views(method, len(views))
    for number, view in enumerate(others, 1):
        if view.digest in [each.digest for each in views[:number]]:
            raise ConfigError(f"{view.place} is the same view as one before it; name each view once")
        own, wanted = _origin(view), _origin(first)
        for name, (what, told) in own.items():
            if what != wanted[name][0]:
                raise ConfigError(
                    f"{view.place} has {name} {told} and {first.place} has {wanted[name][1]}; extract every view with "
                    "the same"
                )
        if view.plan.input("images").digest != first.plan.input("images").digest:
            raise ConfigError(
                f"{view.place} and {first.place} were made of other images, or before and after these changed; run the "
                "extract command of each again, on the same images"
            )


def upright_box(box: Sequence[int], view: Artifact) -> Box:
    """A picture's box in a view as it lies in the picture's own direction."""
    top, left, bottom, right = box
    if not view.plan.config["flip"]:
        return top, left, bottom, right
    backbone = TokensFacts.of(view).backbone
    width_px = backbone.grid[1] * backbone.patch[1]
    return top, width_px - right, bottom, width_px - left


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenView:
    """One view, as it is loaded once per process."""

    tokens: Tokens
    grid: tuple[int, int]
    patch: tuple[int, int]
    is_flipped: bool
    places_N: Int64[np.ndarray, " N"] | None  # in its row list, of the first view's rows; None: it is the first
    queries: ClassQueryCache | None
    sums: Mapping[GroupKey, tuple[Tensor, int]]  # where all look with all: of each class the sum, and of how many

    def positions(self, of_first: Sequence[int]) -> Sequence[int]:
        return of_first if self.places_N is None else self.places_N[of_first].tolist()

    def lattice(self, box: Box) -> Lattice:
        """Upright, of a picture's box as it lies in the view."""
        return Lattice(self.grid, self.patch, upright_box(box, self.tokens.artifact))


def load_views(inputs: Inputs, takes_supports: bool, groups: Mapping[GroupKey, SupportGroup]) -> list[TokenView]:
    """`groups`: the classes whose pictures all look with all."""
    first, *others = views_of(inputs)
    return [
        _load_view(first, None, takes_supports, groups),
        *(_load_view(view, _places(first, view), takes_supports, groups) for view in others),
    ]


def _load_view(
    artifact: Artifact,
    places_N: Int64[np.ndarray, " N"] | None,
    takes_supports: bool,
    groups: Mapping[GroupKey, SupportGroup],
) -> TokenView:
    tokens = Tokens(artifact)
    queries = ClassQueryCache(tokens) if takes_supports else None
    positions = {key: group.positions_N for key, group in groups.items()}
    if places_N is not None:
        positions = {key: places_N[positions_N] for key, positions_N in positions.items()}
    sums = queries.sums({key: positions_N.tolist() for key, positions_N in positions.items()}) if queries else {}
    return TokenView(
        tokens=tokens,
        grid=tokens.facts.backbone.grid,
        patch=tokens.facts.backbone.patch,
        is_flipped=artifact.plan.config["flip"],
        places_N=places_N,
        queries=queries,
        sums={key: (total, len(positions[key])) for key, total in sums.items()},
    )


def _places(first: Artifact, view: Artifact) -> Int64[np.ndarray, " N"]:
    ids = (batch.column("id").to_pylist() for batch in first.row_batches(["id"]))
    return np.fromiter(chain.from_iterable(view.positions(some) for some in ids), np.int64, first.plan.num_rows)


def _origin(view: Artifact) -> dict[str, tuple[Json, str]]:
    """What all views have alike: what is compared, and how it is told."""
    facts = TokensFacts.of(view)
    name, weights = facts.backbone.name, facts.weights
    return {"backbone": (name, name), "weights": (weights.sha256, f"{weights.source} (sha256 {weights.sha256[:12]})")}
