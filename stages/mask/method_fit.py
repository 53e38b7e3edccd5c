"""Fits a mask method on stored tokens and labels or masks, and writes a checkpoint for `mask`."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ...manifests.artifact.artifact import Artifact
from ...manifests.artifact.facts import TokensFacts, class_table
from ...manifests.artifact.tokens import Tokens, array_names
from ...manifests.artifact.underway import Underway
from ...manifests.classes import ClassTable, refuse_other_class_table
from ...manifests.errors import ConfigError
from ...manifests.files.sealed import Json
from ..stage import Findings, Inputs, WholeStage
from ..vision.feature_forms import RAW_KEYS, Feature, parse_feature
from ..vision.patch_features import require_feature, resolve_feature
from .config import FIT as COMMAND, TOKENS, FitConfig
from .fields_to_extract import fields_to_extract
from .methods import Method, find_method, refuse_feature_and_side

CLASSES = "class_table"  # fact of a checkpoint that learned from labels


def resolve(config: FitConfig, inputs: Inputs) -> FitConfig:
    method = find_method(config.method)
    if method.fit is None:
        raise ConfigError(f"method {config.method} needs no fitting; use it with `maskmill mask`")
    draws = bool(config.gt_per_class or config.gt_list)
    if method.learns_from_masks and not draws:
        raise ConfigError(
            f"method {config.method} learns from true masks; give --gt-per-class (such as 5) or --gt-list (a file of "
            "ids)"
        )
    if draws and not method.learns_from_masks:
        raise ConfigError(f"method {config.method} learns from no masks; leave --gt-per-class and --gt-list out")
    refuse_feature_and_side(method, config.feature, None)
    if TOKENS not in inputs or not method.compares_patches:
        return config
    return replace(config, feature=resolve_feature(config.feature, Tokens(inputs[TOKENS])))


def wants(config: FitConfig, extract: Mapping[str, Any]) -> Sequence[str]:
    method = find_method(config.method)
    return [*fields_to_extract(method, config.feature, extract), *method.fit_reads]


def reads(config: FitConfig, inputs: Inputs) -> Mapping[str, Sequence[str]]:
    method, tokens = find_method(config.method), inputs[TOKENS]
    feature = config.feature or RAW_KEYS
    token_fields = [*method.token_fields(feature), *method.fit_reads]
    require_feature(Tokens(tokens), feature, token_fields)
    images = tuple(name for name in method.fit_reads_images if name in inputs["images"].plan.fields)
    return {TOKENS: array_names(tokens, token_fields), "images": images}


def compute(config: FitConfig, inputs: Inputs, underway: Underway) -> Findings:
    method = find_method(config.method)
    assert method.fit is not None, config.method
    findings = method.fit(config, inputs, underway)
    feature = {} if config.feature is None else {"feature": str(config.feature)}
    own = {"method": config.method, **feature, **_weights(inputs[TOKENS])}
    if "labels" in method.fit_reads_images:
        own[CLASSES] = class_table(inputs["images"]).as_json()
    return replace(findings, facts={**findings.facts, **own})


def feature_of_checkpoint(checkpoint: Artifact | None) -> Feature | None:
    """What a fitted method compares patches by."""
    text = checkpoint.summary.counts.get("feature") if checkpoint is not None else ""
    return parse_feature(str(text)) if text else None


def refuse_fit_of_recipe(method: Method, feature: Feature | None, fit: FitConfig | None, has_model: bool) -> None:
    """Refuses a [fit] that does not prepare what [mask] needs, and a [mask] that lacks one."""
    if fit is None:
        if method.fit is not None and not has_model:
            to_add = f'[fit] with method = "{method.name}"'
            raise ConfigError(f"method {method.name} needs a checkpoint; add {to_add}, or name one as model")
        return
    if has_model:
        raise ConfigError("model names a checkpoint and [fit] makes another; leave one of them out")
    if fit.method != method.name:
        raise ConfigError(
            f"[fit] has method {fit.method} and [mask] has method {method.name}; name the same, or leave [fit] out"
        )
    if feature not in (None, fit.feature):
        raise ConfigError(f"feature is {feature}, and [fit] does not have the same; set it in [fit] alone")


def refuse_wrong_fit(method: Method, checkpoint: Artifact | None) -> None:
    """Refuses a checkpoint for a method that is not fitted, and a fitted method without one."""
    if method.fit is None and checkpoint is not None:
        raise ConfigError(f"method {method.name} takes no checkpoint; leave --model out")
    if method.fit is not None and checkpoint is None:
        raise ConfigError(
            f"method {method.name} needs a checkpoint; run `maskmill fit --method {method.name}` and pass its "
            "result as --model"
        )


def refuse_other_checkpoint(
    method: Method, tokens: Artifact, classes: ClassTable, checkpoint: Artifact | None, feature: Feature | None
) -> None:
    """Refuses a checkpoint of another method, or one fitted on tokens of other weights, on another feature or for other
    classes."""
    refuse_wrong_fit(method, checkpoint)
    if checkpoint is None:
        return
    for name, expected in {"method": method.name, **_weights(tokens)}.items():
        value = checkpoint.summary.counts.get(name)
        if value != expected:
            raise ConfigError(
                f"{checkpoint.place} has {name} = {value}, expected {expected}; pass as --model a checkpoint made by "
                f"`maskmill fit {tokens.place} --method {method.name}`"
            )
    if CLASSES in checkpoint.summary.counts:
        theirs = ClassTable.from_json(checkpoint.summary.counts[CLASSES])
        remedy = "pass as --model a checkpoint that was fitted on images with the same classes"
        refuse_other_class_table(classes, theirs, ("the images", checkpoint.place), remedy, ConfigError)
    fitted = feature_of_checkpoint(checkpoint)
    if method.compares_patches and fitted != feature:
        raise ConfigError(
            f"--feature is {feature}, and {checkpoint.place} was fitted by {fitted}; leave --feature out, or fit "
            f"another checkpoint with `maskmill fit --feature {feature}`"
        )


def _weights(tokens: Artifact) -> dict[str, Json]:
    weights = TokensFacts.of(tokens).weights
    return {"weights": weights.source, "weights_sha256": weights.sha256}


FIT = WholeStage(
    command=COMMAND,
    code_version=1,
    resolve=resolve,
    wants=wants,
    reads=reads,
    compute=compute,
    takes_long=True,
    libraries=("numpy", "scipy", "torch"),
)
