"""`maskmill diff A B`."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from ..manifests.counts import count_of
from .answers import echo_json, show_differences
from .tables import print_table

if TYPE_CHECKING:
    from ..pipeline.answers.diff import Change, ChangedRow, Diff

_SHOWN = 10  # rows of each kind; JSON has all of them


@click.command()
@click.argument("a", metavar="A", help="Earlier version of the dataset.")
@click.argument("b", metavar="B", help="Later version.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON, with every row.")
def diff(a: str, b: str, as_json: bool) -> int:
    """List what was added, removed and relabelled from dataset A to B. Reads files only."""
    from ..pipeline.answers.diff import diff_datasets

    result = diff_datasets(a, b)
    if as_json:
        echo_json(dataclasses.asdict(result))
    else:
        _show(result)
    return 0


def _show(result: "Diff") -> None:
    click.echo(
        f"{count_of(len(result.added), 'row')} added, {len(result.removed)} removed, "
        f"{len(result.relabelled)} relabelled, {len(result.changed)} changed otherwise, {result.unchanged} as they were"
    )
    for side, version in (("A", result.a), ("B", result.b)):
        click.echo(
            f"  {side}: dataset {version.at}: {count_of(version.rows, 'row')}, fingerprint {version.fingerprint[:12]}"
        )
    lists = {
        "added": result.added,
        "removed": result.removed,
        "classes added": result.classes_added,
        "classes removed": result.classes_removed,
    }
    for what, names in lists.items():
        if names:
            click.echo(f"  {what}: {', '.join(names[:_SHOWN])}{', …' if len(names) > _SHOWN else ''}")
    click.echo("")
    _show_rows("relabelled", result.relabelled)
    _show_rows("changed otherwise", result.changed)
    show_differences(result.differences)


def _show_rows(what: str, rows: Sequence["ChangedRow"]) -> None:
    if not rows:
        return
    lines = [
        (row.id, "; ".join(_change_text(change, row.same_pixels) for change in row.changes)) for row in rows[:_SHOWN]
    ]
    if len(rows) > _SHOWN:
        lines.append(("…", f"and {len(rows) - _SHOWN} more, see --json"))
    print_table((what, "how"), lines)
    click.echo("")


def _change_text(change: "Change", same_pixels: float | None) -> str:
    if change.name == "picture":
        return "another picture"
    if change.name == "mask":
        height, width = change.b
        return f"mask of {width}×{height} now" if same_pixels is None else f"mask, {same_pixels:.3f} of pixels the same"
    return f"{change.name} {_value_text(change.a)} → {_value_text(change.b)}"


def _value_text(value: Any) -> str:
    if isinstance(value, dict):
        return _value_text([f"{name} {source}" for name, source in value.items()])
    if isinstance(value, list):
        return ", ".join(value) or "none"
    return {True: "yes", False: "no", None: "none", "": "none"}.get(value, str(value))
