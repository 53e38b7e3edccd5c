"""What each refiner runs with: its preset, its device, and the background rule."""

from ...manifests.errors import ConfigError
from .config import RefineConfig
from .presets import SMOOTHERS, CrfPreset
from .refinement import Refinement


def check_device(config: RefineConfig) -> None:
    if config.device == "cpu":
        return
    if config.refiner not in SMOOTHERS:
        raise ConfigError(
            f"device is {config.device}, and the refiner {config.refiner} runs on the CPU alone; leave --device out"
        )
    from ..vision.backbone import find_device  # timm takes a second

    find_device(config.device)


def refinement_of(config: RefineConfig) -> Refinement:
    preset = config.preset
    crf = preset if isinstance(preset, CrfPreset) else None
    smoother = None if isinstance(preset, CrfPreset) else preset
    return Refinement(background=config.background, crf=crf, smoother=smoother, device=config.device)
