"""The shell commands that make artifacts, generated from their records."""

import dataclasses
import logging
import os
import typing
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import click

from ..manifests.artifact.config import Option, build_config, flag, layouts_of, options_of
from ..manifests.artifact.values import is_list
from ..manifests.errors import ConfigError
from ..manifests.files.place import place
from ..stages.command import Command as Record, Role
from ..stages.registry import GROUPS, Entry
from .help import Group, Lazy, SectionedCommand
from .options import PLAN_ONLY, run_options, stage_running
from .parameters import click_option


def stage_commands(entries: Iterable[Entry]) -> dict[str, Lazy]:
    """The commands of registry entries by their first word; those of two words form a group."""
    by_word: dict[str, list[Entry]] = {}
    for entry in entries:
        by_word.setdefault(entry.words[0], []).append(entry)
    return {word: _lazy(word, several) for word, several in by_word.items()}


def _lazy(word: str, entries: Sequence[Entry]) -> Lazy:
    if word not in GROUPS:
        entry = entries[0]
        return Lazy(entry.line, partial(_stage_command, entry))
    inner = {entry.words[1]: Lazy(entry.line, partial(_stage_command, entry)) for entry in entries}
    return Lazy(GROUPS[word], lambda: Group(word, lazy=lambda: inner, help=GROUPS[word]))


def _stage_command(entry: Entry) -> click.Command:
    """The command of an entry; a group if its config has variants."""
    record, name = entry.command, entry.words[-1]
    text = f"{entry.line} {record.help}".strip()
    layouts = layouts_of(record.config)
    if not layouts:
        return _command(record, name, "", text)
    lazy = {
        layout: Lazy(line := str(variant.__doc__), partial(_command, record, layout, layout, line))
        for layout, variant in layouts.items()
    }
    return Group(name, lazy=lambda: lazy, help=text)


def _command(record: Record, name: str, layout: str, text: str) -> click.Command:
    options = options_of(record.config, layout)

    def callback(**values: Any) -> int:
        return _run(record, layout, values)

    arguments = [
        click.Argument([one.name], metavar=one.name.upper(), help=one.spec.help)
        for one in options.values()
        if one.spec.is_argument
    ]
    own = [click_option(one) for one in options.values() if not one.spec.is_argument]
    roles = [_role_parameter(name, role) for name, role in record.roles.items() if role.has_parameter]
    retired = [
        click.Option([flag(name), name], type=click.Choice(list(option.contradicted_by)), hidden=True)
        for name, option in record.retired.items()
    ]
    role_arguments = [parameter for parameter in roles if isinstance(parameter, click.Argument)]
    role_options = [parameter for parameter in roles if isinstance(parameter, click.Option)]
    return SectionedCommand(
        name,
        params=[*role_arguments, *arguments, *own, *role_options, *retired],
        running=stage_running(record),
        callback=callback,
        help=text,
    )


def _run(record: Record, layout: str, values: dict[str, Any]) -> int:
    from ..pipeline.answers.estimate import estimate
    from ..pipeline.running.making import make, place_order
    from .answers import show_estimate, show_made

    context = click.get_current_context()
    for name, option in record.retired.items():
        if value := values.pop(name, None):
            _refuse_contradiction(f"{flag(name)} {value}", flag(name), option.contradicted_by[value], context)
            logging.getLogger("maskmill").warning("%s is no longer needed: %s", flag(name), option.instead)
    config, given = _config_and_inputs(record, layout, values)
    order = place_order(record, config, given)
    if context.find_root().meta.get(PLAN_ONLY):
        return show_estimate(estimate(order, run_options(values)), values["as_json"])
    if not values["out"]:
        raise click.UsageError("Missing option '--out'.", context)
    with _curves(values.get("tensorboard", "")) as show:
        outcome = make(order, values["out"], run_options(values), show)
    return show_made(record.name, outcome, values["as_json"]) if outcome else 0


def _refuse_contradiction(typed: str, retired: str, other: str, context: click.Context) -> None:
    """Refuses a retired option if `other` is given too, which says the opposite."""
    if any(other in parameter.opts and context.params[str(parameter.name)] for parameter in context.command.params):
        raise ConfigError(
            f"{typed} contradicts {other}; leave out {retired}, which is no longer needed, or leave out {other}"
        )


def _curves(folder: str) -> Any:
    from ..manifests.artifact.underway import no_progress

    if not folder:
        return nullcontext(no_progress)
    from ..stages.learning.curves import open_curves

    return open_curves(folder)


def _config_and_inputs(record: Record, layout: str, values: Mapping[str, Any]) -> tuple[Any, dict[str, str]]:
    """The config of a command line, and the places of its inputs by role."""
    from ..manifests.artifact.plan import PLAN

    options = options_of(record.config, layout)
    typed = {name: _value(one, values[name]) for name, one in options.items() if values[name] is not None}
    given: dict[str, str] = {}
    files: dict[str, tuple[str, ...]] = {}
    for name, role in record.roles.items():
        if not role.has_parameter:
            uri = typed.get(role.or_field)
            if isinstance(uri, str) and place(uri).exists(PLAN):
                given[name] = place(uri).uri
                del typed[role.or_field]
            continue
        value = values[f"input_{name}"]
        uris = [value] if isinstance(value, str) else list(value or ())
        if role.or_field:
            files[role.or_field] = tuple(_file(uri) for uri in uris)
        for number, uri in enumerate(uris, 1):
            if uri and not (role.or_field and _file(uri)):
                is_numbered = role.several and (number > 1 or role.several == name)
                given[f"{role.several}{number}" if is_numbered else name] = place(uri).uri
    config = build_config(
        record.config, {name: _read_list(options[name], value) for name, value in typed.items()}, layout
    )
    return dataclasses.replace(config, **files) if files else config, given


def _file(uri: str) -> str:
    """The absolute path of a file, or "" if it is not a file."""
    return os.path.abspath(uri) if os.path.isfile(uri) else ""


def _value(one: Option, value: Any) -> Any:
    """A shell value in the form that a recipe gives."""
    if one.spec.path in ("file", "folder") and value:
        return place(value).uri
    if one.spec.is_list_file or not is_list(one.hint):
        return value
    if one.spec.is_repeated:
        inner = typing.get_args(one.hint)[0]
        return tuple(_parts(item) if is_list(inner) else item for item in value)
    return _parts(value)


def _read_list(one: Option, value: Any) -> Any:
    if not one.spec.is_list_file or not isinstance(value, str):
        return value
    from ..manifests.published.schema import read_id_list

    return tuple(read_id_list(value)) if value else ()


def _parts(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",")) if text.strip() else ()


def _role_parameter(name: str, role: Role) -> click.Parameter:
    parameter = f"input_{name}"
    if role.flag:
        many: dict[str, Any] = {"multiple": True} if role.several else {"default": ""}
        return click.Option([role.flag, parameter], metavar=role.metavar, help=role.help, **many)
    count, metavar = -1 if role.several else 1, role.metavar or name.upper()
    return click.Argument([parameter], metavar=metavar, help=role.help, nargs=count, required=True)
