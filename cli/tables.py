"""The one way in which commands print a table: text on the left, numbers on the right, nothing cut off."""

import re
from collections.abc import Iterable, Sequence

import click

NOTHING = "–"
_NUMBER = re.compile(r"[+-]?\d[\d,]*(\.\d+)?( [kMGT]?B)?")


def print_table(header: Sequence[str], rows: Iterable[Sequence[str]], indent: str = "") -> None:
    for line in table_lines(header, rows, indent):
        click.echo(line)


def table_lines(header: Sequence[str], rows: Iterable[Sequence[str]], indent: str = "") -> list[str]:
    """A line for the header, unless it is empty, and one for each row. Cells may be styled with `click.style`."""
    lines = [[*row] for row in ([header] if header else []) + [*rows]]
    for column, cells in enumerate(zip(*lines, strict=True)):
        values = [cell for cell in cells[bool(header) :] if cell not in ("", NOTHING)]
        is_number = bool(values) and all(_NUMBER.fullmatch(value) for value in values)
        widths = [_width(cell) for cell in cells]
        for line, width in zip(lines, widths, strict=True):
            space = " " * (max(widths) - width)
            line[column] = space + line[column] if is_number else line[column] + space
    return [indent + "  ".join(line).rstrip() for line in lines]


def _width(cell: str) -> int:
    from rich.cells import cell_len  # a Chinese character takes two columns

    return cell_len(click.unstyle(cell))
