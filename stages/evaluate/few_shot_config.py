"""The options of `evaluate fscs`."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from ...manifests.artifact.config import check_config, checks_itself, field_for_resolve, option
from ...manifests.counts import count_of
from ...manifests.errors import ConfigError
from ..choices import DEVICE_HELP, EPISODES, SEED_HELP, Void
from ..command import FEATURES, IMAGES, TOKENS, Command, Role
from ..students.backbone_config import BackboneConfig
from ..vision.feature_forms import RAW_KEYS

Protocol = Literal["classes", "pascal-5i", "coco-20i"]
SupportMask = Literal["pseudo", "enhanced", "gt"]
CLASSES: Final = "classes"  # the protocol without lists: a split of any dataset's classes
CHECKPOINT, LABELS = "checkpoint", "labels"  # numbered roles


@checks_itself
@dataclass(frozen=True, slots=True, kw_only=True)
class FewShotConfig:
    protocol: Protocol = option("classes", "Folds of a benchmark as they are published, or any split of classes.")
    fold: tuple[int, ...] = option(
        (), "Fold of each checkpoint in turn, once for each; 0, 1, … by default.", metavar="N", is_repeated=True
    )
    lists_sha256: tuple[str, ...] = field_for_resolve(())  # of the lists of each fold
    classes: tuple[tuple[str, ...], ...] = option(
        (),
        "Classes to score, once for each checkpoint in turn; by default those that it has not learned.",
        metavar="NAME,…",
        is_repeated=True,
    )
    way: int = option(1, "Classes in an episode.", at_least=1)
    shot: int = option(1, "Support pictures of each class.", at_least=1)
    episodes: int = option(EPISODES, "Episodes in a fold.", at_least=1)
    void: Void = option(
        "background", "Meaning of 255 in the truth: background as in CST's code, or ignored as in HSNet."
    )
    support_mask: SupportMask = option("pseudo", "Masks of supports: from stored keys, from --labels, or ground truth.")
    save_predictions: bool = option(False, "Keep a row per episode beside the metrics, as Parquet.")
    resamples: int = option(1000, "Bootstrap resamples for the intervals.", at_least=1)
    # Episodes follow from their numbers, without a seed.
    seed: int = option(0, f"{SEED_HELP} for the bootstrap.", at_least=0)
    files_sha256: tuple[str, ...] = field_for_resolve(())  # one per checkpoint, "" for an artifact
    keys: str = field_for_resolve(str(RAW_KEYS), is_new=True)  # how stored keys are compared
    seeing: BackboneConfig | None = option(None, without=("fit",))  # None: stored tokens
    folds: str = option(
        "",
        "Folder of the benchmark's lists: trn and val, txt or pkl.",
        path="folder",
        metavar="DIR",
        changes_bytes=False,
        is_kept=True,
    )
    # One path per checkpoint, "" for an artifact.
    files: tuple[str, ...] = field_for_resolve((), changes_bytes=False, is_kept=True)
    device: str = option("cpu", DEVICE_HELP, changes_bytes=False, is_kept=True)

    def __post_init__(self) -> None:
        check_config(self)
        object.__setattr__(self, "classes", tuple(tuple(sorted(set(each))) for each in self.classes))
        if self.protocol == CLASSES and (self.folds or self.fold):
            raise ConfigError(
                "--folds and --fold are for a benchmark; pass --protocol pascal-5i or coco-20i, or leave them out"
            )
        if self.protocol != CLASSES and (self.classes or not self.folds):
            raise ConfigError(
                f"{self.protocol} takes its classes and pictures from its lists; pass their folder (with trn and val "
                "in it) as --folds, and no --classes"
            )


def checkpoint_role(number: int) -> str:
    """The role of a checkpoint; roles count from 1."""
    return f"{CHECKPOINT}{number + 1}"


def labels_role(number: int) -> str:
    """The role of a checkpoint's labels; the first labels serve all checkpoints if there are no others."""
    return f"{LABELS}{number + 1}"


def refuse_count(name: str, given: Sequence[object], num_checkpoints: int) -> None:
    if given and len(given) != num_checkpoints:
        raise ConfigError(
            f"--{name} is given {count_of(len(given), 'time')} for {count_of(num_checkpoints, 'checkpoint')}; "
            "give it once for each, in order"
        )


FSCS = Command(
    name="fscs",
    makes="metrics",
    config=FewShotConfig,
    work=".evaluate.few_shot:FSCS",
    roles={
        CHECKPOINT: Role(
            kind="checkpoint",
            metavar="CHECKPOINT...",
            help="Checkpoint of `train --student cst`, or a file of the original training (.ckpt, .pt).",
            several=CHECKPOINT,
            or_field="files",
            made_by=("train",),
        ),
        "tokens": replace(TOKENS, help="Stored tokens and support_tokens of the pictures."),
        "images": replace(IMAGES, help="Images with masks; by default those of the tokens.", found_from="tokens"),
        LABELS: Role(
            kind="labels|dataset",
            flag="--labels",
            metavar="LABELS|DATASET",
            help="Enhanced masks of supports: once for all checkpoints, or once for each in turn.",
            is_optional=True,
            several=LABELS,
            made_by=(),
        ),
    },
    help="Exact ratio and mIoU on classes that were not learned. Give one CHECKPOINT per fold. Exits 6 if the result "
    "may be too good, such as after training on test pictures. Rerun to resume.",
    has_units=False,
    in_recipes=False,
    retired={"features": FEATURES},
)
