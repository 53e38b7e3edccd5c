"""A recipe of every stage that is quick: ten small pictures, and a backbone of random weights."""

from pathlib import Path

from builders.small_dataset import write_dataset

SMALL = """
title = "small"

[index]
layout = "folder"
root = "pictures"
masks = "masks"

[extract]
backbone = "test_vit.r160_in1k"
weights = "random:0"
image_size = 32

[mask]
supports = 0

[refine]
"""


def write_recipe(home: Path, text: str = SMALL) -> Path:
    """The recipe in a folder with its pictures and masks."""
    write_dataset(home / "pictures", 10, masks=True)
    (home / "recipe.toml").write_text(text)
    return home / "recipe.toml"
