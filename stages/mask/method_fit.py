"""Fits a mask method on stored tokens, and writes a checkpoint for `mask`."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ...manifests.artifact.artifact import Artifact
from ...manifests.artifact.facts import TokensFacts
from ...manifests.artifact.tokens import Tokens, array_names
from ...manifests.artifact.underway import Underway
from ...manifests.errors import ConfigError
from ..stage import Findings, Inputs, WholeStage
from ..vision.feature_forms import RAW_KEYS, Feature, parse_feature
from ..vision.patch_features import require_feature, resolve_feature
from .config import FIT as COMMAND, FitConfig
from .methods import Method, find_method, refuse_feature_and_side

FEATURE = "feature"  # fact of a checkpoint


def resolve(config: FitConfig, inputs: Inputs) -> FitConfig:
    method = find_method(config.method)
    if method.fit is None:
        raise ConfigError(f"method {config.method} needs no fitting; use it with `maskmill mask`")
    refuse_feature_and_side(method, config.feature, None)
    if "tokens" in inputs and method.compares_patches:
        return replace(config, feature=resolve_feature(config.feature, Tokens(inputs["tokens"])))
    return config


def reads(config: FitConfig, inputs: Inputs) -> Mapping[str, Sequence[str]]:
    method, feature = find_method(config.method), config.feature or RAW_KEYS
    fields = [*method.token_fields(feature), *method.fit_reads]
    require_feature(Tokens(inputs["tokens"]), feature, fields)
    return {"tokens": array_names(inputs["tokens"], fields), "images": ("labels",)}


def compute(config: FitConfig, inputs: Inputs, underway: Underway) -> Findings:
    fit = find_method(config.method).fit
    assert fit is not None, config.method
    findings = fit(config, inputs, underway)
    feature = {} if config.feature is None else {FEATURE: str(config.feature)}
    own = {"method": config.method, **feature, **_weights(inputs["tokens"])}
    return replace(findings, facts={**findings.facts, **own})


def refuse_wrong_fit(method: Method, checkpoint: Artifact | None) -> None:
    """Refuses a checkpoint for a method that is not fitted, and a fitted method without one."""
    if method.fit is None and checkpoint is not None:
        raise ConfigError(f"method {method.name} takes no checkpoint; leave --model out")
    if method.fit is not None and checkpoint is None:
        raise ConfigError(
            f"method {method.name} needs a checkpoint; run `maskmill fit --method {method.name}` and pass its "
            "result as --model"
        )


def feature_of_checkpoint(checkpoint: Artifact | None) -> Feature | None:
    """What patches were compared by when a checkpoint was fitted; None if it does not say."""
    text = checkpoint.summary.counts.get(FEATURE) if checkpoint is not None else None
    return parse_feature(text) if isinstance(text, str) else None


def refuse_other_checkpoint(
    method: Method, tokens: Artifact, checkpoint: Artifact | None, feature: Feature | None
) -> None:
    """Refuses a checkpoint of another method, or one fitted on tokens of other weights or by another feature."""
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
    if method.compares_patches and feature_of_checkpoint(checkpoint) != feature:
        raise ConfigError(
            f"--feature is {feature}, and {checkpoint.place} was fitted by {feature_of_checkpoint(checkpoint)}; leave "
            f"--feature out, or fit another checkpoint with --feature {feature}"
        )


def _weights(tokens: Artifact) -> dict[str, str]:
    weights = TokensFacts.of(tokens).weights
    return {"weights": weights.source, "weights_sha256": weights.sha256}


FIT = WholeStage(
    command=COMMAND, code_version=1, resolve=resolve, compute=compute, reads=reads, libraries=("numpy", "torch")
)
