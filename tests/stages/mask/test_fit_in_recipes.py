"""[fit] in a recipe: it makes the checkpoint that [mask] uses, and nothing else."""

from pathlib import Path

import pytest

from maskmill.manifests.errors import ConfigError
from maskmill.manifests.files.place import place
from maskmill.pipeline.recipes.recipe import Recipe, parse_recipe

RECIPE = """
title = "in context"
[index]
layout = "folder"
root = "."
[extract]
backbone = "vit_small_patch14_dinov2"
weights = "random:0"
{fit}
[mask]
method = "{method}"
{mask}
[refine]
"""


def parsed(tmp_path: Path, method: str = "incontext", fit: str = "", mask: str = "") -> Recipe:
    return parse_recipe(RECIPE.format(method=method, fit=fit, mask=mask).encode(), "r.toml", place(str(tmp_path)))


def test_the_checkpoint_of_fit_is_read_by_mask_and_its_fields_are_extracted(tmp_path: Path) -> None:
    recipe = parsed(tmp_path, fit='[fit]\nmethod = "incontext"\ngt_per_class = 1')
    steps = {step.name: step for step in recipe.steps}
    assert recipe.source_of(steps["mask"], "model") == "fit"
    found = parsed(tmp_path, "found", '[fit]\nmethod = "found"')
    assert "cls_attention" in str(found.tables["extract"]["fields"])


def test_a_recipe_without_fit_needs_none(tmp_path: Path) -> None:
    recipe = parsed(tmp_path, "cst")
    steps = {step.name: step for step in recipe.steps}
    assert "model" not in recipe.roles_made(steps["mask"])


FIT = '[fit]\nmethod = "incontext"\ngt_per_class = 1'


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"method": "incontext"}, r"\[fit\]"),
        ({"method": "cst", "fit": FIT}, r"\[fit\]"),
        ({"fit": FIT, "mask": 'feature = "tokens:10"'}, "feature"),
        ({"fit": '[fit]\nmethod = "incontext"'}, "gt_per_class"),
        ({"method": "found", "fit": '[fit]\nmethod = "found"\ngt_per_class = 2'}, "gt_per_class"),
    ],
)
def test_what_does_not_belong_together_is_refused_before_anything_runs(
    tmp_path: Path, asked: dict[str, str], named: str
) -> None:
    with pytest.raises(ConfigError, match=named):
        parsed(tmp_path, **asked)
