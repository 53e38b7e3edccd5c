"""Checks the device of a refiner, and collects its preset, device and background rule."""

from ...manifests.errors import ConfigError
from .config import RefineConfig
from .presets import TORCH_REFINERS, CrfPreset, GuidedPreset, JointBilateralPreset, ParPreset
from .refinement import Refinement


def check_device(config: RefineConfig) -> None:
    if config.device == "cpu":
        return
    if config.refiner not in TORCH_REFINERS:
        raise ConfigError(
            f"device is {config.device}, but the refiner {config.refiner} runs on the CPU only; leave --device out"
        )
    from ..vision.backbone import find_device  # timm takes a second

    find_device(config.device)


def refinement_of(config: RefineConfig) -> Refinement:
    preset = config.preset
    return Refinement(
        background=config.background,
        crf=preset if isinstance(preset, CrfPreset) else None,
        upsampler=preset if isinstance(preset, JointBilateralPreset) else None,
        smoother=preset if isinstance(preset, ParPreset | GuidedPreset) else None,
        device=config.device,
        min_piece=config.min_piece,
        fill_holes=config.fill_holes,
    )
