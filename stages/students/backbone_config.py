"""The options of a backbone that runs while a student learns or answers, as in `extract`."""

from dataclasses import dataclass

from ...manifests.artifact.config import check_config, checks_itself, field_for_resolve, option
from ..choices import SIZE_HELP, WEIGHTS_HELP, Fit, Positions, Size
from ..vision.feature_forms import RAW_KEYS


@checks_itself
@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneConfig:
    backbone: str = option(
        help="Run this backbone of timm in the loop, instead of reading stored tokens.", metavar="NAME"
    )
    weights_sha256: str = field_for_resolve("")
    image_size: Size = option(None, f"With --backbone: {SIZE_HELP[0].lower()}{SIZE_HELP[1:]}", metavar="S|HxW")
    fit: Fit = option("squash", "With --backbone: squash the pictures, or keep the aspect ratio and pad.")
    positions: Positions = field_for_resolve()
    weights: str = option(
        "",
        f"With --backbone: {WEIGHTS_HELP.removeprefix('Weights: ')}",
        metavar="FILE",
        path="weights",
        changes_bytes=False,
    )
    keys: str = field_for_resolve(str(RAW_KEYS), is_new=True)  # how they are compared
    device: str = field_for_resolve("cpu", changes_bytes=False)

    def __post_init__(self) -> None:
        check_config(self)
