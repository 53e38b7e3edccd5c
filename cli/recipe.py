"""`maskmill recipe …`: the recipes that ship."""

import click

from ..manifests.errors import ConfigError
from ..manifests.files import atomic
from ..manifests.files.place import split
from ..pipeline.recipes import SCRIPTS, read_shipped_recipe, recipe_titles
from .tables import print_table


@click.group()
def recipe() -> None:
    """List, show and copy the recipes that ship."""


@recipe.command("list")
def list_recipes() -> None:
    """List the names and titles of all recipes."""
    print_table((), recipe_titles().items())


@recipe.command()
@click.argument("name", help="Recipe, as `recipe list` names it.")
def show(name: str) -> None:
    """Print a recipe."""
    click.echo(read_shipped_recipe(name).decode(), nl=False)


@recipe.command()
@click.argument("name", help="Recipe, as `recipe list` names it.")
@click.argument("file", help="File to write.")
def write(name: str, file: str) -> None:
    """Write a recipe to FILE; edit the paths in it before you run it."""
    text = read_shipped_recipe(name)
    folder, base = split(file)
    if folder.exists(base):
        raise ConfigError(f"{folder.path(base)} is there already; choose another name")
    atomic.write(folder, base, text)
    then = f"sh {file}" if name in SCRIPTS else f"maskmill run {file}"
    click.echo(f"recipe: {name} → {folder.path(base)}; edit its paths, then {then}")
