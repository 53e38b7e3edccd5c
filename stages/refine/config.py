"""Options of `refine`."""

from dataclasses import dataclass

from ...manifests.artifact.config import check_config, checks_itself, option
from ...manifests.errors import ConfigError
from ..choices import DEVICE_HELP
from ..command import IMAGES, Command, Role
from ..maps.background_rules import BACKGROUND_FORMS, BackgroundRule, RowThresholds, parse_background
from ..maps.class_thresholds import CLASS_THRESHOLD, Thresholds, parse_thresholds
from .presets import Preset, Refiner, find_preset, preset_background

PRESET = "preset"  # the background rule that the preset's authors use
_FORMS = f"{BACKGROUND_FORMS}, or preset"


def _parse_rule(text: str) -> BackgroundRule | str:
    """The rule; `preset` stays text until the preset is known."""
    return PRESET if text.strip() == PRESET else parse_background(text, _FORMS)


@checks_itself
@dataclass(frozen=True, slots=True, kw_only=True)
class RefineConfig:
    refiner: Refiner = option(
        "none", "Refiner; crf needs the extra of that name. Each keeps one CPU core busy: --workers N uses more."
    )
    preset: Preset | None = option(
        "",
        "Parameters of the refiner: of crf a name (irn by default); of par toco, afa or afa-coco; of guided RADIUS,EPS "
        "(15,0.001 by default); of jbu SIGMA_SPATIAL,SIGMA_RANGE[,RADIUS], in patches and in colours from 0 to 1.",
        metavar="NAME",
        parse=str,
    )
    background: BackgroundRule = option(
        RowThresholds(),
        f"Background rule: {_FORMS} (the rule of the preset's authors; for maps scaled to 0–1).",
        metavar="RULE",
        parse=_parse_rule,
    )
    # The first member says how a shell collects values.
    threshold: tuple[str | float, ...] | float | str | dict[str, float] | None = option(
        None,
        "Cut every map, or those of a class by name or index, at this score (0 to 1) instead of its own threshold; "
        "repeatable.",
        metavar=CLASS_THRESHOLD,
        is_repeated=True,
    )
    min_piece: int = option(
        0,
        "Smallest piece of a class, in pixels; smaller ones get the label around them.",
        metavar="PX",
        at_least=0,
        is_new=True,
    )
    fill_holes: int = option(
        0,
        "Largest hole inside one class to fill, in pixels of background.",
        metavar="PX",
        at_least=0,
        is_new=True,
    )
    device: str = option("cpu", f"{DEVICE_HELP} Used by par, guided and jbu.", changes_bytes=False, is_kept=True)

    def __post_init__(self) -> None:
        check_config(self)
        object.__setattr__(self, "threshold", parse_thresholds(self.threshold))
        if isinstance(self.preset, str):
            if self.refiner == "none" and (self.preset or str(self.background) == PRESET):
                raise ConfigError(
                    "--preset is for --refiner crf, par, guided or jbu; name one of them, or leave it out"
                )
            object.__setattr__(self, "preset", find_preset(self.refiner, self.preset))
        if str(self.background) == PRESET:
            object.__setattr__(self, "background", preset_background(self.preset))
        if self.threshold is not None and not isinstance(self.background, RowThresholds):
            given = self.thresholds if isinstance(self.thresholds, tuple) else (self.thresholds,)
            raise ConfigError(
                f"--threshold is {' '.join(map(str, given))} and needs the background rule rows, found "
                f"{self.background}; give one of the two"
            )

    @property
    def thresholds(self) -> Thresholds:
        """`threshold` as it is stored."""
        return parse_thresholds(self.threshold)


REFINE = Command(
    name="refine",
    makes="labels",
    config=RefineConfig,
    work=".refine.stage:STAGE",
    roles={
        "maps": Role(kind="maps", metavar="MAPS", help="Maps artifact."),
        "images": IMAGES,
        "class_maps": Role(
            kind="maps",
            flag="--class-maps",
            key="class_maps",
            metavar="MAPS",
            help="Maps of classes, which name objects that were found without a class.",
            is_optional=True,
            made_by=(),
        ),
    },
    help="Label maps have each picture's own size. Soft maps are upsampled, cut, and refined on the picture if wanted.",
)
