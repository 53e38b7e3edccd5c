"""Checks the device of a refiner, and collects its preset, device and background rule."""

from ...manifests.errors import ConfigError
from .config import RefineConfig
from .presets import SMOOTHERS, CrfPreset
from .refinement import Refinement


def check_device(config: RefineConfig) -> None:
    if config.device == "cpu":
        return
    if config.refiner not in SMOOTHERS:
        raise ConfigError(
            f"device is {config.device}, but the refiner {config.refiner} runs on the CPU only; leave --device out"
        )
    from ..vision.backbone import find_device  # timm takes a second

    find_device(config.device)


def refinement_of(config: RefineConfig) -> Refinement:
    preset = config.preset
    if isinstance(preset, CrfPreset):
        return Refinement(background=config.background, crf=preset, device=config.device)
    return Refinement(background=config.background, smoother=preset, device=config.device)
