"""The table of the commands that make artifacts, in the order in which a recipe runs them.

A new stage needs an entry here and a folder beside it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from ..manifests.errors import ConfigError
from .command import Command

if TYPE_CHECKING:
    from .stage import Stage, WholeStage


@dataclass(frozen=True, slots=True)
class Entry:
    """A command before any of it is imported."""

    typed: str  # in a shell: "enhance fit"
    at: str  # module and name of its Command
    config: str  # the class of its config, which the package exports
    line: str  # its line in `maskmill --help`

    @property
    def words(self) -> tuple[str, ...]:
        return tuple(self.typed.split())

    @property
    def module(self) -> str:
        return self.at.partition(":")[0]

    @property
    def command(self) -> Command:
        command: Command = getattr(import_module(self.module, __package__), self.at.partition(":")[2])
        return command


COMMANDS: dict[str, Entry] = {
    "index": Entry(
        "index", ".index.config:INDEX", "IndexConfig", "List the pictures of a dataset, their labels and masks."
    ),
    "extract": Entry(
        "extract",
        ".extract.config:EXTRACT",
        "ExtractConfig",
        "Run a vision transformer over the pictures and store its tokens.",
    ),
    "pixels": Entry(
        "pixels", ".pixels.config:PIXELS", "PixelsConfig", "Decode and resize the pictures once, for pretraining."
    ),
    "pretrain": Entry(
        "pretrain", ".pretrain.config:PRETRAIN", "PretrainConfig", "Pretrain a backbone on pictures without labels."
    ),
    "fit": Entry("fit", ".mask.config:FIT", "FitConfig", "Fit a mask method that learns on stored tokens."),
    "mask": Entry("mask", ".mask.config:MASK", "MaskConfig", "Make soft maps from stored tokens."),
    "enhancer": Entry(
        "enhance fit", ".enhance.config:ENHANCER", "EnhancerConfig", "Fit an enhancer on a few true masks."
    ),
    "enhance": Entry(
        "enhance apply", ".enhance.config:ENHANCE", "EnhanceConfig", "Make better maps with a fitted enhancer."
    ),
    "refine": Entry("refine", ".refine.config:REFINE", "RefineConfig", "Make label maps from soft maps."),
    "manifest": Entry("manifest", ".manifest.config:MANIFEST", "ManifestConfig", "Publish label maps as a dataset."),
    "train": Entry("train", ".train.config:TRAIN", "TrainConfig", "Train a student on a dataset."),
    "evaluate": Entry(
        "evaluate masks",
        ".evaluate.config:EVALUATE",
        "EvaluateConfig",
        "Score maps, labels or a dataset against ground truth.",
    ),
    "fscs": Entry(
        "evaluate fscs",
        ".evaluate.few_shot_config:FSCS",
        "FewShotConfig",
        "Score few-shot classification and segmentation.",
    ),
}


GROUPS = {  # first words of commands of two words
    "enhance": "Make better maps with an enhancer that is fitted on a few true masks.",
    "evaluate": "Score masks or few-shot learners against ground truth.",
}


def find_command(name: str) -> Command:
    if name not in COMMANDS:
        raise ConfigError(
            f"unknown stage {name!r}, expected one of {sorted(COMMANDS)}; use the version of maskmill that wrote it"
        )
    return COMMANDS[name].command


def find_stage(name: str) -> "Stage | WholeStage":
    """The stage of a command, by its name."""
    return find_command(name).stage


def find_unit_stage(name: str) -> "Stage":
    """The same for a command whose rows are computed in units."""
    from .stage import Stage

    stage = find_stage(name)
    assert isinstance(stage, Stage), name
    return stage


def recipe_commands() -> Iterator[Command]:
    return (command for entry in COMMANDS.values() if (command := entry.command).in_recipes)
