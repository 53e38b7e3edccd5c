"""Recipes: those that ship, beside this file, and the code that reads and runs any."""

import tomllib
from importlib import resources

from ...manifests.errors import ConfigError

SHIPPED = ("voc-cst", "coco-cst", "folder", "demo")
SCRIPTS = ("reproduce-cst-pascal", "reproduce-cst-coco")  # shell scripts


def recipe_file(name: str) -> str:
    if name not in (*SHIPPED, *SCRIPTS):
        raise ConfigError(f"unknown recipe {name!r}; choose one of {', '.join((*SHIPPED, *SCRIPTS))}")
    return f"{name}.sh" if name in SCRIPTS else f"{name}.toml"


def read_shipped_recipe(name: str) -> bytes:
    return resources.files(__name__).joinpath(recipe_file(name)).read_bytes()


def recipe_titles() -> dict[str, str]:
    return {name: _title(name) for name in (*SHIPPED, *SCRIPTS)}


def _title(name: str) -> str:
    text = read_shipped_recipe(name).decode()
    return text.partition("\n")[0].removeprefix("# ") if name in SCRIPTS else str(tomllib.loads(text)["title"])
