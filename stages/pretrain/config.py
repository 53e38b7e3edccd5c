"""What pretraining is asked for. The defaults are MC-SSL's (main_MCSSL.py), the closest public code of MaskCluster's
authors; the paper's own values were not to be found."""

from dataclasses import dataclass
from typing import Literal

from ...manifests.artifact.fingerprint import setting
from ...manifests.errors import ConfigError
from ..vision.builtin import full_backbone_name

MOST_WARMUP = 10  # epochs: MC-SSL's, of 800; of fewer than 100 epochs a tenth
LOSSES = ("cls", "patch", "reconstruction", "contrastive")
Avoidance = Literal["centering", "sinkhorn", "me-max", "sinkhorn+me-max"]
TrainingAutocast = Literal["off", "bfloat16"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainConfig:
    backbone: str
    losses: str  # name:weight, in the order of LOSSES
    avoidance: Avoidance
    patches: Literal["all", "masked"]  # which have a part in the patch loss
    reconstruction: Literal["mse", "l1"]
    align: int  # pixels; 0: the patch
    global_size: int
    local_size: int
    local_views: int
    clusters: int
    hidden: int
    epochs: int
    warmup: int  # epochs
    batch: int
    learning_rate: float  # of 256 pictures
    momentum: float
    seed: int
    autocast: TrainingAutocast
    licence: str  # of the weights
    device: str = setting(default="cpu", changes_bytes=False, is_kept=True)  # its type is in the fingerprint

    def __post_init__(self) -> None:
        for name in ("global_size", "local_size", "hidden", "epochs"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)} and must be at least 1")
        for name in ("local_views", "align", "warmup"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)} and must be at least 0")
        for name in ("clusters", "batch"):  # of a batch of one nothing could be replaced by parts of another
            if getattr(self, name) < 2:
                raise ConfigError(f"{name} is {getattr(self, name)} and must be at least 2")
        if self.warmup and self.warmup >= self.epochs:
            raise ConfigError(
                f"warmup is {self.warmup} and there are {self.epochs} epochs: the learning rate would never fall; "
                "choose fewer epochs of warm-up"
            )
        if not 0 <= self.momentum <= 1 or not 0 < self.learning_rate < float("inf"):
            raise ConfigError(
                f"momentum is {self.momentum} and learning rate {self.learning_rate}; choose from 0 to 1, and above 0"
            )

    @property
    def weights(self) -> dict[str, float]:
        """Loss → weight, of those that are learned from."""
        return parse_losses(self.losses)

    @property
    def clustering_losses(self) -> tuple[str, ...]:
        """The tokens whose clusters are learned."""
        return tuple(name for name in ("cls", "patch") if name in self.weights)

    @property
    def smaller_views(self) -> int:
        """Only the class token's clusters look at them."""
        return self.local_views if "cls" in self.weights else 0


def pretrain_config(
    backbone: str,
    *,
    losses: str = "cls,patch,reconstruction",
    avoidance: Avoidance = "centering",
    patches: Literal["all", "masked"] = "all",
    reconstruction: Literal["mse", "l1"] = "mse",
    align: int = 1,
    global_size: int = 224,
    local_size: int = 96,
    local_views: int = 10,
    clusters: int = 8192,
    hidden: int = 2048,
    epochs: int = 100,
    warmup: int | None = None,
    batch: int = 64,
    learning_rate: float = 5e-4,
    momentum: float = 0.996,
    seed: int = 0,
    device: str = "cpu",
    autocast: TrainingAutocast = "off",
    licence: str = "unknown",
) -> PretrainConfig:
    """What a user asks for, the losses in one spelling; raises ConfigError for what cannot work."""
    told = ",".join(f"{name}:{weight!r}" for name, weight in parse_losses(losses).items())
    return PretrainConfig(
        backbone=full_backbone_name(backbone),
        losses=told,
        avoidance=avoidance,
        patches=patches,
        reconstruction=reconstruction,
        align=align,
        global_size=global_size,
        local_size=local_size,
        local_views=local_views,
        clusters=clusters,
        hidden=hidden,
        epochs=epochs,
        warmup=min(MOST_WARMUP, epochs // 10) if warmup is None else warmup,
        batch=batch,
        learning_rate=learning_rate,
        momentum=momentum,
        seed=seed,
        device=device,
        autocast=autocast,
        licence=licence,
    )


def parse_losses(text: str) -> dict[str, float]:
    """Names with weights as in cls,patch:0.5; a weight that is left out is 1, and one of 0 leaves its loss out."""
    found: dict[str, float] = {}
    for each in text.split(","):
        name, colon, number = each.strip().partition(":")
        try:
            weight = float(number) if colon else 1.0
        except ValueError:
            weight = -1.0
        if name not in LOSSES or name in found or not 0 <= weight < float("inf"):
            raise ConfigError(
                f"losses are {text!r}, and must be names of {', '.join(LOSSES)}, each once and with a weight from 0, "
                "as in cls,patch:0.5"
            )
        found[name] = weight
    kept = {name: found[name] for name in LOSSES if found.get(name)}
    if not kept:
        raise ConfigError(f"losses are {text!r}, and one at least must have a weight above 0")
    return kept
