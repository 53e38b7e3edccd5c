"""`maskmill sweep`: its table against separate commands, what is made once, and how it and its combinations end."""

import json
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from io import StringIO
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest

from builders.mistakes import assert_named
from builders.small_dataset import tree, write_dataset
from builders.small_recipe import SMALL, write_recipe
from faults.crash import Fault, in_child, interrupt, kill, operations
from maskmill.cli.main import main
from maskmill.cli.run import run as run_command
from maskmill.cli.sweep import sweep as sweep_command
from maskmill.manifests.artifact.artifact import open_artifact
from maskmill.manifests.published.frames import frame_rows
from maskmill.pipeline.recipes import chain
from maskmill.pipeline.running.options import RunOptions
from maskmill.pipeline.running.run import run
from maskmill.stages.evaluate import judging
from maskmill.stages.scores.floors import Ellipse, fit_ellipses
from maskmill.stages.stage import WholeStage

Capture = pytest.CaptureFixture[str]
JUDGED = SMALL + "\n[evaluate]\nresamples = 20\n"
THRESHOLDS = ("--set", "refine.threshold=0.3,0.5")
GRID = (*THRESHOLDS, "--set", "refine.refiner=none,guided")


@pytest.fixture(scope="module")
def ellipses_fitted_once() -> Iterator[None]:
    """The floor that takes longer than all else is the same in all tests: they judge by the same pictures."""
    known: dict[str, Sequence[Ellipse]] = {}

    def once(ids: Sequence[str], classes: Any, cells: np.ndarray) -> Sequence[Ellipse]:
        asked = repr((ids, classes, cells.tobytes()))
        if asked not in known:
            known[asked] = fit_ellipses(ids, classes, cells)
        return known[asked]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judging, "fit_ellipses", once)
        yield


@dataclass(frozen=True, slots=True)
class Made:
    recipe: Path
    work: Path
    rows: list[dict[str, Any]]  # of GRID


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, ellipses_fitted_once: None) -> Made:
    """A sweep of GRID, to look at."""
    home = tmp_path_factory.mktemp("made")
    recipe, said = write_recipe(home, JUDGED), StringIO()
    (home / "masks/cat/0.png").unlink()  # ten scored pictures would be enough to warn that these masks are but a guess
    with redirect_stdout(said):
        assert main(["sweep", str(recipe), *GRID, "--json"]) == 0
    return Made(recipe, home / "maskmill-work", json.loads(said.getvalue())["combinations"])


@pytest.fixture
def copied(made: Made, tmp_path: Path) -> Path:
    """Its work folder, to be changed."""
    return Path(shutil.copytree(made.work, tmp_path / "copied"))


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """Judges nothing, which takes longer than all else."""
    return write_recipe(tmp_path, SMALL)


def swept(capsys: Capture, *arguments: object, code: int = 0) -> dict[str, Any]:
    """What it prints as JSON."""
    capsys.readouterr()
    assert main(["sweep", *map(str, arguments), "--json"]) == code
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    return answer


def rows_of(answer: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = answer["combinations"]
    return found


def kinds(work: Path) -> dict[str, int]:
    names = [path.name.partition("-")[0] for path in work.iterdir() if path.is_dir()]
    return {name: names.count(name) for name in sorted(names)}


def trees(work: Path) -> dict[str, dict[str, str]]:
    return {path.name: tree(path) for path in work.iterdir() if path.is_dir()}


# ----------------------------------------------------------------------------------------------------- the table


def test_every_row_is_what_evaluate_says_of_its_labels(made: Made, tmp_path: Path, capsys: Capture) -> None:
    assert [tuple(row["values"].values()) for row in made.rows] == [
        (0.3, "none"),
        (0.3, "guided"),
        (0.5, "none"),
        (0.5, "guided"),
    ]
    for row in made.rows:
        out = str(tmp_path / f"alone-{row['number']}")
        assert main(["evaluate", "masks", row["artifacts"]["refine"], "--resamples", "20", "--out", out, "--json"]) == 0
        metrics = json.loads(capsys.readouterr().out)
        assert row["masks"] == metrics["results"][0]
        assert row["floors"] == metrics["results"][-2:]
        assert row["counts"] == {"kept": 10, "dropped": 0, "failed": 0, "upstream": 0}
    first, *others = made.rows
    assert first["difference"] is None
    assert len({row["masks"]["miou"]["estimate"] for row in made.rows}) > 2
    for row in others:
        assert (row["difference"]["to"], row["difference"]["pictures"]) == (1, 9)
        for name in ("miou", "miou_foreground"):
            found = row["difference"][name]
            assert found["estimate"] == pytest.approx(row["masks"][name]["estimate"] - first["masks"][name]["estimate"])
            assert found["low"] <= found["estimate"] <= found["high"]


def test_what_combinations_share_is_made_once_and_is_what_run_makes(made: Made, capsys: Capture) -> None:
    assert kinds(made.work) == {"images": 1, "labels": 4, "maps": 1, "metrics": 4, "tokens": 1}
    for step in ("index", "extract", "mask"):
        (at,) = {row["artifacts"][step] for row in made.rows}
        assert sum(len(log.read_text().splitlines()) for log in Path(at, "log").glob("*.jsonl")) == 1
    before = trees(made.work)
    single = ["--set", "refine.threshold=0.5", "--set", "refine.refiner=guided"]
    assert main(["run", str(made.recipe), "--json", *single]) == 0
    outcomes = json.loads(capsys.readouterr().out)
    assert {each["stage"]: each["at"] for each in outcomes} == made.rows[3]["artifacts"]
    assert [each["units_run"] for each in outcomes] == [0] * 5
    assert rows_of(swept(capsys, made.recipe, *GRID)) == made.rows
    assert trees(made.work) == before


def test_the_table_says_what_its_figures_are_to_be_held_against(made: Made, capsys: Capture) -> None:
    assert main(["sweep", str(made.recipe), *GRID]) == 0
    shown = capsys.readouterr().out
    said = shown.splitlines()
    assert said[0] == "4 combinations: 2 of refine.threshold × 2 of refine.refiner"
    assert said[4] == "4 of 4: refine.threshold=0.5 refine.refiner=guided"
    header, *lines = [re.split(r"\s{2,}", line.strip()) for line in said[6:11]]
    assert header == [
        "refine.threshold",
        "refine.refiner",
        "mIoU",
        "without background",
        "pictures",
        "mIoU less row 1's",
        "kept",
        "failed",
        "ended",
    ]
    for line, row in zip(lines, made.rows, strict=True):
        number, value, refiner, miou, foreground, pictures, difference, *ends = line
        assert pictures == "9, too few to tell"
        assert (int(number), float(value), refiner) == (row["number"], *row["values"].values())
        for cell, name in ((miou, "miou"), (foreground, "miou_foreground")):
            found = row["masks"][name]
            assert cell == f"{found['estimate']:.3f} ({found['low']:.3f}–{found['high']:.3f})"
        told = f"{row['difference']['miou']['estimate']:+.3f} (" if row["difference"] else "–"
        assert difference.startswith(told)
        assert ends == ["10 of 10", "0", "done"]
    assert shown.count("floors, on the same pictures:") == 1
    assert shown.count("best fixed ellipse, fitted on other classes") == 1
    assert "chosen on the ground truth of these pictures" in shown


def test_floors_of_other_questions_stand_by_themselves(made: Made, copied: Path, capsys: Capture) -> None:
    asked = (made.recipe, "--work", copied, "--set", "evaluate.class_agnostic=false,true")
    assert [row["difference"] for row in rows_of(swept(capsys, *asked))] == [None, None]
    assert main(["sweep", *map(str, asked)]) == 0
    shown = capsys.readouterr().out
    assert "all foreground, row 1" in shown
    assert "all foreground, row 2" in shown
    assert "less row" not in shown


def test_a_student_is_in_the_table_with_its_own_floors(
    tmp_path: Path, capsys: Capture, ellipses_fitted_once: None
) -> None:
    recipe = write_recipe(tmp_path, JUDGED + '[manifest]\n[train]\nstudent = "linear"\n')
    steps = ("--set", "train.steps=2,6")
    rows = rows_of(swept(capsys, recipe, *steps))
    assert kinds(tmp_path / "maskmill-work")["dataset"] == 1
    for row in rows:
        judged = open_artifact(row["artifacts"]["train"]).summary.counts["judged"]["lines"]
        assert [row["student"], *row["student_floors"]] == judged
    assert rows[1]["difference"]["miou"] == {"estimate": 0.0, "low": 0.0, "high": 0.0, "level": 0.95}
    assert main(["sweep", str(recipe), *steps]) == 0
    shown = capsys.readouterr().out
    assert "student's mIoU" in shown
    assert "(0.000–0.000)" not in shown
    assert "(+0.000 to +0.000)" not in shown
    pictures = [open_artifact(row["artifacts"]["train"]).summary.counts["judged"]["pictures"] for row in rows]
    assert [row["student_pictures"] for row in rows] == pictures
    assert "floors of the student, on the same pictures:\n  background everywhere" in shown


def test_scores_at_their_floor_stand_beside_it(tmp_path: Path, capsys: Capture, ellipses_fitted_once: None) -> None:
    """Ten pictures are enough to judge by."""
    recipe = write_recipe(tmp_path, JUDGED)
    assert main(["sweep", str(recipe), *THRESHOLDS]) == 6
    shown = capsys.readouterr().out
    row = rows_of(swept(capsys, recipe, *THRESHOLDS, code=6))[0]
    floor = max(line["miou"]["estimate"] for line in row["floors"])
    (line,) = (line for line in shown.splitlines() if re.match(r"\s*1 ", line) and "of 10" in line)
    assert f"at its floor {floor:.3f}" in line
    assert "too few" not in line


def test_without_ground_truth_it_says_how_masks_look(tmp_path: Path, capsys: Capture) -> None:
    recipe = write_recipe(tmp_path, SMALL.replace('masks = "masks"', "") + "[manifest]\nmin_score = 'area<=0.6'\n")
    answer = swept(capsys, recipe, "--set", "refine.threshold=0.4,0.5,0.6")
    assert answer["chosen_on"] is None
    for row in rows_of(answer):
        published = list(frame_rows(open_artifact(row["artifacts"]["manifest"]), ["kept", "objects"]))
        kept = [each for each in published if each["kept"]]
        assert (row["counts"]["kept"], row["counts"]["dropped"]) == (len(kept), 10 - len(kept))
        objects = [one for each in kept for one in each["objects"]]
        assert row["measures"].get("area") == (
            pytest.approx(fmean(one["area"] for one in objects)) if objects else None
        )
        assert row["masks"] is row["difference"] is row["student"] is None
    assert len({row["counts"]["kept"] for row in rows_of(answer)}) > 1
    assert main(["sweep", str(recipe), "--set", "refine.threshold=0.4,0.5,0.6"]) == 0
    shown = capsys.readouterr().out
    assert re.search("no masks were .* ground truth", shown)
    assert "  separation: mean of the soft map inside the label" in shown
    assert "mIoU" not in shown


# ------------------------------------------------------------------------------------------------------ the grid


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("refine.threshold=0.3, 0.4", [0.3, 0.4]),
        ("refine.threshold=[0.3, 0.4]", [0.3, 0.4]),
        ("refine.threshold=0.3", []),
        ("index.masks=", []),
        ("mask.threshold=otsu,0.4", ["otsu", 0.4]),
        ('refine.background=["two:0.05,0.3", "rows"]', ["two:0.05,0.3", "rows"]),
        ('refine.background="two:0.05,0.3",rows', None),
        ('refine.background="two:0.05,0.3","rows"', ["two:0.05,0.3", "rows"]),
        ("extract.image_size=[32, 48],32", [[32, 48], 32]),
        ("mask.views=[[{flip = true}], [{image_size = 48}]]", [[{"flip": True}], [{"image_size": 48}]]),
        ("mask.per_head=true,false", [True, False]),
    ],
)
def test_values_are_a_list_of_toml_or_stand_between_commas(
    recipe: Path, capsys: Capture, text: str, values: list[Any] | None
) -> None:
    if values is None:
        assert main(["sweep", str(recipe), "--dry-run", "--set", text]) == 2
        return
    answer = swept(capsys, recipe, "--dry-run", "--set", text)
    assert list(answer["swept"].values()) == ([values] if values else [])
    assert len(answer["combinations"]) == (len(values) or 1)
    assert bool(answer["fixed"]) == (not values)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (["refine.threshold=0.3,0.30"], "--set refine.threshold 0.3 twice"),
        (
            ["index.root=pictures,./pictures"],
            "index.root=pictures index.root=./pictures",
        ),
        (["refine.threshold=0.3", "refine.threshold=0.4"], "--set refine.threshold twice"),
        (["refine.threshold=0.3,,0.4"], "refine.threshold commas"),
        (["refine.threshold=0.3,"], "refine.threshold commas"),
        (["refine.threshold=[]"], "refine.threshold empty"),
        (["refine=0.3,0.4"], "--set refine=0.3,0.4 STAGE.KEY=VALUE"),
        (["refine.thresold=0.3,0.4"], "recipe.toml: [refine] thresold threshold?"),
        (["refine.threshold=0.3,high"], "refine.threshold=high recipe.toml: [refine] CLASS=SCORE"),
        (
            ["refine.threshold=0.3,7,0.5", "refine.refiner=none,guided"],
            "refine.threshold=7 recipe.toml: [refine] threshold 7 0 1",
        ),
        (["refine.background=two:0.05,0.3"], 'refine.background=["two:0.05,0.3"]'),
        (['extract.fields=["keys", "cls_query"]'], 'extract.fields=[["keys", "cls_query"]]'),
        (
            ['extract.fields=[["tokens:0"],["tokens:1"]]'],
            "tokens:0 tokens:1",
        ),
        ([], "'--set'"),
    ],
)
def test_a_mistake_anywhere_in_the_grid_is_told_before_anything_runs(
    recipe: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, settings: list[str], named: str
) -> None:
    monkeypatch.chdir(recipe.parent)
    before = tree(recipe.parent)
    assert main(["sweep", "recipe.toml", *(part for setting in settings for part in ("--set", setting))]) == 2
    assert_named(capsys.readouterr().err, named)
    assert tree(recipe.parent) == before


def test_a_dry_run_tells_what_is_shared_and_writes_nothing(
    made: Made, recipe: Path, copied: Path, capsys: Capture
) -> None:
    before = tree(recipe.parent)
    answer = swept(capsys, recipe, *THRESHOLDS, "--dry-run")
    assert {each["stage"]: each["states"] for each in answer["steps"]} == {
        "index": {"would run": 1},
        "extract": {"cannot be told": 1},
        "mask": {"cannot be told": 1},
        "refine": {"cannot be told": 2},
    }
    assert len(answer["combinations"]) == 2
    asked = ("--set", "mask.seed=0,1", *THRESHOLDS, "--set", "evaluate.seed=0,1")
    capsys.readouterr()
    assert main(["sweep", str(made.recipe), "--work", str(copied), *asked, "--dry-run"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "8 combinations: 2 of mask.seed × 2 of refine.threshold × 2 of evaluate.seed",
        "index: shared by all; done",
        "extract: shared by all; done",
        "mask: 2 artifacts for 8 combinations; 1 done, 1 would run",
        "refine: 4 artifacts for 8 combinations; 2 done, 2 cannot be told",
        "evaluate: one for each; 2 done, 2 would run, 4 cannot be told",
    ]
    assert tree(recipe.parent) == before | {f"copied/{name}": each for name, each in tree(copied).items()}


def test_methods_that_read_other_tokens_find_all_of_them_extracted_at_once(recipe: Path, capsys: Capture) -> None:
    """Were a field added for the second, the tokens of the first would have changed."""
    asked = ("--set", "mask.supports=", "--set", "mask.threshold=otsu", "--set", "mask.method=ncut,cls-attention")
    rows = rows_of(swept(capsys, recipe, *asked, code=6))
    (tokens,) = {row["artifacts"]["extract"] for row in rows}
    assert {"keys", "cls_attention"} <= set(open_artifact(tokens).plan.fields)
    assert len(open_artifact(tokens).plan.groups) == 1
    before = trees(recipe.parent / "maskmill-work")
    assert rows_of(swept(capsys, recipe, *asked, code=6)) == rows
    assert trees(recipe.parent / "maskmill-work") == before


def test_one_combination_and_a_folder_of_pictures(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_dataset(tmp_path / "pictures", 4)
    monkeypatch.chdir(tmp_path)
    small = {"backbone": "test_vit.r160_in1k", "weights": "random:0", "image_size": "32"}
    settings = [part for key, value in small.items() for part in ("--set", f"extract.{key}={value}")]
    (row,) = rows_of(swept(capsys, "--images", "pictures", *settings, "--work", "work"))
    assert row["values"] == {}
    assert row["counts"]["kept"] == 4
    assert main(["sweep", "--images", "pictures", *settings, "--work", "work"]) == 0
    assert "1 combination, all with extract.backbone=test_vit.r160_in1k" in capsys.readouterr().out
    assert main(["sweep", *THRESHOLDS]) == 2
    assert "--images" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------- how it ends


def test_one_that_fails_or_warns_leaves_the_others(made: Made, copied: Path, capsys: Capture) -> None:
    asked = (made.recipe, "--work", copied, "--set", "mask.threshold=0.01,otsu", *THRESHOLDS)
    damaged = copied / Path(made.rows[0]["artifacts"]["refine"]).name / "plan.json"
    damaged.write_bytes(b"{}")
    rows = rows_of(swept(capsys, *asked, code=4))
    assert [row["exit_code"] for row in rows] == [6, 6, 4, 0]
    assert [row["masks"] for row in rows][2:] == [None, made.rows[2]["masks"]]
    assert [row["difference"] and row["difference"]["to"] for row in rows] == [None, 1, None, 1]
    assert (list(rows[2]["artifacts"]), rows[2]["counts"]) == (["index", "extract", "mask"], {})
    assert main(["sweep", *map(str, asked)]) == 4
    shown = capsys.readouterr()
    wanted = f"combination 3, mask.threshold=otsu refine.threshold=0.3: refine: {damaged} "
    assert shown.err.startswith(f"maskmill: {wanted}")
    assert re.findall(r"^\d  .*  (\S.*)$", shown.out, re.M) == ["1 warning", "1 warning", "failed", "done"]
    assert re.search(r"^rows 1, 2 warning: .*10 .*100%", shown.out, re.M)
    assert f"row 3 failed: refine: {damaged} " in shown.out


def test_where_the_first_has_failed_others_are_held_against_the_next(made: Made, copied: Path, capsys: Capture) -> None:
    (copied / Path(made.rows[0]["artifacts"]["refine"]).name / "plan.json").write_bytes(b"{}")
    rows = rows_of(swept(capsys, made.recipe, "--work", copied, *GRID, code=4))
    assert [row["difference"] and row["difference"]["to"] for row in rows] == [None, None, 2, 2]


def test_a_warning_alone_ends_with_6(recipe: Path, capsys: Capture) -> None:
    rows = rows_of(swept(capsys, recipe, "--set", "mask.threshold=0.01,otsu", code=6))
    assert [len(row["warnings"]) for row in rows] == [1, 0]


def test_what_all_share_fails_once(recipe: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    (recipe.parent / "pictures/cat/2.png").write_bytes(b"no picture")
    ran: list[str] = []

    def counted(stage: Any, *arguments: Any) -> Any:
        ran.append(stage.name)
        return run(stage, *arguments)

    monkeypatch.setattr(chain, "run_units", counted)
    rows = rows_of(swept(capsys, recipe, *THRESHOLDS, code=5))
    assert ran == ["index"]
    assert len({row["error"] for row in rows}) == 1
    assert rows[0]["error"].startswith("index: 1 of 10 ")
    assert main(["sweep", str(recipe), *THRESHOLDS]) == 5
    assert "rows 1, 2 failed: index: " in capsys.readouterr().out
    assert not (recipe.parent / "maskmill-work/last-run.json").exists()
    rows = rows_of(swept(capsys, recipe, *THRESHOLDS, "--max-bad", "0.2"))
    assert [(row["counts"]["kept"], row["counts"]["upstream"]) for row in rows] == [(9, 1), (9, 1)]


def test_killed_or_stopped_it_goes_on_and_the_table_is_whole(made: Made, tmp_path: Path, capsys: Capture) -> None:
    def sweep(work: Path) -> list[str]:
        return [str(made.recipe), *THRESHOLDS, "--work", str(work)]

    def ends(work: Path) -> None:
        sys.exit(main(["sweep", *sweep(work)]))

    def named(work: Path) -> list[dict[str, Any]]:
        rows = rows_of(swept(capsys, *sweep(work)))
        return [{**row, "artifacts": {name: Path(at).name for name, at in row["artifacts"].items()}} for row in rows]

    whole = tmp_path / "whole"
    points = operations(lambda: main(["sweep", *sweep(whole)]) and None, whole)
    undisturbed, wanted = named(whole), trees(whole)
    for kind, act, code in (("labels", kill, None), ("metrics", interrupt, 130)):
        number = [at for at, point in enumerate(points, 1) if f"/{kind}-" in point][-1]  # of the second combination
        work = tmp_path / kind
        ended = in_child(partial(ends, work), Fault(work, number, act))
        assert ended.code == code, ended.stderr
        assert named(work) == undisturbed
        assert trees(work) == wanted


def test_what_it_made_is_as_safe_as_what_a_run_made(made: Made, copied: Path, tmp_path: Path, capsys: Capture) -> None:
    swept(capsys, made.recipe, "--work", copied, *GRID)
    before = trees(copied)
    assert main(["gc", str(copied), "--yes"]) == 0
    assert "0 deleted" in capsys.readouterr().out
    assert trees(copied) == before
    assert main(["report", str(copied), "--out", str(tmp_path / "report.html")]) == 0
    assert Path(made.rows[3]["artifacts"]["refine"]).name in (tmp_path / "report.html").read_text()
    assert main(["run", str(made.recipe), "--work", str(copied), "--set", "refine.threshold=0.5"]) == 0
    assert main(["gc", str(copied), "--yes"]) == 0
    assert kinds(copied) == {"images": 1, "labels": 1, "maps": 1, "metrics": 1, "tokens": 1}


# ---------------------------------------------------------------------------------------------------- options


def test_options_are_those_of_run(recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    assert [each.name for each in sweep_command.params] == [each.name for each in run_command.params]
    given: list[tuple[RunOptions, str]] = []

    def once(known: object, target: Any, run: Any) -> Iterator[None]:
        assert not isinstance(target.stage, WholeStage)
        given.append((run.args[1], target.stage.name))
        raise KeyboardInterrupt

    monkeypatch.setattr(chain.Ended, "once", once)
    recipe.write_text(f"{SMALL}\n[run]\nmax_bad = 0.25\n")
    assert main(["sweep", str(recipe), *THRESHOLDS, "--update", "--workers", "2"]) == 130
    assert given == [(RunOptions(workers=2, max_bad=0.25, update=True, log="progress"), "index")]


def test_from_starts_there(recipe: Path, capsys: Capture) -> None:
    swept(capsys, recipe, *THRESHOLDS)
    (recipe.parent / "pictures/cat/0.png").unlink()
    assert {row["exit_code"] for row in rows_of(swept(capsys, recipe, *GRID, code=3))} == {3}
    rows = rows_of(swept(capsys, recipe, "--set", "refine.threshold=0.3,0.5,0.6", "--from", "refine"))
    assert [row["exit_code"] for row in rows] == [0] * 3
