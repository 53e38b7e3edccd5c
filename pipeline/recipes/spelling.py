"""Respell the options in messages for a recipe, `run --set` or Python.

Stages spell an option like their command, `--weights`. A recipe has the key `weights`, `run --set` takes
`extract.weights=`, and Python takes `weights=`. Commands in backticks stay as they are.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from ...manifests.artifact.config import options_of
from ...manifests.errors import MaskmillError
from ...stages.command import Command

Spelling = Literal["key", "set", "python"]
_COMMAND = re.compile(r"(`[^`]*`)")
_OPTION = re.compile(r"(?<![\w-])--([a-z][a-z0-9-]*)(?: (?=[A-Z]))?")
_CHOSEN = re.compile(r"\b(choose|try|pass|give) --([a-z][a-z0-9-]*) ([a-z0-9][\w.:+-]*\w)")  # with a value


def spell(sentence: str, command: Command, spelling: Spelling) -> str:
    """The sentence with every option of the command respelled."""
    names = {name.replace("_", "-"): name for name in options_of(command.config)}
    names |= {role.flag[2:]: role.key or name for name, role in command.roles.items() if role.flag}

    def rename(option: str) -> str:
        if option == "out" and spelling == "set":
            return "--work"
        if option not in names:
            return f"--{option}"
        return {"key": "", "set": f"--set {command.name}.", "python": ""}[spelling] + names[option]

    def with_value(match: re.Match[str]) -> str:
        verb, option, value = match.groups()
        return f"{verb} {rename(option)}={value}" if option in names else match.group()

    def alone(match: re.Match[str]) -> str:
        has_no_value = match.string[match.end() :].lstrip().startswith(("out", "is ", "="))
        sign = "" if has_no_value or spelling == "key" or match[1] not in names else "="
        return rename(match[1]) + sign + (" " if match.group().endswith(" ") and not sign else "")

    parts = _COMMAND.split(sentence)
    return "".join(
        part if part.startswith("`") else _OPTION.sub(alone, _CHOSEN.sub(with_value, part)) for part in parts
    )


@contextmanager
def spell_errors(command: Command, spelling: Spelling, prefix: str = "") -> Iterator[None]:
    """Raises a MaskmillError again with its options respelled."""
    try:
        yield
    except MaskmillError as error:
        raise type(error)(prefix + spell(str(error), command, spelling)) from error
