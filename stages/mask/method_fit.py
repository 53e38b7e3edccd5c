"""A mask method is fitted: from stored tokens and image-level labels to a checkpoint for `mask`."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ...manifests.artifact.artifact import Artifact
from ...manifests.artifact.facts import TokensFacts
from ...manifests.artifact.tokens import array_names
from ...manifests.artifact.underway import Underway
from ...manifests.errors import ConfigError
from ..stage import Findings, Inputs, WholeStage
from .config import FIT as COMMAND, FitConfig
from .methods import Method, find_method


def resolve(config: FitConfig, inputs: Inputs) -> FitConfig:
    if find_method(config.method).fit is None:
        raise ConfigError(f"method {config.method} is not fitted; use it with `maskmill mask` as it is")
    return config


def reads(config: FitConfig, inputs: Inputs) -> Mapping[str, Sequence[str]]:
    return {"tokens": array_names(inputs["tokens"], find_method(config.method).reads), "images": ("labels",)}


def compute(config: FitConfig, inputs: Inputs, underway: Underway) -> Findings:
    fit = find_method(config.method).fit
    assert fit is not None, config.method
    found = fit(config, inputs, underway)
    return replace(found, facts={**found.facts, "method": config.method, **_weights(inputs["tokens"])})


def refuse_wrong_fit(method: Method, checkpoint: Artifact | None) -> None:
    """A method that is fitted takes a checkpoint, any other takes none."""
    if method.fit is None and checkpoint is not None:
        raise ConfigError(f"method {method.name} is not fitted; leave --model out")
    if method.fit is not None and checkpoint is None:
        raise ConfigError(
            f"method {method.name} is fitted first; run `maskmill fit --method {method.name}` and pass its "
            "checkpoint as --model"
        )


def refuse_other_checkpoint(method: Method, tokens: Artifact, checkpoint: Artifact | None) -> None:
    """A method takes the checkpoint that was fitted for it on tokens of the same weights, or none."""
    refuse_wrong_fit(method, checkpoint)
    if checkpoint is None:
        return
    expected = {"method": method.name, **_weights(tokens)}
    for name, value in expected.items():
        held = checkpoint.summary.counts.get(name)
        if held != value:
            raise ConfigError(
                f"{checkpoint.place} has {name} = {held}, expected {value}; pass as --model a checkpoint that "
                f"`maskmill fit {tokens.place} --method {method.name}` has made"
            )


def _weights(tokens: Artifact) -> dict[str, str]:
    weights = TokensFacts.of(tokens).weights
    return {"weights": weights.source, "weights_sha256": weights.sha256}


FIT = WholeStage(
    command=COMMAND,
    code_version=1,
    resolve=resolve,
    compute=compute,
    reads=reads,
    libraries=("numpy", "torch"),
)
