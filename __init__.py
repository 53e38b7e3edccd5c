"""maskmill: pseudo-masks from image-level labels, computed once and kept in files that can be checked and shared.

What is public is listed in `_HOME` and imported at its first use, so that `import maskmill` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .manifests.artifact.pixels import Pixels as Pixels, open_pixels as open_pixels
    from .manifests.artifact.tokens import Tokens as Tokens, open_tokens as open_tokens
    from .manifests.published.dataset import Labels as Labels, open_labels as open_labels
    from .pipeline.from_python import config_of as config_of, run as run, run_recipe as run_recipe
    from .pipeline.running.job import RunOptions as RunOptions
    from .stages.enhance.enhancer_fit import EnhancerConfig as EnhancerConfig
    from .stages.enhance.stage import EnhanceConfig as EnhanceConfig
    from .stages.evaluate.few_shot_config import FewShotConfig as FewShotConfig
    from .stages.evaluate.stage import EvaluateConfig as EvaluateConfig
    from .stages.extract.stage import ExtractConfig as ExtractConfig
    from .stages.index.stage import IndexConfig as IndexConfig
    from .stages.manifest.stage import ManifestConfig as ManifestConfig
    from .stages.mask.method_fit import FitConfig as FitConfig
    from .stages.mask.stage import MaskConfig as MaskConfig
    from .stages.pixels.stage import PixelsConfig as PixelsConfig
    from .stages.pretrain.config import PretrainConfig as PretrainConfig
    from .stages.refine.stage import RefineConfig as RefineConfig
    from .stages.train.config import TrainConfig as TrainConfig

__version__ = "0.1.0"

# Name → the module that defines it. A type checker reads the same names under TYPE_CHECKING.
_HOME = {
    "EnhanceConfig": ".stages.enhance.stage",
    "EnhancerConfig": ".stages.enhance.enhancer_fit",
    "EvaluateConfig": ".stages.evaluate.stage",
    "ExtractConfig": ".stages.extract.stage",
    "FewShotConfig": ".stages.evaluate.few_shot_config",
    "FitConfig": ".stages.mask.method_fit",
    "IndexConfig": ".stages.index.stage",
    "Labels": ".manifests.published.dataset",
    "ManifestConfig": ".stages.manifest.stage",
    "MaskConfig": ".stages.mask.stage",
    "Pixels": ".manifests.artifact.pixels",
    "PixelsConfig": ".stages.pixels.stage",
    "PretrainConfig": ".stages.pretrain.config",
    "RefineConfig": ".stages.refine.stage",
    "RunOptions": ".pipeline.running.job",
    "Tokens": ".manifests.artifact.tokens",
    "TrainConfig": ".stages.train.config",
    "config_of": ".pipeline.from_python",
    "open_labels": ".manifests.published.dataset",
    "open_pixels": ".manifests.artifact.pixels",
    "open_tokens": ".manifests.artifact.tokens",
    "run": ".pipeline.from_python",
    "run_recipe": ".pipeline.from_python",
}

__all__ = [
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
    "Pixels",
    "PixelsConfig",
    "PretrainConfig",
    "RefineConfig",
    "RunOptions",
    "Tokens",
    "TrainConfig",
    "__version__",
    "config_of",
    "open_labels",
    "open_pixels",
    "open_tokens",
    "run",
    "run_recipe",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name], __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
