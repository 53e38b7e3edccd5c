"""What `train` asks for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ...manifests.artifact.config import check_config, checks_itself, option
from ...manifests.errors import ConfigError
from ..choices import DEVICE_HELP, SEED_HELP
from ..command import Command, Role
from ..students.backbone_config import BackboneConfig
from ..students.feature_names import LAST, PAIR_FIELDS, SEVERAL

Student = Literal["linear", "cst"]
Supervision = Literal["pseudo", "published", "mask", "mixed"]
Select = Literal["last", "held-out", "upstream"]

# Of cst the batch and the rate are the original's; how long it trained was not to be found. The others are this
# project's own.
DEFAULTS: Mapping[Student, Mapping[str, Any]] = {
    "linear": {"steps": 500, "batch": 16, "learning_rate": 1e-2},
    "cst": {"steps": 2000, "batch": 12, "learning_rate": 1e-3},
}
HIGHEST_RATE = 1e30  # Adam's step, which may be many times the rate, has to be a float32


@checks_itself
@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    student: Student = option(
        help="linear: patch classes from the last tokens, in a minute. cst: few-shot classification and segmentation."
    )
    hidden: int = option(0, "Width of a second layer (linear); 0 for one layer.", at_least=0)
    supervision: Supervision = option(
        "published",
        "Supervision (cst): pseudo-masks from stored keys and class queries, the dataset's masks, ground truth, or a "
        "dataset that holds both.",
    )
    classes: tuple[str, ...] = option((), "Learn these classes only (cst), by name or number.", metavar="NAME,…")
    select: Select = option(
        "last",
        "Checkpoint to keep (cst); upstream is the original's choice, on ground truth of classes not learned.",
    )
    steps: int = option(None, "Training steps; 500 for linear and 2000 for cst by default.", at_least=1)
    batch: int = option(None, "Pictures (16) or pairs (12) in a step.", at_least=1)
    learning_rate: float = option(
        None, "Learning rate; 0.01 for linear and 0.001 for cst by default.", above=0, at_most=HIGHEST_RATE
    )
    seed: int = option(0, f"{SEED_HELP} for everything that is drawn.", at_least=0)
    seeing: BackboneConfig | None = option(None)  # None: tokens are read
    device: str = option("cpu", DEVICE_HELP, changes_bytes=False, is_kept=True)  # its type is in the fingerprint

    def __post_init__(self) -> None:
        check_config(self)
        object.__setattr__(self, "classes", tuple(sorted(set(self.classes))))
        for name, value in DEFAULTS[self.student].items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        _refuse_of_the_other(self)

    @property
    def fields(self) -> Sequence[str]:
        """The features that are read."""
        if self.student == "linear":
            return (LAST,)
        return PAIR_FIELDS if self.reads_keys else SEVERAL

    @property
    def reads_keys(self) -> bool:
        """Of pairs that are supervised by them."""
        return self.supervision == "pseudo"


def _refuse_of_the_other(config: TrainConfig) -> None:
    """What only one of the students knows."""
    of_cst = {"supervision": config.supervision != "published", "select": config.select != "last"}
    of_cst |= {"classes": bool(config.classes), "device": config.device != "cpu" and config.seeing is None}
    asked = [name for name, is_asked in of_cst.items() if is_asked]
    if config.student == "linear" and asked:
        raise ConfigError(
            f"--{asked[0]} is not for the student linear, which learns all published masks on a CPU; leave it out"
        )
    if config.student == "cst" and config.hidden:
        raise ConfigError("--hidden is for the student linear; leave it out, or choose that one")


TRAIN = Command(
    name="train",
    makes="checkpoint",
    config=TrainConfig,
    work=".train.stage:STAGE",
    roles={
        "dataset": Role(kind="dataset", metavar="DATASET", help="Dataset artifact."),
        "tokens": Role(
            kind="tokens",
            flag="--tokens",
            metavar="DIR",
            help="Stored tokens of the same pictures; those it was made from by default.",
            is_optional=True,
            is_found=True,
        ),
        "images": Role(
            kind="images",
            flag="--images",
            metavar="DIR",
            help="Images with masks; those of the dataset by default.",
            is_optional=True,
            is_found=True,
        ),
    },
    help="Learns from stored tokens (--tokens) or with the backbone in the loop (--backbone). Rerun to resume. Exits 6 "
    "if there is no ground truth to score on.",
    has_units=False,
    is_training=True,
    retired={"features": "--tokens or --backbone says it"},
)
