"""The table of mask methods. A new method is one function and one record.

Letters: R rows (a picture, or a picture and a class), T patches, H heads, E width of a head.

Most methods in the table need no training. A method that learns from labels or masks has a `fit`: `maskmill fit`
writes its checkpoint, and `apply` receives the model. A method whose `source` is `images` runs its own network.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float32
from torch import Tensor

from ...manifests.artifact.artifact import Artifact
from ...manifests.artifact.underway import Underway
from ...manifests.artifact.values import nearest
from ...manifests.errors import ConfigError
from ..choices import Side
from ..maps.cst import cosine_map, head_maps
from ..maps.kept_mass import attention_map, head_attention_maps
from ..maps.one_thread import one_thread
from ..stage import Findings, Inputs
from ..vision.feature_forms import Feature
from ..vision.patch_features import fields_of
from .found import FoundHead
from .found_fit import fit_found, load_found
from .incontext import MERGED, OBJECT, cluster_patches, incontext_map, unit_length
from .merging import RELATIVE, Merge, ScoreKind
from .ncut import MEAN, maskcut_maps, ncut_map
from .support_bank import fit_bank, load_bank

MAX_INSTANCES = 255  # of a picture
PATCHES = "patches"


@dataclass(frozen=True, slots=True)
class MethodInput:
    """The input of a method: a batch of rows."""

    fields: Mapping[str, np.ndarray]  # token field → one row each; PATCHES → what patches are compared by
    queries: Float32[Tensor, "R H E"] | None  # the class query to look for; None if the method takes no supports
    valid: Bool[np.ndarray, "R T"]  # patches that show the picture
    grid: tuple[int, int]  # rows and columns of patches
    ids: Sequence[str]
    classes: Sequence[int | None]
    pictures: Sequence[int]  # the picture of each row; rows of one picture are adjacent
    instances: Sequence[int]  # the object of each row, from 0
    tau: float | None
    side: Side | None
    model: Any  # the result of `load`


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    name: str
    source: Literal["tokens", "images"]  # whether stored tokens suffice
    # Token fields. PATCHES stands for what patches are compared by, which the backbone's profile or --feature decides;
    # the class queries of a method with supports arrive as `queries`.
    reads: Sequence[str]
    apply: Callable[[MethodInput], Float32[np.ndarray, "R T"]]
    score_kind: ScoreKind
    align_corners: bool  # how its maps are upsampled
    threshold: str  # default rule
    # How maps of several views are merged; a sum is for scores relative to their own map, and is rescaled. None: the
    # method takes one view, for example because rows of two views may show different objects.
    merge: Merge | None = None
    takes_supports: bool = False  # with supports, there is one map per picture and class
    by_class: bool = False  # one map per picture and class, without supports
    instances: int | None = None  # default number of objects, if the method finds several
    tau: float | None = None  # default cosine above which patches agree, if the method groups them
    tokens_tau: float | None = None  # the same for tokens
    takes_side: bool = False  # whether it has to choose a side of a cut
    fit: Callable[[Any, Inputs, Underway], Findings] | None = None  # tokens and images → a checkpoint's files
    fit_reads: Sequence[str] = ()  # token fields that only `fit` reads
    fit_reads_images: Sequence[str] = ()  # fields of the images that `fit` reads
    load: Callable[[Artifact], Any] | None = None  # a checkpoint → the model
    per_head: Callable[[MethodInput], Float32[np.ndarray, "R H T"]] | None = None  # maps whose mean is the map

    def __post_init__(self) -> None:
        assert self.merge is None or (self.merge == "sum") == (self.score_kind in RELATIVE), self.name

    @property
    def compares_patches(self) -> bool:
        return PATCHES in self.reads

    @property
    def learns_from_masks(self) -> bool:
        """Whether `fit` draws pictures with true masks."""
        return "mask" in self.fit_reads_images

    def default_tau(self, feature: Feature | None) -> float | None:
        is_tokens = feature is not None and feature.field == "tokens"
        return self.tokens_tau if is_tokens and self.tokens_tau is not None else self.tau

    def with_patches(self) -> "Method":
        """The method, reading also what patches are compared by."""
        return self if self.compares_patches else replace(self, reads=(*self.reads, PATCHES))

    def token_fields(self, feature: Feature) -> list[str]:
        """The stored fields to read."""
        own = fields_of(feature, self.takes_supports) if self.compares_patches else ()
        return list(dict.fromkeys([*own, *(name for name in self.reads if name != PATCHES)]))


def cst_maps(given: MethodInput) -> Float32[np.ndarray, "R T"]:
    assert given.queries is not None
    with one_thread():
        return cosine_map(torch.from_numpy(given.fields[PATCHES]), given.queries).numpy()


def cst_head_maps(given: MethodInput) -> Float32[np.ndarray, "R H T"]:
    assert given.queries is not None
    with one_thread():
        return head_maps(torch.from_numpy(given.fields[PATCHES]), given.queries).numpy()


def cls_attention_maps(given: MethodInput) -> Float32[np.ndarray, "R T"]:
    """Uses the last stored block."""
    return attention_map(torch.from_numpy(given.fields["cls_attention"][:, -1]), given.valid)


def cls_attention_head_maps(given: MethodInput) -> Float32[np.ndarray, "R H T"]:
    return head_attention_maps(torch.from_numpy(given.fields["cls_attention"][:, -1]), given.valid)


def ncut_maps(given: MethodInput) -> Float32[np.ndarray, "R T"]:
    assert given.tau is not None
    assert given.side is not None
    maps_RT = np.empty(given.valid.shape, np.float32)
    with one_thread():
        for map_T, keys, valid_T in zip(maps_RT, given.fields[PATCHES], given.valid, strict=True):
            map_T[:] = ncut_map(torch.from_numpy(keys), valid_T.reshape(given.grid), given.tau, given.side).ravel()
    return maps_RT


def maskcut_instance_maps(given: MethodInput) -> Float32[np.ndarray, "R T"]:
    """Each object depends on those before it, so objects before the requested ones are computed too."""
    assert given.tau is not None
    assert given.side is not None
    maps_RT = np.empty(given.valid.shape, np.float32)
    with one_thread():
        for _, group in groupby(range(len(given.pictures)), key=lambda row: given.pictures[row]):
            rows = list(group)
            keys, valid_RC = torch.from_numpy(given.fields[PATCHES][rows[0]]), given.valid[rows[0]].reshape(given.grid)
            instances = [given.instances[row] for row in rows]
            maps_NRC = maskcut_maps(keys, valid_RC, given.tau, max(instances) + 1, given.side)
            maps_RT[rows] = maps_NRC[instances].reshape(len(rows), -1)
    return maps_RT


def incontext_maps(given: MethodInput) -> Float32[np.ndarray, "R T"]:
    """Rows of a picture share its clusters. A class without supports has a map of zeros."""
    assert given.tau is not None
    maps_RT = np.zeros(given.valid.shape, np.float32)
    with one_thread():
        for _, group in groupby(range(len(given.pictures)), key=lambda row: given.pictures[row]):
            rows = list(group)
            valid_T = given.valid[rows[0]]
            patches_PK = unit_length(given.fields[PATCHES][rows[0]][valid_T].astype(np.float32))
            clusters_P = cluster_patches(patches_PK, given.tau)
            for row in rows:
                supports = given.model.supports(given.classes[row], given.ids[row])
                maps_RT[row, valid_T] = incontext_map(patches_PK, clusters_P, supports) if supports else 0
    return maps_RT


def foreground_maps(given: MethodInput) -> Float32[np.ndarray, "R T"]:
    head: FoundHead = given.model
    return head.probability(torch.from_numpy(given.fields[PATCHES])).numpy()


def methods_by_name(*methods: Method) -> dict[str, Method]:
    """The methods by name; two methods of one name are refused."""
    table: dict[str, Method] = {}
    for method in methods:
        if method.name in table:
            raise ConfigError(f"found two mask methods called {method.name}; rename one")
        table[method.name] = method
    return table


_graph_cut = partial(
    Method,
    source="tokens",
    reads=(PATCHES,),
    score_kind="mean_at_half",
    align_corners=False,
    threshold=f"{MEAN:g}",
    tokens_tau=0.4,  # measured on a ViT-S/14
    takes_side=True,
)
METHODS: dict[str, Method] = methods_by_name(
    Method(
        name="cst",
        source="tokens",
        reads=(PATCHES,),
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
    _graph_cut(name="ncut", apply=ncut_maps, tau=0.2),
    _graph_cut(name="maskcut", apply=maskcut_instance_maps, tau=0.15, instances=3),
    Method(
        name="incontext",
        source="tokens",
        reads=(PATCHES,),
        apply=incontext_maps,
        score_kind="cosine",
        align_corners=False,
        threshold=f"{OBJECT:g}",
        merge="mean",
        by_class=True,
        tau=MERGED,
        fit=fit_bank,
        fit_reads_images=("labels", "mask"),
        load=load_bank,
    ),
    Method(
        name="found",
        source="tokens",
        reads=(PATCHES,),
        apply=foreground_maps,
        score_kind="probability",
        align_corners=False,
        threshold="0.5",
        merge="mean",
        fit=fit_found,
        fit_reads=("cls_attention",),
        load=load_found,
    ),
)


def find_method(name: str) -> Method:
    if name not in METHODS:
        raise ConfigError(f"unknown mask method {name!r}; {nearest(name, METHODS)}")
    return METHODS[name]


def resolve_instances(method: Method, instances: int | None) -> int:
    if method.instances is None and instances not in (None, 1):
        raise ConfigError(f"method {method.name} finds one object in a picture; leave --instances out")
    resolved = (method.instances or 1) if instances is None else instances
    if not 1 <= resolved <= MAX_INSTANCES:
        raise ConfigError(f"instances is {resolved}, expected 1 to {MAX_INSTANCES}")
    return resolved


def resolve_tau(method: Method, tau: float | None, feature: Feature | None) -> float | None:
    if method.tau is None and tau is not None:
        raise ConfigError(f"method {method.name} does not group patches; leave --tau out")
    if tau is not None and not 0 <= tau < 1:
        raise ConfigError(f"tau is {tau:g}, expected a cosine from 0 to below 1")
    return method.default_tau(feature) if tau is None else tau


def refuse_feature_and_side(method: Method, feature: Feature | None, side: Side | None, instead: str = "") -> None:
    """Refuses options that a method does not read. `instead` is another remedy."""
    if feature is not None and not method.compares_patches:
        raise ConfigError(f"method {method.name} does not compare patches; leave --feature out{instead}")
    if side is not None and not method.takes_side:
        raise ConfigError(f"method {method.name} cuts no graph of patches; leave --side out")
