"""The options of `evaluate masks`."""

from dataclasses import dataclass

from ...manifests.artifact.config import check_config, checks_itself, option
from ..choices import SEED_HELP
from ..command import Command, Role


@checks_itself
@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateConfig:
    class_agnostic: bool = option(False, "Score foreground against background, whatever the class.")
    boundary: bool = option(True, "Also score outlines: F-measure at 2 % of the diagonal.")
    include_fitted: bool = option(False, "Also score pictures whose masks were used for training.")
    resamples: int = option(1000, "Bootstrap resamples for the intervals.", at_least=1)
    seed: int = option(0, f"{SEED_HELP} for the bootstrap.", at_least=0)

    def __post_init__(self) -> None:
        check_config(self)


EVALUATE = Command(
    name="evaluate",
    makes="metrics",
    config=EvaluateConfig,
    work=".evaluate.stage:STAGE",
    roles={
        "predicted": Role(kind="maps|labels|dataset", metavar="MAPS|LABELS|DATASET", help="What to score."),
        "images": Role(
            kind="images",
            flag="--against",
            key="against",
            metavar="IMAGES",
            help="Images with masks; by default those it was made from.",
            is_found=True,
        ),
    },
    help="mIoU with its interval, per class, coverage, and floors.",
    has_units=False,
    resumes=False,
)
