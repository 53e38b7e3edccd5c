"""Options of `manifest`."""

from dataclasses import dataclass, replace

from ...manifests.artifact.config import check_config, checks_itself, option
from ..command import IMAGES, Command, Role
from .quality_rules import Rule, parse_rule


@checks_itself
@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestConfig:
    min_score: Rule = option(
        Rule(),
        "Quality rule, such as area>=0.01,agreement>=0.5: pictures with a class that fails it are marked as not kept; "
        "nothing is deleted.",
        metavar="RULE",
        parse=parse_rule,
    )
    embed_images: bool = option(False, "Put the pictures' own files into the dataset.")
    title: str = option("", "Title of the dataset.")
    licence: str = option("", "Licence of the dataset: a URL, or a name such as CC-BY-4.0.")
    ground_truth: tuple[str, ...] = option(
        (),
        "Publish true masks for these pictures: an id list, or the checkpoint that was trained on their masks.",
        metavar="LIST|CHECKPOINT",
        is_list_file=True,
    )

    def __post_init__(self) -> None:
        check_config(self)
        object.__setattr__(self, "ground_truth", tuple(sorted(set(self.ground_truth))))


MANIFEST = Command(
    name="manifest",
    makes="dataset",
    config=ManifestConfig,
    work=".manifest.stage:STAGE",
    roles={
        "labels": Role(kind="labels", metavar="LABELS", help="Labels artifact."),
        "maps": replace(IMAGES, kind="maps", flag="--maps", help="Maps artifact, if it is no longer where it was."),
        "images": IMAGES,
        "compared": Role(
            kind="labels",
            flag="--compare-with",
            key="compare_with",
            metavar="LABELS",
            help="Labels of another method: their agreement becomes method_agreement, also for quality rules.",
            is_optional=True,
            made_by=(),
        ),
        "seen": Role(kind="checkpoint", key="seen", is_optional=True, made_by=(), or_field="ground_truth"),
    },
)
