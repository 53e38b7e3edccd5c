"""The recipes that ship, beside this file; and what it takes to read and run any."""

import tomllib
from importlib import resources

from ...manifests.errors import ConfigError

SHIPPED = ("voc-cst", "coco-cst", "folder", "demo")
SCRIPTS = ("reproduce-cst-pascal", "reproduce-cst-coco")  # lists of commands for a shell


def recipe_file(name: str) -> str:
    """What it is called beside this file."""
    if name not in (*SHIPPED, *SCRIPTS):
        raise ConfigError(f"there is no recipe {name!r}; choose among {', '.join((*SHIPPED, *SCRIPTS))}")
    return f"{name}.sh" if name in SCRIPTS else f"{name}.toml"


def read_shipped_recipe(name: str) -> bytes:
    """The text of a recipe that ships."""
    return resources.files(__name__).joinpath(recipe_file(name)).read_bytes()


def recipe_titles() -> dict[str, str]:
    return {name: _title(name) for name in (*SHIPPED, *SCRIPTS)}


def _title(name: str) -> str:
    text = read_shipped_recipe(name).decode()
    return text.partition("\n")[0].removeprefix("# ") if name in SCRIPTS else str(tomllib.loads(text)["title"])
