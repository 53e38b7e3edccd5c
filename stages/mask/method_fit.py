"""Fits a mask method on stored tokens and image-level labels, and writes a checkpoint for `mask`."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ...manifests.artifact.artifact import Artifact
from ...manifests.artifact.facts import TokensFacts
from ...manifests.artifact.tokens import array_names
from ...manifests.artifact.underway import Underway
from ...manifests.errors import ConfigError
from ..stage import Findings, Inputs, WholeStage
from ..vision.feature_forms import RAW_KEYS
from .config import FIT as COMMAND, FitConfig
from .methods import Method, find_method


def resolve(config: FitConfig, inputs: Inputs) -> FitConfig:
    if find_method(config.method).fit is None:
        raise ConfigError(f"method {config.method} needs no fitting; use it with `maskmill mask`")
    return config


def reads(config: FitConfig, inputs: Inputs) -> Mapping[str, Sequence[str]]:
    return {
        "tokens": array_names(inputs["tokens"], find_method(config.method).token_fields(RAW_KEYS)),
        "images": ("labels",),
    }


def compute(config: FitConfig, inputs: Inputs, underway: Underway) -> Findings:
    fit = find_method(config.method).fit
    assert fit is not None, config.method
    findings = fit(config, inputs, underway)
    return replace(findings, facts={**findings.facts, "method": config.method, **_weights(inputs["tokens"])})


def refuse_wrong_fit(method: Method, checkpoint: Artifact | None) -> None:
    """Refuses a checkpoint for a method that is not fitted, and a fitted method without one."""
    if method.fit is None and checkpoint is not None:
        raise ConfigError(f"method {method.name} takes no checkpoint; leave --model out")
    if method.fit is not None and checkpoint is None:
        raise ConfigError(
            f"method {method.name} needs a checkpoint; run `maskmill fit --method {method.name}` and pass its "
            "result as --model"
        )


def refuse_other_checkpoint(method: Method, tokens: Artifact, checkpoint: Artifact | None) -> None:
    """Refuses a checkpoint of another method, or one fitted on tokens of other weights."""
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


def _weights(tokens: Artifact) -> dict[str, str]:
    weights = TokensFacts.of(tokens).weights
    return {"weights": weights.source, "weights_sha256": weights.sha256}


FIT = WholeStage(
    command=COMMAND, code_version=1, resolve=resolve, compute=compute, reads=reads, libraries=("numpy", "torch")
)
