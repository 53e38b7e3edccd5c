"""The recipes that ship, beside this file; and what it takes to read and run any."""

import tomllib
from importlib import resources

from ...manifests.errors import ConfigError

SHIPPED = ("voc-cst", "coco-cst", "folder", "demo")


def shipped_recipe(name: str) -> bytes:
    """The text of a recipe that ships."""
    if name not in SHIPPED:
        raise ConfigError(f"there is no recipe {name!r}; choose among {', '.join(SHIPPED)}")
    return resources.files(__name__).joinpath(f"{name}.toml").read_bytes()


def shipped_titles() -> dict[str, str]:
    return {name: str(tomllib.loads(shipped_recipe(name).decode())["title"]) for name in SHIPPED}
