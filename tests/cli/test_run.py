"""`maskmill run` and `maskmill recipe`, as a user types them."""

import dataclasses
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from builders.mistakes import assert_named
from builders.small_dataset import tree, write_dataset, write_picture
from builders.small_recipe import SMALL, write_recipe
from maskmill.cli.main import main
from maskmill.manifests.artifact.artifact import open_artifact
from maskmill.manifests.files import sealed
from maskmill.manifests.files.place import place
from maskmill.pipeline.recipes import SCRIPTS, SHIPPED, chain, read_shipped_recipe
from maskmill.pipeline.recipes.recipe import Recipe, read_recipe
from maskmill.pipeline.running.options import RunOptions

Capture = pytest.CaptureFixture[str]
KINDS = ["images", "tokens", "maps", "labels"]


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return write_recipe(tmp_path)


def ran(capsys: Capture, *arguments: object, code: int = 0) -> list[dict[str, Any]]:
    """The outcomes of a run, by stage."""
    assert main(["run", *map(str, arguments), "--json"]) == code
    answer: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return answer


def units_run(outcomes: list[dict[str, Any]]) -> dict[str, int]:
    return {each["stage"]: each["units_run"] for each in outcomes}


def made(work: Path) -> list[str]:
    """The kinds of the artifacts in a work directory."""
    return sorted(path.name.partition("-")[0] for path in work.iterdir() if path.is_dir())


def trees(work: Path) -> dict[str, dict[str, str]]:
    """Every artifact's files with their digests."""
    return {path.name: tree(path) for path in work.iterdir() if path.is_dir()}


def of_kind(work: Path, kind: str) -> Path:
    (found,) = work.glob(f"{kind}-*")
    return found


def test_a_run_makes_every_artifact_and_then_finds_them_done(recipe: Path, capsys: Capture) -> None:
    work = recipe.parent / "maskmill-work"
    assert main(["run", str(recipe)]) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == KINDS
    assert all("10 rows, 10 ok; 1 unit run in " in line for line in lines)
    labels = of_kind(work, "labels")
    assert last == f"result: labels → {labels}"
    assert open_artifact(str(labels)).plan.fingerprint.startswith(labels.name.removeprefix("labels-"))
    names = {"index": "images", "extract": "tokens", "mask": "maps", "refine": "labels"}
    last_run = sealed.read(place(work), "last-run.json")
    assert last_run["artifacts"] == {step: of_kind(work, kind).name for step, kind in names.items()}

    before = trees(work)
    assert main(["run", str(recipe)]) == 0
    assert all("; already done in " in line for line in capsys.readouterr().out.splitlines()[:-1])
    assert trees(work) == before


def test_another_threshold_makes_labels_beside_the_old_of_the_same_tokens(recipe: Path, capsys: Capture) -> None:
    first = ran(capsys, recipe)
    other = ran(capsys, recipe, "--set", "refine.threshold=0.5")
    assert units_run(other) == {"index": 0, "extract": 0, "mask": 0, "refine": 1}
    assert [each["at"] for each in other[:3]] == [each["at"] for each in first[:3]]
    assert other[3]["at"] != first[3]["at"]
    assert made(recipe.parent / "maskmill-work") == sorted([*KINDS, "labels"])
    assert units_run(ran(capsys, recipe)) == {"index": 0, "extract": 0, "mask": 0, "refine": 0}


def test_a_dry_run_tells_what_can_be_told_and_writes_nothing(recipe: Path, capsys: Capture) -> None:
    def states(*arguments: str) -> dict[str, str]:
        return {each["stage"]: each["state"] for each in ran(capsys, recipe, "--dry-run", *arguments)}

    before = tree(recipe.parent)
    unknown = dict.fromkeys(["extract", "mask", "refine"], "cannot be told")
    assert states() == {"index": "would run", **unknown}
    assert tree(recipe.parent) == before

    ran(capsys, recipe)
    before = tree(recipe.parent)
    assert states() == dict.fromkeys(["index", "extract", "mask", "refine"], "done")
    assert states("--set", "mask.seed=1")["refine"] == "cannot be told"
    assert states("--set", "refine.threshold=0.5")["refine"] == "would run"
    (of_kind(recipe.parent / "maskmill-work", "maps") / "artifact.json").unlink()
    assert main(["run", str(recipe), "--dry-run"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[2].startswith("mask: would run, begun and not finished → ")
    assert told[3] == "refine: cannot be told, before mask has run"
    assert {name for name in before if not name.endswith("artifact.json")} <= set(tree(recipe.parent))


def test_what_is_stopped_between_stages_goes_on_there(recipe: Path, tmp_path: Path, capsys: Capture) -> None:
    undisturbed = tmp_path / "undisturbed"
    ran(capsys, recipe, "--work", undisturbed)
    stopped = tmp_path / "stopped"
    steps = chain.run_recipe(read_recipe(str(recipe)), place(stopped), RunOptions())
    assert [next(steps).stage, next(steps).stage] == ["index", "extract"]
    del steps
    assert made(stopped) == ["images", "tokens"]
    assert units_run(ran(capsys, recipe, "--work", stopped)) == {"index": 0, "extract": 0, "mask": 1, "refine": 1}
    assert trees(stopped) == trees(undisturbed)


def test_a_changed_picture_is_made_again_in_every_stage(recipe: Path, capsys: Capture) -> None:
    first = ran(capsys, recipe)
    write_picture(recipe.parent / "pictures/cat/0.png", seed=99, size=(20, 16))
    again = ran(capsys, recipe)
    assert units_run(again) == dict.fromkeys(["index", "extract", "mask", "refine"], 1)
    assert [each["at"] for each in again] == [each["at"] for each in first]


def test_added_pictures_are_appended_when_told(recipe: Path, capsys: Capture) -> None:
    ran(capsys, recipe)
    write_dataset(recipe.parent / "pictures", 12, masks=True)
    assert main(["run", str(recipe)]) == 3
    assert "maskmill: index: " in (said := capsys.readouterr().err)
    assert "--update" in said
    outcomes = ran(capsys, recipe, "--update")
    assert [each["rows"] for each in outcomes] == [12] * 4
    assert [each["units_skipped"] for each in outcomes] == [1] * 4


def test_views_are_extracted_and_merged(recipe: Path, capsys: Capture) -> None:
    """One that is added or taken away gives other maps beside the old, of the tokens that are there."""
    viewed = ("--set", "mask.views=[{flip = true}, {image_size = 48}]")
    plain = ran(capsys, recipe)
    foreseen = {each["stage"]: each["state"] for each in ran(capsys, recipe, "--dry-run", *viewed)}
    assert (foreseen["extract"], foreseen["extract-view2"], foreseen["mask"]) == ("done", "would run", "cannot be told")
    outcomes = ran(capsys, recipe, *viewed)
    views = {"extract": 0, "extract-view2": 1, "extract-view3": 1}
    assert units_run(outcomes) == {"index": 0, **views, "mask": 1, "refine": 1}
    maps = open_artifact(next(each["at"] for each in outcomes if each["stage"] == "mask"))
    assert {each.role: each.place(maps.place).uri for each in maps.plan.inputs} == {
        "tokens": outcomes[1]["at"],
        "images": outcomes[0]["at"],
        "view2": outcomes[2]["at"],
        "view3": outcomes[3]["at"],
    }
    names = sealed.read(place(recipe.parent / "maskmill-work"), "last-run.json")["artifacts"]
    assert names["extract-view2"] == Path(outcomes[2]["at"]).name
    assert set(units_run(ran(capsys, recipe, *viewed)).values()) == {0}
    assert set(units_run(ran(capsys, recipe, *viewed, "--from", "mask")).values()) == {0}
    assert [each["at"] for each in ran(capsys, recipe)] == [each["at"] for each in plain]


# ------------------------------------------------------------------------------------------------ starting later


def test_from_starts_there_without_looking_at_what_lies_before(recipe: Path, capsys: Capture) -> None:
    ran(capsys, recipe)
    shutil.rmtree(recipe.parent / "pictures/cat")
    assert main(["run", str(recipe)]) == 3
    capsys.readouterr()
    outcomes = ran(capsys, recipe, "--from", "refine", "--set", "refine.threshold=0.5")
    assert units_run(outcomes) == {"index": 0, "extract": 0, "mask": 0, "refine": 1}
    assert outcomes[1]["counts"]["ok"] == 10


def test_from_needs_what_lies_before(recipe: Path, capsys: Capture) -> None:
    def refused(*arguments: str) -> str:
        assert main(["run", str(recipe), *arguments]) == 2
        return capsys.readouterr().err

    assert "images-" in (said := refused("--from", "mask"))
    assert "--from index" in said
    assert not (recipe.parent / "maskmill-work").exists()
    assert_named(refused("--from", "msak"), "--from msak mask?")
    ran(capsys, recipe)
    assert "--from mask" in refused("--from", "refine", "--set", "mask.seed=1")
    assert "cls_attention" in refused("--from", "mask", "--set", "extract.fields=['cls_attention']")


def test_from_refuses_what_was_made_of_other_inputs(recipe: Path, capsys: Capture) -> None:
    ran(capsys, recipe)
    write_picture(recipe.parent / "pictures/cat/0.png", seed=99, size=(20, 16))
    images = of_kind(recipe.parent / "maskmill-work", "images")
    folders = [str(recipe.parent / "pictures"), "--masks", str(recipe.parent / "masks")]
    assert main(["index", "folder", *folders, "--out", str(images)]) == 0
    assert main(["run", str(recipe), "--from", "mask"]) == 2
    assert_named(capsys.readouterr().err, "images --from extract")
    assert units_run(ran(capsys, recipe, "--from", "extract"))["extract"] == 1


# -------------------------------------------------------------------------------------------- warnings and ends


def test_a_warning_lets_the_run_go_on_and_end_with_6(recipe: Path, capsys: Capture) -> None:
    wide = ["--set", "mask.threshold=0.01"]
    assert main(["run", str(recipe), *wide]) == 6
    shown = capsys.readouterr()
    assert_named(shown.err, "warning: 10 100% threshold")
    first, last = shown.err.splitlines()  # where it came, and again at the end, after its stage
    assert last == first.replace("warning: ", "warning: mask: ")
    assert shown.out.splitlines()[-1].startswith("result: labels → ")
    again = ran(capsys, recipe, *wide, code=6)
    assert units_run(again) == dict.fromkeys(["index", "extract", "mask", "refine"], 0)
    assert ran(capsys, recipe, *wide, "--from", "refine", code=6)[2]["warnings"] == again[2]["warnings"]


def test_the_first_stage_that_fails_ends_the_run_with_its_code_and_name(recipe: Path, capsys: Capture) -> None:
    (recipe.parent / "pictures/cat/2.png").write_bytes(b"no picture")
    assert main(["run", str(recipe), "--json"]) == 5
    shown = capsys.readouterr()
    assert shown.err.startswith("maskmill: index: ")
    assert_named(shown.err, "1 10 failed")
    assert json.loads(shown.out) == []
    assert made(recipe.parent / "maskmill-work") == ["images"]
    outcomes = ran(capsys, recipe, "--max-bad", "0.2")
    assert [each["counts"]["upstream"] for each in outcomes] == [0, 1, 1, 1]


def test_a_later_stage_that_fails_leaves_the_earlier_outcomes(recipe: Path, capsys: Capture) -> None:
    tokens = ran(capsys, recipe)[1]["at"]
    Path(tokens, "plan.json").write_bytes(b"{}")
    assert main(["run", str(recipe), "--json"]) == 4
    shown = capsys.readouterr()
    assert [each["stage"] for each in json.loads(shown.out)] == ["index"]
    assert shown.err.startswith(f"maskmill: extract: {tokens}/plan.json ")


def test_three_mistakes_are_three_lines_and_nothing_runs(recipe: Path, capsys: Capture) -> None:
    recipe.write_text(SMALL.replace("image_size", "image_sise").replace('"pictures"', '"picturs"') + "thresold = 1")
    before = tree(recipe.parent)
    assert main(["run", str(recipe)]) == 2
    named = [
        f"{recipe} 3",
        f"[index] root {recipe.parent}/picturs",
        "[extract] image_sise image_size",
        "[refine] thresold threshold",
    ]
    for line, words in zip(capsys.readouterr().err.splitlines(), named, strict=True):
        assert_named(line, words)
    assert tree(recipe.parent) == before


def test_a_missing_extra_is_refused_before_any_work(
    recipe: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pydensecrf.densecrf", None)  # which another test may have imported
    assert main(["run", str(recipe), "--set", "refine.refiner=crf"]) == 2
    assert "maskmill[crf]" in capsys.readouterr().err
    assert not (recipe.parent / "maskmill-work").exists()


# ------------------------------------------------------------------------------------------- several in one place


def test_two_datasets_in_one_place_keep_their_own(recipe: Path, tmp_path: Path, capsys: Capture) -> None:
    """The stages ask for the same, and the ids are the same too: only the pictures differ."""
    (tmp_path / "other").mkdir()
    other = write_recipe(tmp_path / "other")
    write_picture(tmp_path / "other/pictures/cat/0.png", seed=99, size=(20, 16))
    work = tmp_path / "work"
    first = ran(capsys, recipe, "--work", work)
    before = {each["at"]: tree(Path(each["at"])) for each in first}
    second = ran(capsys, other, "--work", work)
    assert units_run(second) == dict.fromkeys(["index", "extract", "mask", "refine"], 1)
    assert {at: tree(Path(at)) for at in before} == before
    for path, outcomes in ((recipe, first), (other, second)):
        again = ran(capsys, path, "--work", work)
        assert set(units_run(again).values()) == {0}
        assert [each["at"] for each in again] == [each["at"] for each in outcomes]


def test_masks_that_come_later_leave_the_tokens_as_they_are(recipe: Path, capsys: Capture) -> None:
    ran(capsys, recipe, "--set", "index.masks=")
    later = ran(capsys, recipe, "--set", "evaluate.resamples=10")
    assert units_run(later) == {"index": 1, "extract": 0, "mask": 0, "refine": 0, "evaluate": 1}


def test_another_method_adds_its_field_to_the_tokens(recipe: Path, capsys: Capture) -> None:
    tokens = ran(capsys, recipe)[1]["at"]
    settings = ["mask.method=cls-attention", "mask.supports=", "mask.threshold=otsu"]
    other = ran(capsys, recipe, *(part for setting in settings for part in ("--set", setting)))
    assert other[1]["at"] == tokens
    assert set(open_artifact(tokens).plan.fields) == {"keys", "cls_query", "cls_attention"}
    assert units_run(ran(capsys, recipe)) == {"index": 0, "extract": 0, "mask": 0, "refine": 0}


def test_the_result_is_the_last_that_is_no_number(recipe: Path, capsys: Capture) -> None:
    assert main(["run", str(recipe), "--set", "manifest.title=small", "--set", "evaluate.resamples=10"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any("best fixed ellipse" in line for line in lines)
    assert lines[-1] == f"result: dataset → {of_kind(recipe.parent / 'maskmill-work', 'dataset')}"


# ------------------------------------------------------------------------------------------------------- options


def test_a_folder_of_pictures_needs_no_recipe(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    write_dataset(tmp_path / "pictures", 4)
    write_picture(tmp_path / "plain/a.png", 0)
    monkeypatch.chdir(tmp_path)
    small = {"backbone": "test_vit.r160_in1k", "weights": "random:0", "image_size": "32"}
    settings = [part for key, value in small.items() for part in ("--set", f"extract.{key}={value}")]
    for folder, classes in (("pictures", ["cat", "dog"]), ("plain", [])):
        outcomes = ran(capsys, "--images", folder, *settings, "--work", f"work-{folder}")
        assert [each["kind"] for each in outcomes] == [*KINDS, "dataset"]
        labels = open_artifact(outcomes[3]["at"], "labels")
        assert [each["name"] for each in labels.plan.facts["classes"]] == classes
        assert set(labels.rows(["classes"]).column("classes").to_pylist()[0]) == {1}
    assert main(["run", "--images", "plain", *settings, "--dry-run"]) == 0
    assert f"{tmp_path}/maskmill-work/images-" in capsys.readouterr().out


def test_a_recipe_or_pictures_must_be_named(recipe: Path, capsys: Capture) -> None:
    for arguments in ([], [str(recipe), "--images", "pictures"]):
        assert main(["run", *arguments]) == 2
        assert "--images" in capsys.readouterr().err


def test_what_is_typed_counts_before_what_the_recipe_says_of_the_run(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[RunOptions] = []

    def run_recipe(read: Recipe, work: object, options: RunOptions, start: str) -> Iterator[chain.Made]:
        given.append(options)
        raise KeyboardInterrupt

    monkeypatch.setattr(chain, "run_recipe", run_recipe)
    recipe.write_text(f"{SMALL}\n[run]\nworkers = 3\nmax_bad = 0.25\ntrust = true\n")
    for typed in ([], ["--workers", "0", "--update"]):
        main(["run", str(recipe), *typed])
    wanted = RunOptions(workers=3, max_bad=0.25, trust=True, log="progress")
    assert given == [wanted, dataclasses.replace(wanted, workers=0, update=True)]


# ------------------------------------------------------------------------------------------------ maskmill recipe


def test_recipes_are_listed_shown_and_written(tmp_path: Path, capsys: Capture) -> None:
    assert main(["recipe", "list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [*SHIPPED, *SCRIPTS]
    assert main(["recipe", "show", "folder"]) == 0
    assert capsys.readouterr().out.encode() == read_shipped_recipe("folder")
    target = tmp_path / "mine.toml"
    assert main(["recipe", "write", "folder", str(target)]) == 0
    assert target.read_bytes() == read_shipped_recipe("folder")
    target.write_text("edited")
    assert main(["recipe", "write", "folder", str(target)]) == 2
    assert target.read_text() == "edited"
    assert main(["recipe", "show", "voc"]) == 2
    assert_named(capsys.readouterr().err, "'voc' voc-cst")
