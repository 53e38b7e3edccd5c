"""The combinations of a sweep: the product of all its lists of values, each checked as a recipe.

The syntax of a list is this project's own: `refine.threshold=0.3,0.4`, with each value read as `run --set` reads one.
If a value contains commas, write a TOML list: `refine.preset=["15,0.001", "toco"]`.
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
    settings: Settings  # those that vary in the grid
    recipe: Recipe

    def __str__(self) -> str:
        return " ".join(map(str, self.settings)) or "the recipe as it is"


@dataclass(frozen=True, slots=True)
class Axes:
    swept: Sequence[Settings]  # each a key with its values
    fixed: Settings  # keys of one value

    def __len__(self) -> int:
        return math.prod(map(len, self.swept))


def parse_axes(texts: Sequence[str]) -> Axes:
    """Raises ConfigError with one line for each mistake."""
    axes: dict[str, Settings] = {}
    mistakes: list[str] = []
    for text in texts:
        try:
            setting = parse_setting(text)
            if setting.name in axes:
                raise ConfigError(f"--set {setting.name} is given twice; put all its values into one list")
            axes[setting.name] = [replace(setting, value=value) for value in _values(setting)]
        except ConfigError as error:
            mistakes.append(str(error))
    if mistakes:
        raise ConfigError("\n  ".join(mistakes))
    return Axes(
        [axis for axis in axes.values() if len(axis) > 1], [axis[0] for axis in axes.values() if len(axis) == 1]
    )


def build_grid(axes: Axes, read: ReadRecipe) -> list[Combination]:
    """Every combination, with the last key varying fastest. Raises the mistakes of all combinations before any runs."""
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
        lines = [_mistake_text(message, combinations, len(axes)) for message, combinations in refused.items()]
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
                f'--set {setting} has an empty value between two commas; for an empty text write ["", "text"]'
            )
    if not values:
        raise ConfigError(f"--set {setting} is an empty list; give it values, such as {setting.name}=[0.3, 0.4]")
    seen = [exact(value) for value in values]
    twice = next((value for at, value in enumerate(values) if seen[at] in seen[:at]), None)
    if twice is not None:
        raise ConfigError(f"--set {setting.name} has {value_text(twice)} twice; leave one out")
    return values


def exact(value: Any) -> str:
    """A text that differs for 1, true and "1"."""
    return json.dumps(value, sort_keys=True, default=str)


def _mistake_text(message: str, combinations: Sequence[Settings], total: int) -> str:
    """A mistake, with the settings that all combinations with this mistake share."""
    if len(combinations) == total:
        return message
    first, others = combinations[0], len(combinations) - 1
    common = [setting for setting in first if all(setting in settings for settings in combinations)]
    if common:
        return f"with {' '.join(map(str, common))}: {message}"
    return f"with {' '.join(map(str, first))} and {others} other combination{'s' if others > 1 else ''}: {message}"


def _hint(axes: Axes, read: ReadRecipe) -> str:
    """If no combination is valid, the list of a key may have been meant as one value."""
    for axis in axes.swept:
        others = [other[0] for other in axes.swept if other is not axis]
        values = [setting.value for setting in axis]
        for joined in (",".join(map(value_text, values)), values):
            try:
                read([*axes.fixed, *others, replace(axis[0], value=joined)])
            except MaskmillError:
                continue
            return (
                f"\n  put a value that has commas or is a list itself into a list: {replace(axis[0], value=[joined])}"
            )
    return ""


def _refuse_twice(grid: Sequence[Combination]) -> None:
    """Refuses combinations that mean the same although their values are written differently."""
    known: dict[str, Combination] = {}
    for combination in grid:
        first = known.setdefault(exact(combination.recipe.tables), combination)
        if first is not combination:
            raise ConfigError(f"{first} and {combination} mean the same; leave one out")


def _with_common_fields(grid: Sequence[Combination]) -> list[Combination]:
    """Extracts tokens that several combinations read with the fields of all of them. If fields were added later, the
    artifacts made before would count as made from changed tokens."""
    fields: dict[str, dict[str, str]] = {}  # extraction → field → as written
    for combination in grid:
        for _, table in _extractions(combination.recipe):
            known = fields.setdefault(_extraction(combination.recipe, table), {})
            for text in map(str.strip, table[FIELDS]):
                name = text.partition(":")[0].strip()
                before = known.setdefault(name, text)
                if before != text:
                    known[name] = _wider(combination, name, before, text)
    return [_with_fields(combination, fields) for combination in grid]


def _wider(combination: Combination, name: str, *requested: str) -> str:
    if f"{name}:all" not in requested:
        raise ConfigError(
            f"{combination} reads other blocks of {name} than the combinations before it ({' and '.join(requested)}); "
            f'name in [extract] what all of them read, such as fields = ["{name}:all"]'
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
    """The extract tables with a list of fields."""
    for name, table in recipe.tables.items():
        if name.startswith(EXTRACT) and FIELDS in table:
            yield name, table


def _extraction(recipe: Recipe, table: Mapping[str, Any]) -> str:
    """Everything but the fields that decides which tokens artifact it makes."""
    return exact([recipe.tables.get("index"), {key: value for key, value in table.items() if key != FIELDS}])
