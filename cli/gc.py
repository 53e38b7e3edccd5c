"""`maskmill gc WORK`."""

import dataclasses

import click

from .answers import echo_json, print_table, size


@click.command()
@click.argument("work", help="Work folder.")
@click.option("--yes", is_flag=True, help="Delete them; without it nothing is changed.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def gc(work: str, yes: bool, as_json: bool) -> int:
    """List the artifacts in WORK that nothing needs any more, and their size.

    These are kept: datasets and checkpoints, what is unfinished or held by a run, what the last complete run or sweep
    made, everything these were made from, and their metrics. Nothing outside WORK is looked at, so a dataset elsewhere
    keeps nothing here.
    """
    from ..pipeline.answers.gc import clean

    found = clean(work, yes)
    going = sum(each.bytes for each in found.to_delete)
    if as_json:
        echo_json({**dataclasses.asdict(found), "bytes": going})
        return 0
    rows = [
        (each.name, each.kind, size(each.bytes), each.why or ("deleted" if yes else "can go")) for each in found.entries
    ]
    print_table(("artifact", "kind", "bytes", ""), rows, last_right=False)
    kept = f"{len(found.to_keep)} kept ({size(sum(each.bytes for each in found.to_keep))})"
    if yes:
        click.echo(f"{len(found.to_delete)} deleted, {size(going)}; {kept} in {found.at}")
    else:
        more = "; --yes deletes them" if found.to_delete else ""
        click.echo(f"{len(found.to_delete)} can go, {size(going)}; {kept} in {found.at}{more}")
    return 0
