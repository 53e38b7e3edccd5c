"""The table at the end of a sweep: a row for each combination, and below it what the figures are to be held against."""

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from .answers import with_interval

if TYPE_CHECKING:
    from ..pipeline.recipes.sweep.worth import SweepRow

ScoreLine = Mapping[str, Any]
Column = tuple[str, Callable[["SweepRow"], str]]
NOTHING = "–"
CHOSEN = "ground truth"


def rows_json(rows: Sequence["SweepRow"]) -> dict[str, Any]:
    seen_truth = any(row.masks or row.student for row in rows)
    return {"combinations": [dataclasses.asdict(row) for row in rows], "chosen_on": CHOSEN if seen_truth else None}


def show_rows(rows: Sequence["SweepRow"]) -> None:
    columns = list(_columns(rows))
    cells = [[header for header, _ in columns], *([cell(row) for _, cell in columns] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    click.echo("")
    for line in cells:
        click.echo("  ".join(f"{cell:{width}}" for cell, width in zip(line, widths, strict=True)).rstrip())
    student_floors = _floors("floors of the student", {row.number: row.student_floors for row in rows})
    floors = _floors("floors", {row.number: row.floors for row in rows})
    for said in (*floors, *student_floors, *_remarks(rows), *_ends(rows)):
        click.echo(said)


def _columns(rows: Sequence["SweepRow"]) -> Iterator[Column]:
    yield "", lambda row: str(row.number)
    yield from map(_value, rows[0].values)
    if any(row.masks for row in rows):
        yield from _scores("mIoU", lambda row: row.masks)
        if found := next((row.difference for row in rows if row.difference), None):
            yield (
                f"mIoU less row {found.to}'s",
                lambda row: _difference_text(row.difference.miou if row.difference else None),
            )
    else:
        yield from map(_measure, _measures(rows))
    if any(row.student for row in rows):
        yield from _scores("student's mIoU", lambda row: row.student)
    yield "kept", lambda row: f"{row.counts['kept']} of {sum(row.counts.values())}" if row.counts else NOTHING
    yield "failed", lambda row: str(row.counts["failed"] + row.counts["upstream"]) if row.counts else NOTHING
    yield "ended", lambda row: "failed" if row.error else _warnings_text(len(row.warnings))


def _value(name: str) -> Column:
    from ..pipeline.recipes.recipe import value_text

    return name, lambda row: value_text(row.values[name])


def _measure(name: str) -> Column:
    return name, lambda row: f"{row.measures[name]:.3f}" if name in row.measures else NOTHING


def _scores(name: str, line: Callable[["SweepRow"], ScoreLine | None]) -> Iterator[Column]:
    def cell(row: "SweepRow", key: str) -> str:
        found = line(row)
        return with_interval(found[key]) if found else NOTHING

    yield name, lambda row: cell(row, "miou")
    yield "without background", lambda row: cell(row, "miou_foreground")


def _warnings_text(number: int) -> str:
    return f"{number} warning{'' if number == 1 else 's'}" if number else "done"


def _difference_text(found: ScoreLine | None) -> str:
    if found is None or found["estimate"] is None:
        return NOTHING
    if found["low"] is None:  # no resample has what it is about
        return f"{found['estimate']:+.3f} (–)"
    return f"{found['estimate']:+.3f} ({found['low']:+.3f} to {found['high']:+.3f})"


def _measures(rows: Sequence["SweepRow"]) -> list[str]:
    """How good the masks look, by the one by which the report ranks pictures, and how large they are."""
    from ..pipeline.report.artifact_rows import RANKED_BY

    known = {name for row in rows for name in row.measures}
    ranked = [name for name in RANKED_BY if name in known][:1]
    return [*ranked, *(name for name in ("area", "foreground") if name in known)]


def _floors(what: str, floors: Mapping[int, Sequence[ScoreLine]]) -> Iterator[str]:
    """Each once for all rows for which it is the same."""
    rows: dict[str, dict[str, list[int]]] = {}  # name → the line → whose it is
    for number, lines in floors.items():
        for line in lines:
            rows.setdefault(line["name"], {}).setdefault(json.dumps(line), []).append(number)
    told = [
        (name if len(of) == 1 else f"{name}, {_row_numbers_text(numbers)}", json.loads(line))
        for name, of in rows.items()
        for line, numbers in of.items()
    ]
    if told:
        yield f"{what}, on the same pictures:"
    width = max((len(name) for name, _ in told), default=0)
    for name, line in told:
        miou, foreground = (with_interval(line[key]) for key in ("miou", "miou_foreground"))
        yield f"  {name:{width}}  {miou:21}  {foreground}"


def _remarks(rows: Sequence["SweepRow"]) -> Iterator[str]:
    """What the table says and what it does not."""
    from ..pipeline.report.artifact_rows import MEANINGS

    if found := next((row.difference for row in rows if row.difference), None):
        yield f"differences to row {found.to} are of the pictures that both were judged by, drawn together"
    if not any(row.masks for row in rows):
        yield (
            "no masks were judged against ground truth, which [evaluate] does where there is any: this is how they "
            "look, which tells what is bad and not what is right"
        )
        for name in _measures(rows):
            yield f"  {name}: {MEANINGS[name]}; the mean over the objects of kept pictures"
    if any(row.masks or row.student for row in rows):
        yield (
            f"a row that is chosen by this table is chosen on the {CHOSEN} of these pictures; what it is worth is for "
            "others to tell"
        )
    if any("train" in row.artifacts for row in rows) and not any(row.student for row in rows):
        yield "no student was judged: a linear one is where there is ground truth, cst by `maskmill evaluate fscs`"


def _ends(rows: Sequence["SweepRow"]) -> Iterator[str]:
    """Why rows have failed, and what there is to be warned of: once where it differs in the artifacts alone."""
    said: dict[str, list[int]] = {}
    for row in rows:
        for each in ([f"failed: {row.error}"] if row.error else []) + [f"warning: {each}" for each in row.warnings]:
            said.setdefault(_by_step(each, row.artifacts), []).append(row.number)
    for text, numbers in said.items():
        yield f"{_row_numbers_text(numbers)} {text}"


def _by_step(text: str, artifacts: Mapping[str, str]) -> str:
    for step, uri in sorted(artifacts.items(), key=lambda each: -len(each[1])):
        text = text.replace(uri, f"[{step}]")
    return text


def _row_numbers_text(numbers: Sequence[int]) -> str:
    return f"row{'' if len(numbers) == 1 else 's'} {', '.join(map(str, numbers))}"
