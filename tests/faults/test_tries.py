"""Units that raise, rows that fail, and how few or many there are of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from builders import toy
from builders.mistakes import assert_named
from faults.cases import (
    BROKEN,
    CASES,
    IDS,
    UNIT_ROWS,
    Home,
    Subject,
    content,
    home_of,
    make_picture,
    picture_of,
    tree,
    with_run_unit,
)
from faults.crash import as_command, in_child
from maskmill.pipeline.answers.status import list_failed_rows, status
from maskmill.pipeline.running.job import TRIES
from maskmill.pipeline.running.options import RunOptions
from maskmill.pipeline.running.run import retry

RAISING = 1  # the unit that raises
ITS_IDS = IDS[UNIT_ROWS : 2 * UNIT_ROWS]


def raising(subject: Subject, times: int, calls: list[int]) -> Callable[..., Any]:
    """A unit function that raises so often at one unit, and notes which unit it is called for."""

    def run_unit(work: Any, *arguments: Any) -> Any:
        calls.append(work.unit.index)
        if work.unit.index == RAISING and calls.count(RAISING) <= times:
            raise ValueError("told to raise")
        return subject.home.case.stage.run_unit(work, *arguments)

    return run_unit


@pytest.mark.parametrize(("times", "invocations"), [(1, 2), (2, 3), (99, TRIES)])
def test_a_unit_that_raises(subject: Subject, out: Path, times: int, invocations: int) -> None:
    """Row 15: once, twice, always."""

    def run() -> list[Any]:
        calls: list[int] = []
        stage = with_run_unit(subject.home.case, raising(subject, times, calls))
        outcome = subject.home.run(out, stage=stage, max_bad=1.0)
        return [outcome["counts"], calls]

    ended = in_child(as_command(run))
    assert ended.code == 0, ended
    counts, calls = ended.answer
    assert [calls.count(unit) for unit in range(4)] == [1, invocations, 1, 1]
    logged = "".join(path.read_text() for path in (out / "log").iterdir())
    assert logged.count('"event": "raised"') == min(times, TRIES)
    if times < 99:
        assert tree(out) == subject.tree
        return
    assert_named(ended.stderr, f"unit {RAISING} ValueError told to raise")
    found, wanted = content(out), in_reference(subject)
    for identifier in IDS:
        if identifier in ITS_IDS and wanted[identifier]["status"] != "upstream":
            assert (found[identifier]["status"], found[identifier]["reason"]) == ("failed", "error")
        else:
            assert found[identifier]["status"] == wanted[identifier]["status"]
    assert counts["reasons"]["error"] == len(ITS_IDS) - (BROKEN in ITS_IDS and subject.home.case is not CASES["index"])
    assert subject.home.made(out)["run"] == 1, "the next run tries it again"
    assert tree(out) == subject.tree


def in_reference(subject: Subject) -> dict[str, dict[str, Any]]:
    return content(subject.reference)


def test_the_injected_faults_of_the_toy(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The counters that tests of other processes rely on say the same."""
    home = home_of(CASES["toy"], place)
    for times, invocations in [(1, 2), (2, 3), (99, TRIES)]:
        faults, out = place / f"faults-{times}", home.new_out()
        faults.mkdir()
        (faults / "raise-cat-4").write_text(str(times))
        monkeypatch.setenv(toy.FAULTS, str(faults))
        home.made(out, max_bad=1.0)
        calls = [int((faults / f"calls-{unit}").read_text()) for unit in range(4)]
        assert calls == [1, invocations, 1, 1]


def test_more_failed_than_allowed(subject: Subject, out: Path) -> None:
    """Row 30: exit 5, unfinished, and the list of what failed."""

    def run_unit(*arguments: Any) -> Any:
        raise ValueError("told to raise")

    home = subject.home
    stage = with_run_unit(home.case, run_unit)
    ended = home.tried(out, stage=stage, max_bad=0.05)
    tried = 10 if home.case is CASES["index"] else 9
    assert ended.code == 5, ended
    assert_named(ended.stderr, f"{tried} {out} error --max-bad 0.05")
    assert not (out / "artifact.json").exists()
    known = in_child(lambda: [status(str(out)).state, [row.id for row in list_failed_rows(str(out))]]).answer
    assert known == ["unfinished", IDS]
    assert home.made(out)["run"] == 4, "every unit is tried again, and now goes well"
    assert tree(out) == subject.tree


def test_one_failed_row_more_than_allowed(place: Path) -> None:
    """Exactly the share that is allowed passes, and one row more does not."""
    home = home_of(CASES["index"], place)
    out = home.new_out()
    assert home.tried(out, max_bad=0.1).code == 0  # one of ten
    picture_of(place, "dog/1").write_bytes(b"no picture either")
    ended = home.tried(out, max_bad=0.1)
    assert ended.code == 5
    assert_named(ended.stderr, "2 10 rows")
    listed = in_child(lambda: [[row.id, row.reason] for row in list_failed_rows(str(out))]).answer
    assert listed == [[BROKEN, "undecodable"], ["dog/1", "undecodable"]]
    assert home.made(out, max_bad=0.2)["run"] == 0


def test_retry_runs_the_failed_units_alone(subject: Subject, out: Path) -> None:
    if subject.home.case is not CASES["index"]:
        pytest.skip("retry finds its stage by name; one stage is enough")
    subject.home.made(out)
    answer = in_child(as_command(lambda: retry(str(out), RunOptions(max_bad=0.2)).units_run))
    assert (answer.code, answer.answer) == (0, 1), answer
    assert tree(out) == subject.tree


def bare(case: str, place: Path) -> Home:
    (place / "pictures").mkdir(parents=True)
    (place / "masks").mkdir()
    return Home(CASES[case], place)


def test_no_picture(place: Path) -> None:
    """Row 29: nothing to do is a mistake of the input, and leaves no trace."""
    home = bare("index", place)
    out = home.new_out()
    ended = home.tried(out)
    assert ended.code == 2, ended
    assert str(place / "pictures") in ended.stderr
    assert not out.exists()


@pytest.mark.parametrize("case", list(CASES))
@pytest.mark.parametrize("number", [1, UNIT_ROWS, UNIT_ROWS + 1])
def test_few_pictures(place: Path, case: str, number: int) -> None:
    home = bare(case, place)
    for identifier in IDS[:number]:
        make_picture(place, identifier, seed=1)
    home.remade_inputs()
    out = home.new_out()
    made = home.made(out)
    assert made["run"] == -(-number // UNIT_ROWS)
    assert made["counts"]["ok"] == number
    assert sorted(content(out)) == IDS[:number]


@pytest.mark.parametrize("case", list(CASES))
def test_no_picture_that_is_one(place: Path, case: str) -> None:
    """All rows bad: unfinished by default; where that is allowed, valid artifacts of failed rows all the way down."""
    home = bare(case, place)
    for identifier in IDS:
        picture_of(place, identifier).parent.mkdir(exist_ok=True)
        picture_of(place, identifier).write_bytes(b"no picture")
    assert Home(CASES["index"], place).tried(place / "index").code == 5
    home.remade_inputs(max_bad=1.0)
    out = home.new_out()
    counts = home.made(out, max_bad=1.0)["counts"]
    assert counts["ok"] == 0
    assert counts["failed" if case == "index" else "upstream"] == 10
    assert {row["reason"] for row in content(out).values()} == {"undecodable"}
