"""`maskmill compare A B`."""

import dataclasses
from typing import TYPE_CHECKING

import click

from ..manifests.counts import count_of
from .answers import echo_json, show_differences
from .tables import NOTHING, print_table

if TYPE_CHECKING:
    from ..pipeline.answers.compare import ClassComparison, Comparison, Side


@click.command()
@click.argument("a", metavar="A", help="Maps, labels or dataset artifact.")
@click.argument("b", metavar="B", help="Another of the same pictures.")
@click.option(
    "--worst", type=click.IntRange(0), default=10, show_default=True, help="List this many pictures that differ most."
)
@click.option("--images", metavar="DIR", default="", help="Images artifact, if it is no longer where it was.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def compare(a: str, b: str, worst: int, images: str, as_json: bool) -> int:
    """Compare A and B: maps, labels or datasets of the same pictures. Reads files only."""
    from ..manifests.artifact.artifact import open_artifact
    from ..pipeline.answers.compare import KINDS, compare as compared

    known = open_artifact(images, "images") if images else None
    comparison = compared(open_artifact(a, KINDS), open_artifact(b, KINDS), worst, known)
    if as_json:
        echo_json(dataclasses.asdict(comparison))
        return 0
    _show(comparison)
    return 0


def _show(comparison: "Comparison") -> None:
    click.echo(f"{count_of(comparison.compared, 'picture')} compared, pixels the same: {_share(comparison.agreement)}")
    click.echo(f"  A: {_side(comparison.a)}, undecided: {_share(comparison.undecided_a)} of pixels")
    both = _share(comparison.undecided_both)
    click.echo(f"  B: {_side(comparison.b)}, undecided: {_share(comparison.undecided_b)} ({both} in both)")
    if comparison.other_size:
        ids = ", ".join(comparison.other_size_ids)
        left_out = count_of(comparison.other_size, "picture")
        click.echo(f"  {left_out} not compared, because of label maps of different sizes: {ids}")
    click.echo(f"  mIoU {_share(comparison.miou)}, without background {_share(comparison.miou_foreground)}\n")
    header = ("class", "IoU", "of A's, in B", "of B's, in A", "pixels in A", "pixels in B")
    print_table(header, [_class_row(row) for row in comparison.classes])
    if comparison.worst:
        click.echo("")
        rows = [(picture.id, _share(picture.iou), _share(picture.agreement)) for picture in comparison.worst]
        print_table(("pictures that differ most", "IoU", "pixels the same"), rows)
    click.echo("")
    show_differences(comparison.differences)


def _class_row(row: "ClassComparison") -> list[str]:
    shares = (row.iou, row.kept_of_a, row.kept_of_b)
    return [row.name or str(row.label), *map(_share, shares), f"{row.pixels_a:,}", f"{row.pixels_b:,}"]


def _side(side: "Side") -> str:
    text = f"{side.kind} {side.at}: {count_of(side.pictures, 'picture')}"
    if side.failed:
        reasons = ", ".join(f"{count} {reason}" for reason, count in side.failed.items())
        text += f", {sum(side.failed.values())} of those in both failed ({reasons})"
    if side.alone:
        more = ", …" if side.alone > len(side.alone_ids) else ""
        text += f", {side.alone} only here ({', '.join(side.alone_ids)}{more})"
    return text


def _share(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.3f}"
