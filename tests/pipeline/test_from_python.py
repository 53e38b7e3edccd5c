"""The package from a program: what the README shows runs as it stands there, and mistakes get their sentence."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import maskmill
from builders.small_dataset import write_dataset
from maskmill.manifests.errors import ConfigError, MissingArtifact
from maskmill.manifests.files.place import place
from maskmill.pipeline.recipes.recipe import parse_recipe
from maskmill.stages.registry import COMMANDS

README = Path(__file__).parents[2] / "README.md"


def test_the_examples_of_the_readme_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    section = README.read_text().partition("## From Python\n")[2].partition("\n## ")[0]
    examples = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    assert len(examples) == 3
    write_dataset(tmp_path / "pictures", 6)
    monkeypatch.chdir(tmp_path)
    known: dict[str, object] = {}
    for example in examples:
        exec(compile(example, "README.md", "exec"), known)
    assert (tmp_path / "dataset/artifact.json").exists()


def test_the_recipe_of_the_readme_is_one(tmp_path: Path) -> None:
    section = README.read_text().partition("## Recipes\n")[2].partition("\n## ")[0]
    (example,) = re.findall(r"```toml\n(.*?)```", section, re.DOTALL)
    write_dataset(tmp_path / "pictures", 2)
    downloads_nothing = ["extract.backbone=builtin"]
    recipe = parse_recipe(example.encode(), "README.md", place(str(tmp_path)), downloads_nothing)
    assert [step.name for step in recipe.steps] == ["index", "extract", "mask", "refine", "manifest", "train"]


def test_what_is_done_is_found_done(tmp_path: Path) -> None:
    write_dataset(tmp_path / "pictures", 4)
    settings: dict[str, Any] = {"layout": "folder", "root": str(tmp_path / "pictures")}
    assert maskmill.run("index", {}, tmp_path / "images", **settings).units_run == 1
    assert maskmill.run("index", {}, tmp_path / "images", **settings).units_run == 0


def test_mistakes_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^unknown command 'masks'; did you mean mask\?$"):
        maskmill.run("masks", {}, tmp_path / "maps")
    with pytest.raises(ConfigError, match=r"^extract: unknown key backbon; did you mean backbone"):
        maskmill.run("extract", {}, tmp_path / "tokens", backbon="builtin")
    with pytest.raises(MissingArtifact):
        maskmill.run("mask", {"tokens": tmp_path / "tokens"}, tmp_path / "maps")


def test_what_an_artifact_was_made_with_makes_it_again(tmp_path: Path) -> None:
    write_dataset(tmp_path / "pictures", 4)
    maskmill.run("index", {}, tmp_path / "images", layout="folder", root=str(tmp_path / "pictures"))
    maskmill.run(maskmill.PixelsConfig(image_size=(16, 16)), {"images": tmp_path / "images"}, tmp_path / "pixels")
    config = maskmill.config_of(tmp_path / "pixels")
    assert isinstance(config, maskmill.PixelsConfig)
    assert config.image_size == (16, 16)
    assert maskmill.run(config, {"images": tmp_path / "images"}, tmp_path / "pixels").units_run == 0
    other = replace(config, image_size=(8, 8))
    assert maskmill.run(other, {"images": tmp_path / "images"}, tmp_path / "smaller").units_run == 1
    assert maskmill.open_pixels(tmp_path / "smaller").at([0]).shape == (1, 8, 8, 3)


def test_every_stage_is_found_by_its_config() -> None:
    for entry in COMMANDS.values():
        if entry.module.startswith("."):  # not the tests' own
            assert entry.command.config is getattr(maskmill, entry.config)
            assert entry.config in maskmill.__all__


def test_mistakes_with_configs_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^run .*\bcommand\b.*\bconfig\b.*\bdict$"):
        maskmill.run({"step": "mask"}, {}, tmp_path / "maps")
    with pytest.raises(ConfigError, match=r"PixelsConfig .*fit"):
        maskmill.run(maskmill.PixelsConfig(image_size=(8, 8)), {}, tmp_path / "pixels", fit="pad")
