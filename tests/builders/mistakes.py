"""A refusal, told by its exit code and what it names: an option, a path, a number. Its wording is nobody's promise."""

from collections.abc import Sequence

import pytest

from maskmill.cli.main import main


def assert_named(said: str, named: str) -> None:
    """Every word of `named` is in what was said, whether written with - or _, and no traceback."""
    plain = said.replace("_", "-")
    assert [word for word in named.split() if word.replace("_", "-") not in plain] == [], said
    assert "Traceback" not in said, said


def refused(capsys: pytest.CaptureFixture[str], arguments: Sequence[str], named: str, code: int = 2) -> str:
    """What a command says in one line (or after its usage) that ends with an exit code and names these words."""
    capsys.readouterr()
    assert main(list(arguments)) == code
    said = capsys.readouterr()
    assert_named(said.err, named)
    assert said.err.count("\n") == 1 or said.err.startswith("Usage: "), said.err
    assert said.out == ""
    return said.err
