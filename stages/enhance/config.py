"""Options of `enhance fit` and `enhance apply`."""

from dataclasses import dataclass
from typing import Literal

from ...manifests.artifact.config import check_config, checks_itself, field_for_resolve, option
from ...manifests.errors import ConfigError
from ..choices import GT_LIST_HELP, GT_PER_CLASS_HELP, SEED_HELP
from ..command import IMAGES, Command, Role
from ..maps.threshold_rules import THRESHOLD_FORMS, Constant, ThresholdRule, parse_threshold

Loss = Literal["bce", "bce+dice", "balanced", "balanced+dice"]


@checks_itself
@dataclass(frozen=True, slots=True, kw_only=True)
class EnhancerConfig:
    gt_fraction: float = option(
        0.0, "Learn from this share of each class's pictures with masks, such as 0.1.", at_least=0, at_most=1
    )
    gt_per_class: int = option(0, f"{GT_PER_CLASS_HELP}.", metavar="N", at_least=0)
    gt_list: tuple[str, ...] = option((), f"{GT_LIST_HELP}.", metavar="FILE", is_list_file=True)
    classes: tuple[str, ...] = option((), "Learn from these classes only, by name or number.", metavar="NAME,…")
    cross_fit: int = option(
        0, "Number of cross-fit folds: each network is held out from one part of the drawn pictures.", metavar="N"
    )
    seed: int = option(0, f"{SEED_HELP} for drawing pictures and fitting.", at_least=0)
    loss: Loss = field_for_resolve("balanced")  # this and the next were chosen by measuring, and are not options
    cells: int = field_for_resolve(1)  # per patch, along each side

    def __post_init__(self) -> None:
        check_config(self)
        object.__setattr__(self, "gt_list", tuple(sorted(set(self.gt_list))))
        object.__setattr__(self, "classes", tuple(sorted(set(self.classes))))
        if sum(map(bool, (self.gt_fraction, self.gt_per_class, self.gt_list))) != 1:
            raise ConfigError(
                "the enhancer needs masks to learn from; give exactly one of --gt-fraction (such as 0.1), "
                "--gt-per-class (such as 5) and --gt-list (a file of ids)"
            )
        if self.cross_fit < 0 or self.cross_fit == 1:
            raise ConfigError(f"--cross-fit is {self.cross_fit}, expected 2 or more; leave it out for one network")


@checks_itself
@dataclass(frozen=True, slots=True, kw_only=True)
class EnhanceConfig:
    threshold: ThresholdRule = option(
        Constant(0.5),
        f"Threshold kept with each map, which refine cuts at: {THRESHOLD_FORMS}.",
        metavar="RULE",
        parse=parse_threshold,
    )

    def __post_init__(self) -> None:
        check_config(self)


ENHANCER = Command(
    name="enhancer",
    makes="checkpoint",
    config=EnhancerConfig,
    work=".enhance.enhancer_fit:FIT",
    roles={"maps": Role(kind="maps", metavar="MAPS", help="Maps artifact made with --per-head."), "images": IMAGES},
    help="A fifth of the drawn pictures decides when to stop; all other pictures with a mask score the result. Exits 6 "
    "if the maps do not become better. Rerun to resume.",
    has_units=False,
    is_training=True,
)
ENHANCE = Command(
    name="enhance",
    makes="maps",
    config=EnhanceConfig,
    work=".enhance.stage:STAGE",
    roles={
        "maps": Role(kind="maps", metavar="MAPS", help="Maps artifact of the kind the enhancer was fitted on."),
        "images": IMAGES,
        "model": Role(
            kind="checkpoint",
            key="model",
            metavar="ENHANCER",
            help="Checkpoint written by `enhance fit`.",
            made_by=("enhancer",),
        ),
    },
)
