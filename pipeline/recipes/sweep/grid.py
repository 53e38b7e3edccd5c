"""The combinations of a sweep: the product of all its lists, each combination a recipe that has been checked.

How a list is written is this project's own: `refine.threshold=0.3,0.4`, each value read as `run --set` reads one; where
a value has commas in it the values are a TOML list, `refine.preset=["15,0.001", "toco"]`.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from ....manifests.errors import ConfigError, MaskmillError
from ..recipe import Recipe, Setting, parse_setting, toml_or_text, value_text
from ..steps import EXTRACT

FIELDS = "fields"
Settings = Sequence[Setting]
ReadRecipe = Callable[[Settings], Recipe]


@dataclass(frozen=True, slots=True)
class Combination:
    number: int  # from 1
    settings: Settings  # those that have other values elsewhere in the grid
    recipe: Recipe

    def __str__(self) -> str:
        return " ".join(map(str, self.settings)) or "the recipe as it is"


@dataclass(frozen=True, slots=True)
class Axes:
    """What the command line says."""

    swept: Sequence[Settings]  # each a key with its values
    fixed: Settings  # keys of one value

    def __len__(self) -> int:
        return math.prod(map(len, self.swept))


def parse_axes(texts: Sequence[str]) -> Axes:
    """Raises ConfigError with everything that is wrong, a line each."""
    axes: dict[str, Settings] = {}
    mistakes: list[str] = []
    for text in texts:
        try:
            setting = parse_setting(text)
            if setting.name in axes:
                raise ConfigError(f"--set {setting.name} is there twice; put all its values into one list")
            axes[setting.name] = [replace(setting, value=value) for value in _values(setting)]
        except ConfigError as error:
            mistakes.append(str(error))
    if mistakes:
        raise ConfigError("\n  ".join(mistakes))
    return Axes(
        [each for each in axes.values() if len(each) > 1], [each[0] for each in axes.values() if len(each) == 1]
    )


def build_grid(axes: Axes, read: ReadRecipe) -> list[Combination]:
    """Every combination, the last key varying fastest; raises what is wrong with any of them before one is run."""
    grid: list[Combination] = []
    refused: dict[str, list[Settings]] = {}
    errors: dict[str, MaskmillError] = {}
    for settings in product(*axes.swept):
        try:
            grid.append(Combination(len(grid) + 1, settings, read([*axes.fixed, *settings])))
        except MaskmillError as error:
            refused.setdefault(str(error), []).append(settings)
            errors.setdefault(str(error), error)
    if refused:
        lines = [_mistake_text(message, found, len(axes)) for message, found in refused.items()]
        raise type(next(iter(errors.values())))("\n  ".join(lines) + ("" if grid else _hint(axes, read)))
    _refuse_twice(grid)
    return _with_common_fields(grid)


def _values(setting: Setting) -> Sequence[Any]:
    text: str = setting.value
    if not text.strip():
        return [""]
    values = toml_or_text(text)
    if not isinstance(values, list):
        values = toml_or_text(f"[{text}]")  # such as 0.3,0.4 or "a,b","c"
    if not isinstance(values, list) or text.rstrip().endswith(","):
        values = [toml_or_text(part.strip()) for part in text.split(",")]
        if len(values) > 1 and "" in values:
            raise ConfigError(
                f'--set {setting} has nothing between two commas; write ["", "text"] where empty text is meant'
            )
    if not values:
        raise ConfigError(f"--set {setting} is an empty list; give it values, such as {setting.name}=[0.3, 0.4]")
    seen = [exact(value) for value in values]
    twice = next((value for at, value in enumerate(values) if seen[at] in seen[:at]), None)
    if twice is not None:
        raise ConfigError(f"--set {setting.name} has {value_text(twice)} twice; leave one out")
    return values


def exact(value: Any) -> str:
    """In which 1, true and "1" differ."""
    return json.dumps(value, sort_keys=True, default=str)


def _mistake_text(message: str, found: Sequence[Settings], all_of_them: int) -> str:
    """A mistake, by the settings that all the combinations have which it is made in."""
    if len(found) == all_of_them:
        return message
    common = [each for each in found[0] if all(each in settings for settings in found)]
    if common:
        return f"with {' '.join(map(str, common))}: {message}"
    others = len(found) - 1
    return f"with {' '.join(map(str, found[0]))} and {others} other combination{'s' if others > 1 else ''}: {message}"


def _hint(axes: Axes, read: ReadRecipe) -> str:
    """Where no combination will do: a key's values may have been meant as one."""
    for each in axes.swept:
        others = [one[0] for one in axes.swept if one is not each]
        values = [one.value for one in each]
        for joined in (",".join(map(value_text, values)), values):
            try:
                read([*axes.fixed, *others, replace(each[0], value=joined)])
            except MaskmillError:
                continue
            told = replace(each[0], value=[joined])
            return f"\n  a value that has commas or is a list itself stands in a list of values: {told}"
    return ""


def _refuse_twice(grid: Sequence[Combination]) -> None:
    """Values may differ as they are written and not in what they mean."""
    known: dict[str, Combination] = {}
    for each in grid:
        same = known.setdefault(exact(each.recipe.tables), each)
        if same is not each:
            raise ConfigError(f"{same} and {each} ask for the same; leave one out")


def _with_common_fields(grid: Sequence[Combination]) -> list[Combination]:
    """Tokens that several combinations read are extracted with the fields of all of them: were some added later, what
    was made before would be of tokens that have changed."""
    fields: dict[str, dict[str, str]] = {}  # extraction → field → as it is asked for
    for each in grid:
        for _, table in _extractions(each.recipe):
            known = fields.setdefault(_extraction(each.recipe, table), {})
            for one in table[FIELDS]:
                name = one.partition(":")[0].strip()
                before = known.setdefault(name, one.strip())
                if before != one.strip():
                    known[name] = _wider(each, name, before, one.strip())
    return [_with_fields(each, fields) for each in grid]


def _wider(combination: Combination, name: str, *asked: str) -> str:
    if f"{name}:all" not in asked:
        raise ConfigError(
            f"{combination} wants other blocks of {name} than those before it ({' and '.join(asked)}); name in "
            f'[extract] what all of them read, such as fields = ["{name}:all"]'
        )
    return f"{name}:all"


def _with_fields(combination: Combination, fields: Mapping[str, Mapping[str, str]]) -> Combination:
    recipe = combination.recipe
    wider = {
        name: {**table, FIELDS: tuple(fields[_extraction(recipe, table)].values())}
        for name, table in _extractions(recipe)
    }
    return replace(combination, recipe=replace(recipe, tables={**recipe.tables, **wider}))


def _extractions(recipe: Recipe) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Those that say which fields they want."""
    for name, table in recipe.tables.items():
        if name.startswith(EXTRACT) and FIELDS in table:
            yield name, table


def _extraction(recipe: Recipe, table: Mapping[str, Any]) -> str:
    """What else decides where its tokens lie."""
    return exact([recipe.tables.get("index"), {key: value for key, value in table.items() if key != FIELDS}])
