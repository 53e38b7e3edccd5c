"""maskmill: pseudo-masks from image-level labels, computed once and kept in files that can be checked and shared.

What is public is listed in `_HOME` and imported at its first use, so that `import maskmill` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .manifests.labels import Labels as Labels, open_labels as open_labels
    from .manifests.pixels import Pixels as Pixels, open_pixels as open_pixels
    from .manifests.tokens import Tokens as Tokens, open_tokens as open_tokens
    from .pipeline.from_python import run as run, run_recipe as run_recipe
    from .pipeline.job import RunOptions as RunOptions

__version__ = "0.1.0"

# Name → the module that defines it. A type checker reads the same names under TYPE_CHECKING.
_HOME = {
    "Labels": ".manifests.labels",
    "Pixels": ".manifests.pixels",
    "RunOptions": ".pipeline.job",
    "Tokens": ".manifests.tokens",
    "open_labels": ".manifests.labels",
    "open_pixels": ".manifests.pixels",
    "open_tokens": ".manifests.tokens",
    "run": ".pipeline.from_python",
    "run_recipe": ".pipeline.from_python",
}

__all__ = [
    "Labels",
    "Pixels",
    "RunOptions",
    "Tokens",
    "__version__",
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
