"""The views that maps are made from: checks that they belong together, and loads them.

Letters: N pictures, T patches.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count, takewhile

import numpy as np
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

from ...manifests.artifact.artifact import Artifact
from ...manifests.artifact.facts import TokensFacts
from ...manifests.artifact.tokens import Tokens
from ...manifests.errors import ConfigError
from ...manifests.files.sealed import Json
from ..stage import Inputs
from ..vision.feature_forms import Feature
from ..vision.fitting import Box
from ..vision.patch_features import read_patches
from .config import TOKENS, VIEW
from .merging import Lattice, mirror_patches
from .methods import PATCHES, Method
from .supports import ClassQueryCache, GroupKey, SupportGroup


def view_roles(inputs: Inputs) -> list[str]:
    """The role of the first view, whose grid the maps have, then those of the further views in order."""
    return [TOKENS, *takewhile(inputs.__contains__, (f"{VIEW}{number}" for number in count(2)))]


def views_of(inputs: Inputs) -> list[Artifact]:
    return [inputs[role] for role in view_roles(inputs)]


def refuse_several_views(method: Method, number: int) -> None:
    if number > 1 and method.merge is None:
        raise ConfigError(f"method {method.name} cannot merge views: found {number}, expected one; give it one view")


def refuse_strange_views(method: Method, views: Sequence[Artifact]) -> None:
    """Refuses views of different backbones or pictures, repeated views, and several views of a method without merge."""
    first, *others = views
    refuse_several_views(method, len(views))
    expected = _origin(first)
    for number, view in enumerate(others, 1):
        if view.digest in [earlier.digest for earlier in views[:number]]:
            raise ConfigError(f"{view.place} is the same view as an earlier one; name each view once")
        for name, (value, text) in _origin(view).items():
            if value != expected[name][0]:
                raise ConfigError(
                    f"{view.place} has {name} {text} and {first.place} has {expected[name][1]}; extract every view "
                    f"with the same {name}"
                )
        if view.plan.input("images").digest != first.plan.input("images").digest:
            raise ConfigError(
                f"{view.place} and {first.place} were made from other images, or before and after a change of "
                "them; run the extract command of each again, on the same images"
            )


def upright_box(box: Sequence[int], view: Artifact) -> Box:
    """A picture's box in a view, mirrored back if the view is mirrored."""
    top, left, bottom, right = box
    if not view.plan.config["flip"]:
        return top, left, bottom, right
    backbone = TokensFacts.of(view).backbone
    width_px = backbone.grid[1] * backbone.patch[1]
    return top, width_px - right, bottom, width_px - left


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenView:
    """One view; loaded once per process."""

    tokens: Tokens
    feature: Feature
    grid: tuple[int, int]
    patch: tuple[int, int]
    is_flipped: bool
    places_N: Int64[np.ndarray, " N"] | None  # positions here of the first view's rows; None in the first view
    queries: ClassQueryCache | None
    sums: Mapping[GroupKey, tuple[Tensor, int]]  # sum and number of class queries, if all pictures are supports

    def positions(self, of_first: Sequence[int]) -> Sequence[int]:
        return of_first if self.places_N is None else self.places_N[of_first].tolist()

    def read(self, field: str, of_first: Sequence[int]) -> Float[np.ndarray, "R ..."]:
        """A token field of the first view's rows, or what their patches are compared by."""
        positions = self.positions(of_first)
        return (
            read_patches(self.tokens, self.feature, positions) if field == PATCHES else self.tokens.at(field, positions)
        )

    def turn(self, values: Shaped[np.ndarray, "*maps T"]) -> Shaped[np.ndarray, "*maps T"]:
        """Upright values in the direction of the view, or back."""
        return mirror_patches(values, self.grid) if self.is_flipped else values

    def lattice(self, box: Box) -> Lattice:
        """The upright lattice of a picture with this box in the view."""
        return Lattice(self.grid, self.patch, upright_box(box, self.tokens.artifact))


def load_views(
    inputs: Inputs, feature: Feature, takes_supports: bool, groups: Mapping[GroupKey, SupportGroup]
) -> list[TokenView]:
    """`groups` are the classes in which all pictures support each other."""
    first, *others = views_of(inputs)
    places = [(first, None), *((view, _places(first, view)) for view in others)]
    return [_load_view(view, places_N, feature, takes_supports, groups) for view, places_N in places]


def _load_view(
    artifact: Artifact,
    places_N: Int64[np.ndarray, " N"] | None,
    feature: Feature,
    takes_supports: bool,
    groups: Mapping[GroupKey, SupportGroup],
) -> TokenView:
    tokens = Tokens(artifact)
    queries = ClassQueryCache(tokens, feature) if takes_supports else None
    sums: dict[GroupKey, tuple[Tensor, int]] = {}
    if queries is not None:
        for key, group in groups.items():
            positions_N = group.positions_N if places_N is None else places_N[group.positions_N]
            sums[key] = (queries.sum(positions_N.tolist()), len(positions_N))
    return TokenView(
        tokens=tokens,
        feature=feature,
        grid=tokens.facts.backbone.grid,
        patch=tokens.facts.backbone.patch,
        is_flipped=artifact.plan.config["flip"],
        places_N=places_N,
        queries=queries,
        sums=sums,
    )


def _places(first: Artifact, view: Artifact) -> Int64[np.ndarray, " N"]:
    ids = (batch.column("id").to_pylist() for batch in first.row_batches(["id"]))
    return np.fromiter(chain.from_iterable(map(view.positions, ids)), np.int64, first.plan.num_rows)


def _origin(view: Artifact) -> dict[str, tuple[Json, str]]:
    """What all views must share: by name, the value to compare and its text for messages."""
    facts = TokensFacts.of(view)
    name, weights = facts.backbone.name, facts.weights
    return {"backbone": (name, name), "weights": (weights.sha256, f"{weights.source} (sha256 {weights.sha256[:12]})")}
