"""What a training of a student is asked for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ...manifests.artifact.fingerprint import setting
from ...manifests.errors import ConfigError
from ..students.features import LAST, PAIR_FIELDS, SEVERAL, BackboneConfig

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


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    student: Student
    hidden: int  # of linear: values between two layers; 0: one layer
    supervision: Supervision
    classes: tuple[str, ...]  # names or numbers, of those that are learned; all where there are none
    select: Select
    steps: int
    batch: int
    learning_rate: float
    seed: int
    seeing: BackboneConfig | None  # the backbone that is run meanwhile; None: tokens are read
    device: str = setting(default="cpu", changes_bytes=False, is_kept=True)  # its type is in the fingerprint

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


def train_config(
    student: Student,
    *,
    hidden: int = 0,
    supervision: Supervision = "published",
    classes: Sequence[str] = (),
    select: Select = "last",
    steps: int | None = None,
    batch: int | None = None,
    learning_rate: float | None = None,
    seed: int = 0,
    device: str = "cpu",
) -> TrainConfig:
    """What a user asks for, on stored tokens; raises ConfigError for what cannot work."""
    defaults = DEFAULTS[student]
    config = TrainConfig(
        student=student,
        hidden=hidden,
        supervision=supervision,
        classes=tuple(sorted(set(classes))),
        select=select,
        steps=defaults["steps"] if steps is None else steps,
        batch=defaults["batch"] if batch is None else batch,
        learning_rate=defaults["learning_rate"] if learning_rate is None else learning_rate,
        seed=seed,
        seeing=None,
        device=device,
    )
    for name, least in {"steps": 1, "batch": 1, "hidden": 0, "seed": 0}.items():
        if getattr(config, name) < least:
            raise ConfigError(f"{name} is {getattr(config, name)} and must be at least {least}")
    if not 0 < config.learning_rate <= HIGHEST_RATE:
        raise ConfigError(f"learning-rate is {config.learning_rate:g} and must be above 0 and at most {HIGHEST_RATE:g}")
    _refuse_other_student_settings(config)
    return config


def _refuse_other_student_settings(config: TrainConfig) -> None:
    """What only one of the students knows."""
    of_cst = {"supervision": config.supervision != "published", "select": config.select != "last"}
    of_cst |= {"classes": bool(config.classes), "device": config.device != "cpu"}
    asked = [name for name, is_asked in of_cst.items() if is_asked]
    if config.student == "linear" and asked:
        raise ConfigError(
            f"{asked[0]} is not for the student linear, which learns all published masks on a CPU; leave it out"
        )
    if config.student == "cst" and config.hidden:
        raise ConfigError("hidden is of the student linear; leave it out, or choose that one")
