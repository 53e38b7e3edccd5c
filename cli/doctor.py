"""`maskmill doctor`: the checks as a table or as JSON."""

import json
from dataclasses import asdict

import click

from ..manifests.errors import ConfigError, EnvironmentFault
from .tables import print_table

COLOURS = {"ok": "green", "warning": "yellow", "failed": "red"}


@click.command()
@click.option("--dir", "directory", default=".", metavar="DIR", help="Folder or URL where artifacts will be written.")
@click.option("--backbone", metavar="NAME", help="Print what is known of a backbone instead, and the defaults for it.")
@click.option("--weights", metavar="FILE|CHECKPOINT", help="Weights of the backbone; only their kind if left out.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def doctor(directory: str, backbone: str | None, weights: str | None, as_json: bool) -> int:
    """Check this machine: versions, CRF, GPU, threads, disk.

    Exits 0 if everything that every run needs is there, else 7.
    """
    if backbone is not None:
        return _print_backbone(backbone, weights or "", as_json)
    if weights is not None:
        raise ConfigError("--weights needs --backbone; give both, or leave it out")
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


def _print_backbone(backbone: str, weights: str, as_json: bool) -> int:
    from ..pipeline.answers.backbone_profile import describe_backbone

    lines = describe_backbone(backbone, weights).lines()
    if as_json:
        click.echo(
            json.dumps({name.removeprefix("--").replace(" ", "_"): text for name, text in lines.items()}, indent=2)
        )
    else:
        print_table(("what", "default"), list(lines.items()))
    return 0
