"""The options of `train`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from ...manifests.artifact.config import check_config, checks_itself, field_for_resolve, option
from ...manifests.errors import ConfigError
from ..choices import DEVICE_HELP, SEED_HELP
from ..command import FEATURES, IMAGES, TOKENS, Command, Role
from ..students.backbone_config import BackboneConfig
from ..students.feature_names import ONE_BLOCK, PAIR_FIELDS, SEVERAL
from ..vision.feature_forms import RAW_KEYS

Student = Literal["linear", "cst"]
Supervision = Literal["pseudo", "published", "mask", "mixed"]
Select = Literal["last", "held-out", "upstream"]

# For cst, the batch and the learning rate are the original's; its number of steps could not be found. The others are
# this project's own.
DEFAULTS: Mapping[Student, Mapping[str, Any]] = {
    "linear": {"steps": 500, "batch": 16, "learning_rate": 1e-2},
    "cst": {"steps": 2000, "batch": 12, "learning_rate": 1e-3},
}
HIGHEST_RATE = 1e30  # Adam's step may be many times the rate and must be a float32


@checks_itself
@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    student: Student = option(
        help="linear: patch classes from the tokens of one block, in a minute. cst: few-shot classification and "
        "segmentation."
    )
    hidden: int = option(0, "Width of a second layer (linear); 0 for one layer.", at_least=0)
    block: int | None = option(
        None,
        "Block whose tokens are classified (linear), counted from 0; the last by default.",
        metavar="N",
        at_least=0,
        is_new=True,
    )
    supervision: Supervision = option(
        "published",
        "Supervision (cst): pseudo-masks from keys and class queries, the dataset's masks, ground truth, or a dataset "
        "with both.",
    )
    classes: tuple[str, ...] = option((), "Learn these classes only (cst), by name or number.", metavar="NAME,…")
    select: Select = option(
        "last",
        "Step to keep (cst): the last, the best on held-out pictures, or, as upstream, the best on test episodes.",
    )
    steps: int = option(None, "Training steps; 500 for linear and 2000 for cst by default.", at_least=1)
    batch: int = option(None, "Pictures (16) or pairs (12) in a step.", at_least=1)
    learning_rate: float = option(
        None, "Learning rate; 0.01 for linear and 0.001 for cst by default.", above=0, at_most=HIGHEST_RATE
    )
    seed: int = option(0, f"{SEED_HELP} for all draws.", at_least=0)
    keys: str = field_for_resolve(str(RAW_KEYS), is_new=True)  # how stored keys are compared
    seeing: BackboneConfig | None = option(None)  # None: stored tokens
    device: str = option("cpu", DEVICE_HELP, changes_bytes=False, is_kept=True)  # the fingerprint has its type

    def __post_init__(self) -> None:
        check_config(self)
        object.__setattr__(self, "classes", tuple(sorted(set(self.classes))))
        for name, value in DEFAULTS[self.student].items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        _refuse_options_of_other_student(self)

    @property
    def fields(self) -> Sequence[str]:
        """The features to read."""
        if self.student == "linear":
            return (ONE_BLOCK,)
        return PAIR_FIELDS if self.reads_keys else SEVERAL

    @property
    def reads_keys(self) -> bool:
        """Whether keys supervise the pairs."""
        return self.supervision == "pseudo"


def _refuse_options_of_other_student(config: TrainConfig) -> None:
    is_changed = {
        "supervision": config.supervision != "published",
        "select": config.select != "last",
        "classes": bool(config.classes),
        "device": config.device != "cpu" and config.seeing is None,
    }
    changed = [name for name, is_changed_here in is_changed.items() if is_changed_here]
    if config.student == "linear" and changed:
        raise ConfigError(
            f"--{changed[0]} is not for the student linear, which learns all published masks on a CPU; leave it out"
        )
    if config.student == "cst" and (config.hidden or config.block is not None):
        name = "hidden" if config.hidden else "block"
        raise ConfigError(f"--{name} is for the student linear; leave it out, or choose --student linear")


TRAIN = Command(
    name="train",
    makes="checkpoint",
    config=TrainConfig,
    work=".train.stage:STAGE",
    roles={
        "dataset": Role(kind="dataset", metavar="DATASET", help="Dataset artifact."),
        "tokens": replace(
            TOKENS,
            help="Stored tokens of the same pictures; by default those that the dataset was made from.",
            is_found=True,
        ),
        "images": replace(IMAGES, help="Images with masks; by default those of the dataset.", is_optional=True),
    },
    help="Learns from stored tokens (--tokens) or with the backbone in the loop (--backbone). Rerun to resume. Exits 6 "
    "if there is no ground truth to score on.",
    has_units=False,
    is_training=True,
    retired={"features": FEATURES},
)
