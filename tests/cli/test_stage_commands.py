"""Commands that make artifacts follow from one record: a toy's line in the registry gives all its faces."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

import maskmill
from builders import toy
from builders.small_dataset import write_dataset
from maskmill.cli.main import OPERATORS, cli, load, main
from maskmill.manifests.artifact.artifact import open_artifact
from maskmill.manifests.artifact.config import options_of
from maskmill.manifests.errors import ConfigError, MaskmillError
from maskmill.manifests.files.place import place
from maskmill.pipeline.recipes.chain import run_recipe
from maskmill.pipeline.recipes.recipe import parse_recipe
from maskmill.pipeline.running.options import RunOptions
from maskmill.stages.mask.config import FITTED_NAMES, METHOD_NAMES
from maskmill.stages.mask.methods import METHODS
from maskmill.stages.registry import COMMANDS, find_stage
from maskmill.stages.stage import Stage

Capture = pytest.CaptureFixture[str]
FROZEN = Path(__file__).with_name("options.json")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_dataset(tmp_path / "pictures", 4)
    assert main(["index", "folder", "pictures", "--out", "images"]) == 0
    return tmp_path


def test_a_line_in_the_registry_is_a_command(home: Path, capsys: Capture) -> None:
    """`toy` is one line: it has help, runs, resumes, refuses by its own option, is planned and reported."""
    assert main(["toy", "--help"]) == 0
    assert "Factor of pixel values." in capsys.readouterr().out
    command = ["toy", "images", "--scale", "2", "--fields", "square,wide", "--out", "toys"]
    assert main(["plan", *command[:-2], "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["bytes_per_field"]) == {"square", "wide"}
    assert main(command) == 0
    assert open_artifact("toys").plan.config["scale"] == 2.0
    capsys.readouterr()
    assert main(command) == 0
    assert "already done" in capsys.readouterr().out
    assert main(["toy", "images", "--scale", "3", "--out", "toys"]) == 3
    assert "scale = 2.0" in capsys.readouterr().err
    assert main(["report", "toys", "--out", "report.html"]) == 0
    assert "scale" in (home / "report.html").read_text()


def test_the_same_line_is_a_table_of_a_recipe(home: Path) -> None:
    text = 'title = "toys"\n[index]\nlayout = "folder"\nroot = "pictures"\n[toy]\nscale = 2\npower = 3\n[echo]\n'
    recipe = parse_recipe(text.encode(), "recipe.toml", place(str(home)))
    assert [step.name for step in recipe.steps] == ["index", "toy", "echo"]
    made = list(run_recipe(recipe, place("work"), RunOptions()))
    assert [each.stage for each in made] == ["index", "toy", "echo"]
    assert open_artifact(made[1].outcome.at).plan.config["inner"] == {"power": 3}
    with pytest.raises(ConfigError, match=r"\[toy\] unknown key skale; did you mean scale"):
        parse_recipe(text.replace("scale", "skale").encode(), "recipe.toml", place(str(home)))


def test_the_same_line_is_called_from_python(home: Path) -> None:
    assert maskmill.run("toy", {"images": "images"}, "toys", scale=2).units_run == 1
    config = maskmill.config_of("toys")
    assert isinstance(config, toy.ToyConfig)
    assert maskmill.run(config, {"images": "images"}, "toys").units_run == 0


@pytest.mark.parametrize(
    ("step", "inputs", "settings", "named"),
    [
        ("toy", {"tokens": "images"}, {}, "'tokens' is not an input of toy"),
        ("toy", {}, {}, "images"),
        ("toy", {"images": "images"}, {"scale": "much"}, "scale"),
        ("echo", {"toys": "images"}, {}, "toys"),
        ("echo", {"toys": "images"}, {"times": 0}, "times is 0"),
        ("toi", {"images": "images"}, {}, "did you mean toy"),
    ],
)
def test_a_mistake_of_a_program_is_an_error_of_the_package(
    home: Path, step: str, inputs: dict[str, Any], settings: dict[str, Any], named: str
) -> None:
    with pytest.raises(maskmill.MaskmillError, match=named):
        maskmill.run(step, inputs, "out", **settings)
    assert not (home / "out").exists()


def test_a_config_made_in_python_is_checked_as_a_recipe_is() -> None:
    for wrong, sentence in {
        "2": 'times is "2" (text) and must be a whole number',
        True: "times is true and must be a whole number",
        0: "times is 0 and must be at least 1",
    }.items():
        with pytest.raises(MaskmillError) as told:
            toy.EchoConfig(times=wrong)  # type: ignore[arg-type]
        assert str(told.value) == sentence


def test_an_option_out_of_range_is_named_as_it_was_typed(home: Path, capsys: Capture) -> None:
    recipe = home / "recipe.toml"
    recipe.write_text('title = "t"\n[run]\nmax_bad = 2\n[index]\nlayout = "folder"\nroot = "pictures"\nmin_side = 0\n')
    index = ["index", "folder", "pictures", "--out", "out"]
    for command, named in {
        (*index, "--min-side", "0"): "'--min-side'",
        (*index, "--max-bad", "nan"): "'--max-bad'",
        ("run", "recipe.toml"): "[run] max_bad is",
        ("run", "recipe.toml", "--set", "run.max_bad=0"): "[index] min_side is",
    }.items():
        assert main(command) == 2
        assert named in capsys.readouterr().err
    with pytest.raises(ConfigError, match=r"^min_side is 0"):
        maskmill.run("index", {}, "out", layout="folder", root="pictures", min_side=0)
    with pytest.raises(ConfigError, match=r"^cross_fit is 1"):
        maskmill.run("enhancer", {"maps": "images"}, "out", gt_per_class=1, cross_fit=1)
    assert not (home / "out").exists()


def commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    if not isinstance(command, click.Group):
        yield " ".join(path), command
        return
    context = click.Context(command)
    for name in [*getattr(command, "lazy", {}), *command.commands]:
        inner = command.get_command(context, name)
        assert inner is not None
        yield from commands(inner, (*path, name))


def shipped() -> Iterator[tuple[str, click.Command]]:
    """All commands but the toys that this or another test has added."""
    toys = {entry.words[0] for entry in COMMANDS.values() if not entry.module.startswith(".")}
    return ((path, command) for path, command in commands(cli) if toys.isdisjoint(path.split()))


def spelled(parameter: click.Parameter) -> str:
    if isinstance(parameter, click.Option):
        return "|".join(sorted([*parameter.opts, *parameter.secondary_opts]))
    return str(parameter.metavar or parameter.name).upper()


def test_options_are_as_they_were() -> None:
    """An option that goes, or is renamed, breaks the scripts of users: it keeps its old name for one version."""
    now = {path: {spelled(each) for each in command.params} for path, command in shipped()}
    before = json.loads(FROZEN.read_text())
    for path, names in before.items():
        options = {name for name in names if name.startswith("-")}
        assert options <= now[path], (path, options - now[path])


def test_every_option_and_argument_has_help() -> None:
    bare = [
        (path, each.name)
        for path, command in shipped()
        for each in command.params
        if not getattr(each, "hidden", False) and not getattr(each, "help", "")
    ]
    assert bare == []


def test_an_option_that_is_not_needed_any_more_is_taken_with_a_warning(home: Path, capsys: Capture) -> None:
    code = main(["train", "images", "--student", "linear", "--features", "online", "--out", "x"])
    assert code == 2
    assert "--features is no longer needed" in capsys.readouterr().err


@pytest.mark.parametrize("name", [name for name, entry in COMMANDS.items() if entry.module.startswith(".")])
def test_a_record_says_what_its_stage_is(name: str) -> None:
    entry, stage = COMMANDS[name], find_stage(name)
    assert stage.command is entry.command
    assert entry.command.name == name
    assert entry.command.config.__name__ == entry.config
    assert isinstance(stage, Stage) == entry.command.has_units
    for field in dataclasses.fields(entry.command.config):
        assert not field.name.startswith("_")
    assert set(options_of(entry.command.config)), name


def test_methods_that_the_help_names_are_those_there_are() -> None:
    assert METHOD_NAMES.replace(" or ", ", ").split(", ") == list(METHODS)
    assert FITTED_NAMES.replace(" or ", ", ").split(", ") == [name for name, method in METHODS.items() if method.fit]


def test_an_operator_command_is_called_what_the_table_calls_it() -> None:
    for name in OPERATORS:
        assert load(name).name == name
