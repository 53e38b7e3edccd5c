"""The refiners by name, and what each makes of its preset. What runs is what was named: there is none that chooses."""

from typing import Literal, get_args

from ...manifests.errors import ConfigError
from ..maps.backgrounds import parse_background
from .crf import require_crf
from .guided import GuidedPreset, parse_guided
from .presets import CrfPreset, find_preset
from .refinement import Refinement
from .smoothing import Smoother, find_par_preset

Refiner = Literal["none", "crf", "par", "guided"]
REFINERS: tuple[Refiner, ...] = get_args(Refiner)
SMOOTHERS: tuple[Refiner, ...] = ("par", "guided")  # which torch computes, on a GPU if wanted
_FIRST_CRF = "irn"


def parse_preset(refiner: Refiner, text: str) -> CrfPreset | Smoother | None:
    """The preset that a user wrote, or the refiner's first; raises ConfigError for what cannot work."""
    match refiner:
        case "none":
            return None
        case "crf":
            require_crf()
            return find_preset(text or _FIRST_CRF)
        case "par":
            return find_par_preset(text)
        case "guided":
            return parse_guided(text)


def preset_text(preset: CrfPreset | Smoother | None) -> str:
    """In the one spelling that a config keeps."""
    if preset is None:
        return ""
    return str(preset) if isinstance(preset, GuidedPreset) else preset.name


def background_text(preset: CrfPreset | Smoother | None) -> str:
    """The background rule that the preset's authors use."""
    if preset is None or isinstance(preset, GuidedPreset):
        raise ConfigError("the background rule is preset, and none belongs to this refiner; name one, such as rows")
    return str(preset.background)


def check_device(refiner: Refiner, device: str) -> None:
    if device == "cpu":
        return
    if refiner not in SMOOTHERS:
        raise ConfigError(f"device is {device}, and the refiner {refiner} runs on the CPU alone; leave the device out")
    from ..vision.backbone import find_device  # timm takes a second

    find_device(device)


def refinement_of(refiner: Refiner, preset: str, background: str, device: str) -> Refinement:
    found = parse_preset(refiner, preset)
    crf = found if isinstance(found, CrfPreset) else None
    smoother = None if isinstance(found, CrfPreset) else found
    return Refinement(background=parse_background(background), crf=crf, smoother=smoother, device=device)
