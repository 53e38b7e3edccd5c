"""`maskmill doctor`: the checks as a table or as JSON."""

import json
from dataclasses import asdict

import click

from ..manifests.errors import EnvironmentFault
from .tables import print_table

COLOURS = {"ok": "green", "warning": "yellow", "failed": "red"}


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
        rows = [
            (check.name, click.style(check.status, COLOURS[check.status]), check.found, check.remedy)
            for check in checks
        ]
        print_table(("check", "", "found", "what to do"), rows)
        click.echo(f"failed: {', '.join(failed)}" if failed else "everything that every run needs is there")
    return EnvironmentFault.exit_code if failed else 0
