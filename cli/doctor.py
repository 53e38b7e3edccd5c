"""`maskmill doctor`: the checks as a table or as JSON."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from ..manifests.errors import EnvironmentFault

if TYPE_CHECKING:
    from ..pipeline.answers.doctor import Check

COLOURS = {"ok": "green", "warning": "yellow", "failed": "bold red"}


@click.command()
@click.option("--dir", "directory", default=".", metavar="DIR", help="Folder or URL where artifacts will be written.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def doctor(directory: str, as_json: bool) -> int:
    """Check this machine: versions, CRF, GPU, threads, disk.

    Exits 0 if everything that every run needs is there, else 7.
    """
    from ..manifests.files.place import place
    from ..pipeline.answers.doctor import CheckStatus, examine

    checks = examine(place(directory))
    failed = [check.name for check in checks if check.status == CheckStatus.FAILED]
    if as_json:
        click.echo(json.dumps({"ok": not failed, "checks": [asdict(check) for check in checks]}, indent=2))
    else:
        _print_table(checks)
        click.echo(f"failed: {', '.join(failed)}" if failed else "everything that every run needs is there")
    return EnvironmentFault.exit_code if failed else 0


def _print_table(checks: "Sequence[Check]") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("check", "", "found", "what to do", box=None, pad_edge=False)
    for check in checks:  # as Text: `maskmill[crf]` is no markup
        status = Text(check.status, style=COLOURS[check.status])
        table.add_row(Text(check.name), status, Text(check.found), Text(check.remedy))
    Console().print(table)
