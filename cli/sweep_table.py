"""The table at the end of a sweep: a row for each combination, and below it the floors and remarks."""

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from ..manifests.counts import count_of
from ..stages.scores.verdict import FEWEST_PICTURES, NO_OBJECTS, find_floor
from .answers import score_rows, with_interval
from .tables import NOTHING, print_table, table_lines

if TYPE_CHECKING:
    from ..pipeline.recipes.sweep.worth import SweepRow

ScoreLine = Mapping[str, Any]
Column = tuple[str, Callable[["SweepRow"], str]]
CHOSEN = "ground truth"


def rows_json(rows: Sequence["SweepRow"]) -> dict[str, Any]:
    seen_truth = any(row.masks or row.student for row in rows)
    return {"combinations": [dataclasses.asdict(row) for row in rows], "chosen_on": CHOSEN if seen_truth else None}


def show_rows(rows: Sequence["SweepRow"]) -> None:
    columns = list(_columns(rows))
    click.echo("")
    print_table([header for header, _ in columns], [[cell(row) for _, cell in columns] for row in rows])
    student_floors = _floors("floors of the student", {row.number: row.student_floors for row in rows})
    floors = _floors("floors", {row.number: row.floors for row in rows})
    for line in (*floors, *student_floors, *_remarks(rows), *_ends(rows)):
        click.echo(line)


def _columns(rows: Sequence["SweepRow"]) -> Iterator[Column]:
    yield "", lambda row: str(row.number)
    yield from map(_value, rows[0].values)
    if any(row.masks for row in rows):
        yield from _scores("mIoU", _masks_of)
        if first := next((row.difference for row in rows if row.difference), None):
            yield (
                f"mIoU less row {first.to}'s",
                lambda row: with_interval(row.difference.miou if row.difference else None, "+", " to "),
            )
    else:
        yield from map(_measure, _measures(rows))
    if any(row.student for row in rows):
        yield from _scores("student's mIoU", _student_of)
    yield "kept", lambda row: f"{row.counts['kept']} of {sum(row.counts.values())}" if row.counts else NOTHING
    yield "failed", lambda row: str(row.counts["failed"] + row.counts["upstream"]) if row.counts else NOTHING
    yield "ended", lambda row: "failed" if row.error else _warnings_text(len(row.warnings))


def _value(name: str) -> Column:
    from ..pipeline.recipes.recipe import value_text

    return name, lambda row: value_text(row.values[name])


def _measure(name: str) -> Column:
    return name, lambda row: f"{row.measures[name]:.3f}" if name in row.measures else NOTHING


@dataclass(frozen=True, slots=True)
class _Scored:
    """A score of a row, and what to compare it with."""

    line: ScoreLine
    pictures: int
    floors: Sequence[ScoreLine]

    def cell(self, key: str) -> str:
        floors = {floor["name"]: floor[key] for floor in self.floors}
        floor = find_floor(self.line[key], floors, self.pictures)
        return with_interval(self.line[key]) + (f", at its floor {floor[1]:.3f}" if floor else "")

    @property
    def pictures_cell(self) -> str:
        return f"{self.pictures}, too few to tell" if self.pictures < FEWEST_PICTURES else str(self.pictures)


def _masks_of(row: "SweepRow") -> _Scored | None:
    return _Scored(row.masks, row.masks["pictures"], row.floors) if row.masks else None


def _student_of(row: "SweepRow") -> _Scored | None:
    """Its floor is what it would score without looking; the other lines are told the class, which it is not."""
    floors = [line for line in row.student_floors if line["name"] == NO_OBJECTS]
    return _Scored(row.student, row.student_pictures, floors) if row.student else None


def _scores(name: str, score_of: Callable[["SweepRow"], _Scored | None]) -> Iterator[Column]:
    def cell(row: "SweepRow", key: str) -> str:
        scored = score_of(row)
        return scored.cell(key) if scored else NOTHING

    yield name, lambda row: cell(row, "miou")
    yield "without background", lambda row: cell(row, "miou_foreground")
    yield "pictures", lambda row: scored.pictures_cell if (scored := score_of(row)) else NOTHING


def _warnings_text(number: int) -> str:
    return count_of(number, "warning") if number else "done"


def _measures(rows: Sequence["SweepRow"]) -> list[str]:
    """The score by which the report ranks pictures, and the size of the masks."""
    from ..pipeline.report.artifact_rows import RANKED_BY

    known = {name for row in rows for name in row.measures}
    ranked = [name for name in RANKED_BY if name in known][:1]
    return [*ranked, *(name for name in ("area", "foreground") if name in known)]


def _floors(what: str, floors: Mapping[int, Sequence[ScoreLine]]) -> Iterator[str]:
    rows: dict[str, dict[str, list[int]]] = {}  # name → line → row numbers
    for number, lines in floors.items():
        for line in lines:
            rows.setdefault(line["name"], {}).setdefault(json.dumps(line), []).append(number)
    distinct = [
        {**json.loads(line), "name": name if len(numbers_by_line) == 1 else f"{name}, {_row_numbers_text(numbers)}"}
        for name, numbers_by_line in rows.items()
        for line, numbers in numbers_by_line.items()
    ]
    if distinct:
        yield f"{what}, on the same pictures:"
        yield from table_lines((), score_rows(distinct), "  ")


def _remarks(rows: Sequence["SweepRow"]) -> Iterator[str]:
    from ..pipeline.report.artifact_rows import MEANINGS

    if first := next((row.difference for row in rows if row.difference), None):
        yield f"differences to row {first.to}: paired bootstrap on the pictures that both were scored on"
    if not any(row.masks for row in rows):
        yield (
            "no masks were scored on ground truth (add [evaluate] if there is any); these are no-reference scores: "
            "they expose bad masks, they do not confirm good ones"
        )
        for name in _measures(rows):
            yield f"  {name}: {MEANINGS[name]}; the mean over the objects of kept pictures"
    if any(row.masks or row.student for row in rows):
        yield f"the best row is chosen on the {CHOSEN} of these pictures and overfits them; check it on others"
    if any("train" in row.artifacts for row in rows) and not any(row.student for row in rows):
        yield "no student was scored: a linear one needs ground truth, cst needs `maskmill evaluate fscs`"


def _ends(rows: Sequence["SweepRow"]) -> Iterator[str]:
    """Failures and warnings, each once for all rows where it differs only in the paths of artifacts."""
    rows_of: dict[str, list[int]] = {}
    for row in rows:
        for text in ([f"failed: {row.error}"] if row.error else []) + [f"warning: {text}" for text in row.warnings]:
            rows_of.setdefault(_by_step(text, row.artifacts), []).append(row.number)
    for text, numbers in rows_of.items():
        yield f"{_row_numbers_text(numbers)} {text}"


def _by_step(text: str, artifacts: Mapping[str, str]) -> str:
    for step, uri in sorted(artifacts.items(), key=lambda item: -len(item[1])):
        text = text.replace(uri, f"[{step}]")
    return text


def _row_numbers_text(numbers: Sequence[int]) -> str:
    return f"row{'' if len(numbers) == 1 else 's'} {', '.join(map(str, numbers))}"
