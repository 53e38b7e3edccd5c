"""maskmill: pseudo-masks from image-level labels, computed once and kept in files that can be checked and shared.

What is public is listed in `_HOMES` and imported at its first use, so that `import maskmill` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .manifests.artifact.pixels import Pixels as Pixels, open_pixels as open_pixels
    from .manifests.artifact.tokens import Tokens as Tokens, open_tokens as open_tokens
    from .manifests.errors import MaskmillError as MaskmillError
    from .manifests.published.dataset import (
        Dataset as Dataset,
        Labels as Labels,
        open_dataset as open_dataset,
        open_labels as open_labels,
    )
    from .pipeline.from_python import config_of as config_of, run as run, run_recipe as run_recipe
    from .pipeline.running.options import RunOptions as RunOptions
    from .stages.enhance.config import EnhanceConfig as EnhanceConfig, EnhancerConfig as EnhancerConfig
    from .stages.evaluate.config import EvaluateConfig as EvaluateConfig
    from .stages.evaluate.few_shot_config import FewShotConfig as FewShotConfig
    from .stages.extract.config import ExtractConfig as ExtractConfig
    from .stages.index.config import IndexConfig as IndexConfig
    from .stages.manifest.config import ManifestConfig as ManifestConfig
    from .stages.mask.config import FitConfig as FitConfig, MaskConfig as MaskConfig
    from .stages.pixels.config import PixelsConfig as PixelsConfig
    from .stages.pretrain.config import PretrainConfig as PretrainConfig
    from .stages.refine.config import RefineConfig as RefineConfig
    from .stages.train.config import TrainConfig as TrainConfig

__version__ = "0.1.0"

# Name → the module that defines it; configs are found in the registry of commands. A type checker reads the same names
# under TYPE_CHECKING.
_HOMES = {
    "Dataset": ".manifests.published.dataset",
    "Labels": ".manifests.published.dataset",
    "MaskmillError": ".manifests.errors",
    "Pixels": ".manifests.artifact.pixels",
    "RunOptions": ".pipeline.running.options",
    "Tokens": ".manifests.artifact.tokens",
    "config_of": ".pipeline.from_python",
    "open_dataset": ".manifests.published.dataset",
    "open_labels": ".manifests.published.dataset",
    "open_pixels": ".manifests.artifact.pixels",
    "open_tokens": ".manifests.artifact.tokens",
    "run": ".pipeline.from_python",
    "run_recipe": ".pipeline.from_python",
}

__all__ = [
    "Dataset",
    "EnhanceConfig",
    "EnhancerConfig",
    "EvaluateConfig",
    "ExtractConfig",
    "FewShotConfig",
    "FitConfig",
    "IndexConfig",
    "Labels",
    "ManifestConfig",
    "MaskConfig",
    "MaskmillError",
    "Pixels",
    "PixelsConfig",
    "PretrainConfig",
    "RefineConfig",
    "RunOptions",
    "Tokens",
    "TrainConfig",
    "__version__",
    "config_of",
    "open_dataset",
    "open_labels",
    "open_pixels",
    "open_tokens",
    "run",
    "run_recipe",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name) or _home_of_config(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(home, __name__), name)


def _home_of_config(name: str) -> str | None:
    if not name.endswith("Config"):
        return None
    from .stages.registry import COMMANDS

    return next((f".stages{entry.module}" for entry in COMMANDS.values() if entry.config == name), None)


def __dir__() -> list[str]:
    return sorted(__all__)
