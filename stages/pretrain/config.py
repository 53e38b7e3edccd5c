"""Options of `pretrain`. The defaults are MC-SSL's (main_MCSSL.py), the closest public code by MaskCluster's authors;
the paper's own values are not published."""

from dataclasses import dataclass, fields
from typing import Literal

from ...manifests.artifact.config import check_config, checks_itself, field_for_resolve, flag, option
from ...manifests.errors import ConfigError
from ..choices import DEVICE_HELP, SEED_HELP
from ..command import IMAGES, Command, Role

MOST_WARMUP = 10  # epochs: MC-SSL's, of 800; a tenth below 100 epochs
LOSSES = ("cls", "patch", "reconstruction", "contrastive")
TEACHER, FLIPPED = "distill", "distill_flipped"
OF_DISTILLING = ("distill_loss", "distill_block")
# Options that only masked image modelling and clustering use.
OF_MASKING = (
    *("losses", "avoidance", "patches", "reconstruction", "align"),
    *("local_size", "local_views", "clusters", "hidden"),
)
Avoidance = Literal["centering", "sinkhorn", "me-max", "sinkhorn+me-max"]


@dataclass(frozen=True, slots=True)
class LossWeights:
    """What is learned from: loss → weight, in the order of LOSSES."""

    weights: tuple[tuple[str, float], ...]

    def __str__(self) -> str:
        return ",".join(f"{name}:{weight!r}" for name, weight in self.weights)


def parse_losses(text: str) -> LossWeights:
    """Names with weights as in cls,patch:0.5; a weight that is left out is 1, and one of 0 leaves its loss out."""
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, colon, number = part.strip().partition(":")
        try:
            weight = float(number) if colon else 1.0
        except ValueError:
            weight = -1.0
        if name not in LOSSES or name in weights or not 0 <= weight < float("inf"):
            raise ConfigError(
                f"losses are {text!r}; choose among {', '.join(LOSSES)}, each once and with a weight of at least 0, "
                "such as cls,patch:0.5"
            )
        weights[name] = weight
    kept = tuple((name, weights[name]) for name in LOSSES if weights.get(name))
    if not kept:
        raise ConfigError(f"losses are {text!r}; at least one must have a weight above 0")
    return LossWeights(kept)


@checks_itself
@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainConfig:
    backbone: str = option(help="Name in timm, such as vit_small_patch16_224.", metavar="NAME")
    losses: LossWeights = option(
        parse_losses("cls,patch,reconstruction"),
        f"Losses, of {', '.join(LOSSES)}, with weights as in patch:0.5.",
        metavar="LOSS[:WEIGHT],…",
        parse=parse_losses,
    )
    avoidance: Avoidance = option("centering", "What keeps clusters from collapsing.")
    patches: Literal["all", "masked"] = option("all", "Patches in the patch loss.")
    reconstruction: Literal["mse", "l1"] = option("mse", "Distance of reconstructed pixels.")
    align: int = option(1, "Masks begin and end at multiples of this many pixels; 0 for the patch.", at_least=0)
    global_size: int = option(224, "Side of the two larger views, in pixels.", at_least=1)
    local_size: int = option(96, "Side of the smaller views, in pixels.", at_least=1)
    local_views: int = option(10, "Number of smaller views.", at_least=0)
    clusters: int = option(8192, "Number of clusters.", at_least=2)
    hidden: int = option(2048, "Width of the heads.", at_least=1)
    epochs: int = option(100, "Epochs.", at_least=1)
    warmup: int = option(None, f"Warm-up epochs; a tenth of all, at most {MOST_WARMUP}, by default.", at_least=0)
    # Masking replaces parts by those of another picture in the batch.
    batch: int = option(64, "Pictures in a step.", at_least=2)
    learning_rate: float = option(5e-4, "Learning rate for a batch of 256.", above=0, below=float("inf"))
    momentum: float = option(
        0.996,
        "Momentum of the teacher, which rises to 1; of the weights that are kept, with --distill, where it stays.",
        at_least=0,
        at_most=1,
    )
    seed: int = option(0, f"{SEED_HELP}.")
    distill_loss: Literal["auto", "cosine", "smooth-l1"] = option(
        "auto",
        "Distance to the teacher's tokens (--distill); auto tries both briefly and takes the one that reaches the "
        "higher held-out cosine.",
        is_new=True,
    )
    distill_block: int | None = option(
        None, "Block of the teacher's tokens, counted from 0; the last stored one by default.", metavar="N", is_new=True
    )
    initial_weights: str = option(
        "",
        "Weights to start from: safetensors, a torch checkpoint of tensors, or a checkpoint artifact; else random.",
        metavar="FILE|CHECKPOINT",
        path="weights",
        changes_bytes=False,
        is_kept=True,
    )
    initial_sha256: str = field_for_resolve("", is_new=True)
    autocast: Literal["off", "bfloat16"] = option("off", "Compute in a shorter type.")
    licence: str = option("unknown", "Licence of the weights: a URL or name.", metavar="TEXT")
    device: str = option("cpu", DEVICE_HELP, changes_bytes=False, is_kept=True)  # its type is in the fingerprint

    def __post_init__(self) -> None:
        check_config(self)
        if self.warmup is None:
            object.__setattr__(self, "warmup", min(MOST_WARMUP, self.epochs // 10))
        if self.warmup and self.warmup >= self.epochs:
            raise ConfigError(
                f"--warmup {self.warmup} leaves none of the --epochs {self.epochs} for the learning rate to fall; "
                "choose fewer warm-up epochs"
            )

    @property
    def weights(self) -> dict[str, float]:
        """Loss → weight."""
        return dict(self.losses.weights)

    @property
    def clustering_losses(self) -> tuple[str, ...]:
        """The losses that learn clusters."""
        return tuple(name for name in ("cls", "patch") if name in self.weights)

    @property
    def smaller_views(self) -> int:
        """Number of local views; only the cls loss uses them."""
        return self.local_views if "cls" in self.weights else 0


def refuse_unused_options(config: PretrainConfig, distills: bool) -> None:
    """Refuses options that only the other way of learning uses."""
    for field in fields(config):
        value = getattr(config, field.name)
        if field.name in (OF_MASKING if distills else OF_DISTILLING) and value != field.default:
            which = "not for --distill, which learns from stored tokens alone" if distills else "for --distill TOKENS"
            raise ConfigError(f"{flag(field.name)} is {which}; leave it out")


PRETRAIN = Command(
    name="pretrain",
    makes="checkpoint",
    config=PretrainConfig,
    work=".pretrain.stage:STAGE",
    roles={
        "pixels": Role(kind="pixels", metavar="PIXELS", help="Pixels artifact."),
        TEACHER: Role(
            kind="tokens",
            flag="--distill",
            metavar="TOKENS",
            help="Learn to predict these stored tokens of a larger backbone instead.",
            is_optional=True,
        ),
        FLIPPED: Role(
            kind="tokens",
            flag="--distill-flipped",
            metavar="TOKENS",
            help="The same of the mirrored pictures (extract --flip); without them no crop is flipped.",
            is_optional=True,
        ),
        "images": IMAGES,
    },
    help="The checkpoint is what `extract --weights` takes. Rerun to resume.",
    has_units=False,
    is_training=True,
    runs_together=True,
    in_recipes=False,
)
