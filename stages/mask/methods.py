"""The mask methods: one record each, in one table. A new one is a function and a line.

Letters: R rows (a picture, or a picture and a class), T patches, H heads, E width of a head.

Only those in the table need no training. A method that is fitted on image-level labels has a `fit`, whose
checkpoint `maskmill fit` writes and `apply` is given; one whose `source` is `images` runs a network of its own.
"""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float32
from torch import Tensor

from ...manifests.artifact.artifact import Artifact
from ...manifests.artifact.underway import Underway
from ...manifests.errors import ConfigError
from ..maps.cst import cosine_map, head_maps
from ..maps.kept_mass import attention_map, head_attention_maps
from ..maps.one_thread import one_thread
from ..stage import Findings, Inputs
from .merging import RELATIVE, Merge, ScoreKind
from .ncut import MEAN, maskcut_maps, ncut_map

MAX_INSTANCES = 255  # of a picture


@dataclass(frozen=True, slots=True)
class MethodInput:
    """What a method is given of some rows."""

    fields: Mapping[str, np.ndarray]  # token field → one row each
    queries: Float32[Tensor, "R H E"] | None  # the class query to look for, of a method that takes supports
    valid: Bool[np.ndarray, "R T"]  # patches that are picture
    grid: tuple[int, int]  # rows and columns of patches
    classes: Sequence[int | None]
    pictures: Sequence[int]  # which picture a row is of; rows of one stand together
    instances: Sequence[int]  # and which of its objects, from 0
    tau: float | None  # of a method that has one
    model: Any  # what `load` gave, of a fitted method


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    name: str
    source: Literal["tokens", "images"]  # whether stored tokens suffice
    reads: Sequence[str]  # token fields; of one that takes supports cls_query, too, which it is given as queries
    apply: Callable[[MethodInput], Float32[np.ndarray, "R T"]]
    score_kind: ScoreKind
    align_corners: bool  # how its maps are upsampled
    threshold: str  # where the user names none
    # How its maps of several views become one; a sum is for scores that are relative to their own map, and is then
    # scaled anew. None: it takes one view, as where rows of two views need not be of the same object.
    merge: Merge | None = None
    takes_supports: bool = False  # and where there are some, a map for each class of a picture
    by_class: bool = False  # the same without supports: it tells classes apart by itself
    instances: int | None = None  # of one that finds several objects: how many where the user names no number
    tau: float | None = None  # of one that cuts a graph of keys: the cosine above which keys agree, likewise
    fit: Callable[[Any, Inputs, Underway], Findings] | None = None  # tokens and images → a checkpoint's files
    load: Callable[[Artifact], Any] | None = None  # a checkpoint → the model
    per_head: Callable[[MethodInput], Float32[np.ndarray, "R H T"]] | None = None  # what the map is the mean of

    def __post_init__(self) -> None:
        assert self.merge is None or (self.merge == "sum") == (self.score_kind in RELATIVE), self.name

    @property
    def fields(self) -> Sequence[str]:
        """The token fields that `apply` is given."""
        return [name for name in self.reads if not (self.takes_supports and name == "cls_query")]


def cst_maps(given: MethodInput) -> Float32[np.ndarray, "R T"]:
    assert given.queries is not None
    with one_thread():
        return cosine_map(torch.from_numpy(given.fields["keys"]), given.queries).numpy()


def cst_head_maps(given: MethodInput) -> Float32[np.ndarray, "R H T"]:
    assert given.queries is not None
    with one_thread():
        return head_maps(torch.from_numpy(given.fields["keys"]), given.queries).numpy()


def cls_attention_maps(given: MethodInput) -> Float32[np.ndarray, "R T"]:
    """Of the last block that is stored."""
    return attention_map(torch.from_numpy(given.fields["cls_attention"][:, -1]), given.valid)


def cls_attention_head_maps(given: MethodInput) -> Float32[np.ndarray, "R H T"]:
    return head_attention_maps(torch.from_numpy(given.fields["cls_attention"][:, -1]), given.valid)


def ncut_maps(given: MethodInput) -> Float32[np.ndarray, "R T"]:
    assert given.tau is not None
    maps_RT = np.empty(given.valid.shape, np.float32)
    with one_thread():
        for map_T, keys, valid_T in zip(maps_RT, given.fields["keys"], given.valid, strict=True):
            map_T[:] = ncut_map(torch.from_numpy(keys), valid_T.reshape(given.grid), given.tau).ravel()
    return maps_RT


def maskcut_instance_maps(given: MethodInput) -> Float32[np.ndarray, "R T"]:
    """The objects of a picture follow from one another, so those before the ones that are wanted are found as well."""
    assert given.tau is not None
    maps_RT = np.empty(given.valid.shape, np.float32)
    with one_thread():
        for _, some in groupby(range(len(given.pictures)), key=lambda row: given.pictures[row]):
            rows = list(some)
            keys, valid_RC = torch.from_numpy(given.fields["keys"][rows[0]]), given.valid[rows[0]].reshape(given.grid)
            wanted = [given.instances[row] for row in rows]
            found = maskcut_maps(keys, valid_RC, given.tau, max(wanted) + 1)
            maps_RT[rows] = found[wanted].reshape(len(rows), -1)
    return maps_RT


def methods_by_name(*methods: Method) -> dict[str, Method]:
    """Refuses two methods of one name, of which the second would hide the first."""
    table: dict[str, Method] = {}
    for method in methods:
        if method.name in table:
            raise ConfigError(f"there are two mask methods called {method.name}; rename one")
        table[method.name] = method
    return table


METHODS: dict[str, Method] = methods_by_name(
    Method(
        name="cst",
        source="tokens",
        reads=("keys", "cls_query"),
        apply=cst_maps,
        score_kind="cosine01",
        align_corners=True,
        threshold="otsu",
        merge="mean",
        takes_supports=True,
        per_head=cst_head_maps,
    ),
    Method(
        name="cls-attention",
        source="tokens",
        reads=("cls_attention",),
        apply=cls_attention_maps,
        score_kind="share_of_max",
        align_corners=False,
        threshold="kept-mass:0.6",
        merge="sum",
        per_head=cls_attention_head_maps,
    ),
    Method(
        name="ncut",
        source="tokens",
        reads=("keys",),
        apply=ncut_maps,
        score_kind="mean_at_half",
        align_corners=False,
        threshold=f"{MEAN:g}",
        tau=0.2,
    ),
    Method(
        name="maskcut",
        source="tokens",
        reads=("keys",),
        apply=maskcut_instance_maps,
        score_kind="mean_at_half",
        align_corners=False,
        threshold=f"{MEAN:g}",
        instances=3,
        tau=0.15,
    ),
)


def find_method(name: str) -> Method:
    found = METHODS.get(name)
    if found is None:
        near = difflib.get_close_matches(name, METHODS, n=1)
        meant = f"did you mean {near[0]}?" if near else f"choose among {', '.join(METHODS)}"
        raise ConfigError(f"there is no mask method {name!r}; {meant}")
    return found


def resolve_instances(method: Method, asked: int | None) -> int:
    if method.instances is None:
        if asked not in (None, 1):
            raise ConfigError(f"method {method.name} finds one object in a picture; leave --instances out")
        return 1
    wanted = method.instances if asked is None else asked
    if not 1 <= wanted <= MAX_INSTANCES:
        raise ConfigError(f"instances is {wanted} and must be from 1 to {MAX_INSTANCES}")
    return wanted


def resolve_tau(method: Method, asked: float | None) -> float | None:
    if method.tau is None and asked is not None:
        raise ConfigError(f"method {method.name} cuts no graph of keys; leave --tau out")
    if asked is not None and not 0 <= asked < 1:
        raise ConfigError(f"tau is {asked:g}, a cosine that keys must exceed, and must be from 0 to below 1")
    return method.tau if asked is None else asked
