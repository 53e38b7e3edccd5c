"""A mask method is fitted: from stored tokens and image-level labels to a checkpoint for `mask`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ...manifests.artifact.artifact import Artifact
from ...manifests.artifact.tokens import Tokens, array_names
from ...manifests.artifact.underway import Underway
from ...manifests.errors import ConfigError
from ..stage import Findings, Inputs, WholeStage
from .methods import Method, find_method


@dataclass(frozen=True, slots=True, kw_only=True)
class FitConfig:
    method: str
    seed: int


def fit_config(method: str, seed: int = 0) -> FitConfig:
    if find_method(method).fit is None:
        raise ConfigError(f"method {method} is not fitted; use it with `maskmill mask` as it is")
    return FitConfig(method=method, seed=seed)


def reads(config: FitConfig, inputs: Inputs) -> Mapping[str, Sequence[str]]:
    return {"tokens": array_names(inputs["tokens"], find_method(config.method).reads), "images": ("labels",)}


def compute(config: FitConfig, inputs: Inputs, underway: Underway) -> Findings:
    fit = find_method(config.method).fit
    assert fit is not None, config.method
    found = fit(config, inputs, underway)
    return replace(found, facts={**found.facts, "method": config.method, **_weights(inputs["tokens"])})


def refuse_other_checkpoint(method: Method, tokens: Artifact, checkpoint: Artifact | None) -> None:
    """A method takes the checkpoint that was fitted for it on tokens of the same weights, or none."""
    if method.fit is None:
        if checkpoint is not None:
            raise ConfigError(f"method {method.name} is not fitted; leave --model out")
        return
    if checkpoint is None:
        raise ConfigError(
            f"method {method.name} is fitted first; run `maskmill fit --method {method.name}` and pass its "
            "checkpoint as --model"
        )
    wanted = {"method": method.name, **_weights(tokens)}
    for name, value in wanted.items():
        found = checkpoint.summary.counts.get(name)
        if found != value:
            raise ConfigError(
                f"{checkpoint.place} was fitted with {name} {found} and is wanted with {value}; pass as --model a "
                f"checkpoint that `maskmill fit {tokens.place} --method {method.name}` has made"
            )


def _weights(tokens: Artifact) -> dict[str, str]:
    return {"weights": Tokens(tokens).weights["source"], "weights_sha256": Tokens(tokens).weights["sha256"]}


FIT = WholeStage(
    name="fit",
    kind="checkpoint",
    code_version=1,
    config=FitConfig,
    roles={"tokens": "tokens", "images": "images"},
    compute=compute,
    reads=reads,
    libraries=("numpy", "torch"),
)
