"""Makes soft maps from stored tokens with a mask method, each with a threshold; `refine` cuts them later."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ...manifests.artifact.facts import MapsFacts, TokensFacts, class_table
from ...manifests.artifact.fields import Field
from ...manifests.artifact.layout import MAX_UNIT_ROWS
from ...manifests.artifact.tokens import Tokens, array_names
from ...manifests.errors import ConfigError
from ...manifests.files.sealed import Json
from ..maps.cutting import COLUMNS, CUT, KEY
from ..maps.threshold_rules import PAPER_THRESHOLD, ThresholdRule, is_paper_weights, parse_threshold
from ..stage import Configs, Inputs, Known, RowList, RowResult, Stage, UnitResult, Work
from ..vision.feature_forms import RAW_KEYS
from ..vision.patch_features import fields_of, require_feature, resolve_feature
from ..vision.profiles import PROFILES, family_of_tokens
from .computing import Masker, compute_head_maps, compute_maps, rows_to_do, rows_with_fields
from .config import ALL, MASK, OWN, PUBLISHED_SIDES, TOKENS, MaskConfig
from .fields_to_extract import fields_to_extract
from .map_rows import LISTED, class_groups, class_rows, object_rows
from .method_fit import feature_of_checkpoint, refuse_fit_of_recipe, refuse_other_checkpoint, refuse_wrong_fit
from .methods import METHODS, Method, find_method, refuse_feature_and_side, resolve_instances, resolve_tau
from .verdict import notice, warn
from .views import load_views, refuse_several_views, refuse_strange_views, upright_box, view_roles, views_of

FIT, HEAD_MAPS = "fit", "head_maps"
CUT_UNIT = 32  # pictures of a unit if a graph of keys is cut: each takes up to a second


def resolve(config: MaskConfig, inputs: Inputs) -> MaskConfig:
    """Fills in the method's defaults. CST's own threshold is the default only with the weights that it belongs to."""
    method = _method_of(config)
    if config.supports not in (None, OWN) and not method.takes_supports:
        raise ConfigError(f"method {method.name} takes no supports; leave --supports out")
    if config.per_head and method.per_head is None:
        names = ", ".join(other.name for other in METHODS.values() if other.per_head)
        raise ConfigError(f"method {method.name} has no maps of heads; leave --per-head out, or choose among {names}")
    refuse_feature_and_side(method, config.feature, config.side, ", or add --propagate")
    feature, side = config.feature, config.side
    if TOKENS in inputs:
        tokens = Tokens(inputs[TOKENS])
        if method.compares_patches:
            feature = resolve_feature(feature or feature_of_checkpoint(inputs.get("model")), tokens)
        side = side or (PROFILES[family_of_tokens(tokens.facts)].side if method.takes_side else None)
    is_by_head = config.per_head and find_method(config.method).compares_patches
    if is_by_head and feature is not None and feature.field == "tokens":
        raise ConfigError("tokens are not compared by head; leave --per-head out, or choose --feature keys")
    return replace(
        config,
        supports=(config.supports or "8") if method.takes_supports else OWN,
        threshold=config.threshold or _own_threshold(method, inputs),
        instances=resolve_instances(method, config.instances),
        tau=resolve_tau(method, config.tau, feature),
        feature=feature,
        side=side,
    )


def _method_of(config: MaskConfig) -> Method:
    """The method; if its maps are propagated, it also reads what patches are compared by."""
    method = find_method(config.method)
    return method.with_patches() if config.propagate else method


def _own_threshold(method: Method, inputs: Inputs) -> ThresholdRule:
    if method.name == "cst" and TOKENS in inputs and is_paper_weights(TokensFacts.of(inputs[TOKENS]).weights.source):
        return PAPER_THRESHOLD
    return parse_threshold(method.threshold)


def wants(config: MaskConfig, extract: Mapping[str, Any]) -> Sequence[str]:
    return fields_to_extract(_method_of(config), config.feature, extract)


def refuse(configs: Configs, given: Inputs) -> None:
    """Refuses wrong views and checkpoints before the tokens exist."""
    method = find_method(configs["mask"].method)
    views = [config for name, config in configs.items() if name.startswith("extract")]
    refuse_several_views(method, len(views))
    if any(view in views[:number] for number, view in enumerate(views)):
        raise ConfigError("views repeats a view, or that of [extract]; give each its own image_size, fit or flip")
    refuse_fit_of_recipe(method, configs["mask"].feature, configs.get(FIT), "model" in given)
    if "model" in given:
        refuse_wrong_fit(method, given["model"])


def plan(config: MaskConfig, inputs: Inputs, known: Known) -> RowList:
    tokens, images, views = inputs["tokens"], inputs["images"], views_of(inputs)
    method = find_method(config.method)
    refuse_strange_views(method, views)
    refuse_other_checkpoint(method, tokens, class_table(images), inputs.get("model"), config.feature)
    tokens_facts = TokensFacts.of(tokens)
    facts = MapsFacts(
        classes=class_table(images),
        grid=tokens_facts.backbone.grid,
        patch=tokens_facts.backbone.patch,
        score_kind=method.score_kind,
        align_corners=method.align_corners,
        weights=tokens_facts.weights,
        backbone=tokens_facts.backbone.name,
    )
    batches = (
        class_rows(views, images, _query_field(config), config.supports, config.seed)
        if _is_by_class(config, method)
        else object_rows(views, images, config.instances)
    )
    return RowList(LISTED, batches, facts.as_json(), KEY)


def fields(config: MaskConfig, inputs: Inputs) -> Sequence[Field]:
    backbone = TokensFacts.of(inputs["tokens"]).backbone
    rows, columns = backbone.grid
    stored = [Field(name="map", kind="array", shape=(rows, columns), dtype="float32"), CUT]
    if config.per_head:  # float16 would save little next to the keys, and has steps of 5e-4 in the range of cosines
        stored.append(Field(name=HEAD_MAPS, kind="array", shape=(backbone.heads, rows, columns), dtype="float32"))
    return stored


def columns(config: MaskConfig) -> Mapping[str, str]:
    return COLUMNS


def reads(config: MaskConfig, inputs: Inputs) -> Mapping[str, Sequence[str]]:
    feature = config.feature or RAW_KEYS
    token_fields = _method_of(config).token_fields(feature)
    for view in views_of(inputs):
        require_feature(Tokens(view), feature, token_fields)
    needed = {role: array_names(inputs[role], token_fields) for role in view_roles(inputs)} | {"images": ("labels",)}
    return needed | ({"model": sorted(inputs["model"].fingerprints)} if "model" in inputs else {})


def prepare(config: MaskConfig, inputs: Inputs) -> Masker:
    method = _method_of(config)
    groups = class_groups(views_of(inputs), inputs["images"], _query_field(config)) if config.supports == ALL else {}
    return Masker(
        method=method,
        views=load_views(inputs, config.feature or RAW_KEYS, method.takes_supports, groups),
        model=method.load(inputs["model"]) if method.load and "model" in inputs else None,
        by_class=_is_by_class(config, method),
        looks_with_others=config.supports != OWN,
        threshold=config.threshold,
        tau=config.tau,
        side=config.side or PUBLISHED_SIDES.get(method.name),
        propagate=config.propagate,
    )


def run_unit(work: Work, config: MaskConfig, masker: Masker) -> UnitResult:
    """Computes the maps, the maps of heads, or both: maps of heads that are added later are computed alone."""
    grid = masker.views[0].grid
    shapes = {"map": grid, HEAD_MAPS: (masker.views[0].tokens.facts.backbone.heads, *grid)}
    arrays = {name: np.zeros((len(work.ids), *shapes[name]), np.float32) for name in shapes if name in work.fields}
    boxes = _picture_boxes(work)
    results = [RowResult({**box, "threshold": 0.0, "foreground": 0.0}) for box in boxes]
    for rows, fields_of_rows in rows_with_fields(masker, rows_to_do(work)):
        places = [row.index for row in rows]
        if HEAD_MAPS in arrays:
            arrays[HEAD_MAPS][places] = compute_head_maps(masker, rows, fields_of_rows).reshape(-1, *shapes[HEAD_MAPS])
        if "map" not in arrays:
            continue
        masked = compute_maps(masker, rows, fields_of_rows)
        arrays["map"][places] = masked.map_RT.reshape(-1, *grid)
        values = zip(rows, masked.threshold_R.tolist(), masked.foreground_R.tolist(), masked.notes, strict=True)
        for row, threshold, foreground, note in values:
            scalars = {**boxes[row.index], "threshold": threshold, "foreground": foreground}
            results[row.index] = RowResult(scalars, note=note)
    return UnitResult(results, arrays)


def with_held(config: MaskConfig, held: Mapping[str, Json]) -> MaskConfig:
    return replace(config, per_head=config.per_head or bool(held["per_head"]))


def _query_field(config: MaskConfig) -> str:
    """The token field with the class queries of supports; "" for a method without."""
    takes_supports = find_method(config.method).takes_supports
    return fields_of(config.feature or RAW_KEYS, has_queries=True)[-1] if takes_supports else ""


def _is_by_class(config: MaskConfig, method: Method) -> bool:
    return config.supports != OWN or method.by_class


def _picture_boxes(work: Work) -> list[dict[str, Json]]:
    """The picture's size and its upright box in the first view, for each row."""
    rows = work.upstream[TOKENS].select(["box", "height", "width"]).to_pylist()
    return [{**row, "box": row["box"] and list(upright_box(row["box"], work.inputs[TOKENS]))} for row in rows]


def _libraries(config: MaskConfig) -> Sequence[str]:
    return ("scipy", "torch") if find_method(config.method).fit else ("torch",)


def _max_unit_rows(config: MaskConfig) -> int:
    return MAX_UNIT_ROWS if config.tau is None else CUT_UNIT * config.instances


STAGE = Stage(
    command=MASK,
    code_version=1,
    resolve=resolve,
    wants=wants,
    refuse=refuse,
    plan=plan,
    fields=fields,
    columns=columns,
    reads=reads,
    prepare=prepare,
    run_unit=run_unit,
    warn=warn,
    notice=notice,
    selects=("per_head",),
    with_held=with_held,
    libraries=_libraries,
    max_unit_rows=_max_unit_rows,
)
