"""Options of `mask` and `fit`."""

from collections.abc import Mapping
from dataclasses import dataclass

from ...manifests.artifact.config import check_config, checks_itself, option
from ...manifests.errors import ConfigError
from ..choices import GT_LIST_HELP, GT_PER_CLASS_HELP, SEED_HELP, Side
from ..command import IMAGES, Command, Role
from ..maps.threshold_rules import THRESHOLD_FORMS, ThresholdRule, parse_threshold
from ..vision.feature_forms import FEATURE_FORMS, RAW_KEYS, Feature, parse_feature

ALL, OWN = "all", "0"  # supports: all pictures of the class; the picture itself
TOKENS, VIEW = "tokens", "view"  # roles: the first view, and each further one with its number
PUBLISHED_SIDES: Mapping[str, Side] = {"ncut": "largest", "maskcut": "corners"}
MAX_PROPAGATE = 0.999  # the equations of a share of 1 have no solution, and rounding shows shortly before
FITTED_NAMES = "incontext or found"
METHOD_NAMES = "cst, cls-attention, ncut, maskcut, incontext or found"
FEATURE_HELP = (
    f"Compare patches by {FEATURE_FORMS}; keys have no bias unless raw. By the backbone's family by default: see "
    "`maskmill doctor --backbone`."
)


def parse_supports(text: str) -> str:
    """ "all", or a number without leading zeros."""
    if text == ALL or (text.isascii() and text.isdigit()):
        return text if text == ALL else str(int(text))
    raise ConfigError(f"supports is {text!r}, expected a number from 0, or all")


@checks_itself
@dataclass(frozen=True, slots=True, kw_only=True)
class MaskConfig:
    method: str = option("cst", f"Mask method: {METHOD_NAMES}.", metavar="M")
    # Once resolved: 0 for rows without class; a number or "all" for rows of a class.
    supports: str = option(
        None,
        "Supports of cst: K or all look for each class of a picture with other pictures of that class (8 by default); "
        "0 looks for what stands out by the picture's own class query.",
        metavar="K|all",
        parse=parse_supports,
    )
    seed: int = option(0, f"{SEED_HELP} for choosing supports.")
    threshold: ThresholdRule = option(
        None,
        f"Threshold kept with each map, which refine cuts at: {THRESHOLD_FORMS}; the method's own by default.",
        metavar="RULE",
        parse=parse_threshold,
    )
    per_head: bool = option(False, "Also keep one map a head, which enhance reads.")
    instances: int = option(None, "Objects to look for in a picture (maskcut; 3 by default).", metavar="N")
    tau: float | None = option(
        None,
        "Cosine above which patches agree (ncut, maskcut and incontext; 0.2, 0.15 and 0.6 by default; ncut and maskcut "
        "0.4 for tokens).",
        metavar="COSINE",
    )
    feature: Feature | None = option(
        None,
        f"{FEATURE_HELP} With --model, that of the checkpoint.",
        metavar="FEATURE",
        parse=parse_feature,
        is_new=True,
        before=lambda config: RAW_KEYS,
    )
    side: Side | None = option(
        None,
        "Side of a cut that is the object (ncut and maskcut): largest, with the largest entry, or corners, without the "
        "picture's corners; by the backbone's family by default.",
        metavar="SIDE",
        is_new=True,
        before=lambda config: PUBLISHED_SIDES.get(config.method),
    )
    propagate: float = option(
        0.0,
        "Spread the scores of each map over patches of the picture that are alike (see --feature): the share of a "
        "score that comes from others, 0 (off) to 0.999. Maps of heads stay as they are.",
        metavar="SHARE",
        at_least=0,
        at_most=MAX_PROPAGATE,
        is_new=True,
    )

    def __post_init__(self) -> None:
        check_config(self)


@checks_itself
@dataclass(frozen=True, slots=True, kw_only=True)
class FitConfig:
    method: str = option(help=f"Mask method to fit: {FITTED_NAMES}.", metavar="M")
    gt_per_class: int = option(0, f"{GT_PER_CLASS_HELP} (incontext).", metavar="N", at_least=0)
    gt_list: tuple[str, ...] = option((), f"{GT_LIST_HELP} (incontext).", metavar="FILE", is_list_file=True)
    feature: Feature | None = option(
        None, f"{FEATURE_HELP} `mask` uses the same.", metavar="FEATURE", parse=parse_feature, is_new=True
    )
    seed: int = option(0, f"{SEED_HELP} for drawing pictures.", at_least=0)

    def __post_init__(self) -> None:
        check_config(self)
        object.__setattr__(self, "gt_list", tuple(sorted(set(self.gt_list))))
        if self.gt_per_class and self.gt_list:
            raise ConfigError("give one of --gt-per-class and --gt-list, not both")


MASK = Command(
    name="mask",
    makes="maps",
    config=MaskConfig,
    work=".mask.stage:STAGE",
    roles={
        TOKENS: Role(
            kind="tokens", metavar="TOKENS...", help="Tokens artifact; further ones are views of it.", several=VIEW
        ),
        "images": IMAGES,
        "model": Role(
            kind="checkpoint",
            flag="--model",
            key="model",
            metavar="CHECKPOINT",
            help="Checkpoint written by `maskmill fit`.",
            is_optional=True,
            made_by=("fit",),
        ),
    },
    help="One map a picture, or a picture and class. Several TOKENS are views of the same pictures, mirrored or of "
    "other sizes; their maps are merged on the grid of the first.",
)
FIT = Command(
    name="fit",
    makes="checkpoint",
    config=FitConfig,
    work=".mask.method_fit:FIT",
    roles={"tokens": Role(kind="tokens", metavar="TOKENS", help="Tokens artifact."), "images": IMAGES},
    help="The checkpoint is what `mask --model` takes.",
    has_units=False,
)
