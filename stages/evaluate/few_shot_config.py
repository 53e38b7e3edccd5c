"""What is asked of `evaluate fscs`."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from ...manifests.artifact.artifact import open_artifact, source_of
from ...manifests.artifact.fingerprint import setting
from ...manifests.datasets.fold_lists import Benchmark, read_fold
from ...manifests.errors import ConfigError
from ...manifests.files.place import place
from ...manifests.files.sealed import digest_of
from ..scores.few_shot import Void
from ..students.episodes import JUDGED
from ..students.features import BackboneConfig
from ..vision.backbone import find_device
from .learners import file_sha256
from .support_masks import SupportMask

CLASSES: Final = "classes"  # the protocol without lists: a split of any dataset's classes
BENCHMARKS: tuple[Benchmark, ...] = ("pascal-5i", "coco-20i")


@dataclass(frozen=True, slots=True, kw_only=True)
class FewShotConfig:
    protocol: Literal["pascal-5i", "coco-20i", "classes"]
    fold: tuple[int, ...]  # of each checkpoint, of a benchmark
    lists_sha256: tuple[str, ...]  # of what each fold's lists say
    classes: tuple[tuple[str, ...], ...]  # of each checkpoint; none: those that it has not learned
    way: int
    shot: int
    episodes: int
    void: Void
    support_mask: SupportMask
    save_predictions: bool
    resamples: int
    seed: int  # of the bootstrap; episodes follow from their numbers
    files_sha256: tuple[str, ...]  # of each checkpoint that is a file, "" of an artifact
    seeing: BackboneConfig | None  # None: stored tokens
    folds: str = setting(default="", changes_bytes=False, is_kept=True)  # where the lists lie
    files: tuple[str, ...] = setting(default=(), changes_bytes=False, is_kept=True)
    device: str = setting(default="cpu", changes_bytes=False, is_kept=True)

    def __post_init__(self) -> None:
        for name in ("way", "shot", "episodes", "resamples"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)} and must be at least 1")
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed} and must be at least 0")


def few_shot_config(
    files: Sequence[str],
    protocol: str = CLASSES,
    folds: str = "",
    fold: Sequence[int] = (),
    classes: Sequence[Sequence[str]] = (),
    way: int = 1,
    shot: int = 1,
    episodes: int = JUDGED,
    void: Void = "background",
    support_mask: SupportMask = "pseudo",
    save_predictions: bool = False,
    seeing: BackboneConfig | None = None,
    device: str = "cpu",
    resamples: int = 1000,
    seed: int = 0,
) -> FewShotConfig:
    """What a user asks for; raises ConfigError for what cannot work. `files` has one entry per checkpoint: its file, or
    "" for one that is an artifact."""
    find_device(device)
    named: Mapping[str, Benchmark] = {each: each for each in BENCHMARKS}
    benchmark = named.get(protocol)
    if benchmark is None:
        if protocol != CLASSES:
            raise ConfigError(f"protocol is {protocol} and must be one of {', '.join((*BENCHMARKS, CLASSES))}")
        _refuse_lists(folds, fold)
        _refuse_count("classes", classes, files)
        if any(files) and not classes:
            raise ConfigError("a file does not say which classes it has learned; name the others with --classes")
        chosen: tuple[int, ...] = ()
    else:
        if classes or not folds:
            raise ConfigError(
                f"{protocol} takes its classes and pictures from its lists; pass their folder (with trn and val in it) "
                "as --folds, and no --classes"
            )
        _refuse_count("fold", fold, files)
        chosen = tuple(fold) or tuple(range(len(files)))
    return FewShotConfig(
        protocol=benchmark or CLASSES,
        fold=chosen,
        lists_sha256=tuple(_lists_sha256(benchmark, folds, each) for each in chosen) if benchmark else (),
        classes=tuple(tuple(sorted(set(each))) for each in classes),
        way=way,
        shot=shot,
        episodes=episodes,
        void=void,
        support_mask=support_mask,
        save_predictions=save_predictions,
        resamples=resamples,
        seed=seed,
        files_sha256=tuple(file_sha256(each) if each else "" for each in files),
        seeing=seeing,
        folds=folds,
        files=tuple(files),
        device=device,
    )


def few_shot_inputs(
    checkpoints: Sequence[str], tokens: str, images: str, labels: Sequence[str]
) -> tuple[list[str], dict[str, str]]:
    """The checkpoints that are files, "" for each that is an artifact; and where every artifact lies, by its role."""
    files = [os.path.abspath(each) if os.path.isfile(each) else "" for each in checkpoints]
    inputs = {
        checkpoint_role(number): place(each).uri
        for number, (each, file) in enumerate(zip(checkpoints, files, strict=True))
        if not file
    }
    if tokens:
        opened = open_artifact(tokens, "tokens")
        inputs |= {"tokens": opened.place.uri, "images": place(images).uri if images else source_of(opened, "images")}
    elif images:
        inputs["images"] = place(images).uri
    else:
        raise ConfigError("without stored tokens nothing says which pictures to judge on; pass --images IMAGES")
    if len(labels) > 1:
        _refuse_count("labels", labels, files)
    return files, inputs | {labels_role(number): place(each).uri for number, each in enumerate(labels)}


def checkpoint_role(number: int) -> str:
    """Checkpoints are counted from 1 where their roles are told."""
    return f"checkpoint{number + 1}"


def labels_role(number: int) -> str:
    """Of a checkpoint's labels, where each has its own; the first are those of all where there are no others."""
    return f"labels{number + 1}"


def _lists_sha256(benchmark: Benchmark, folds: str, fold: int) -> str:
    found = read_fold(benchmark, folds, fold, "novel")
    return digest_of([list(found.classes), [list(line) for line in found.lines]])


def _refuse_lists(folds: str, fold: Sequence[int]) -> None:
    if folds or fold:
        raise ConfigError("--folds and --fold are of a benchmark; pass --protocol pascal-5i or coco-20i, or leave them")


def _refuse_count(name: str, given: Sequence[object], files: Sequence[str]) -> None:
    if given and len(given) != len(files):
        raise ConfigError(
            f"--{name} is given {len(given)} times for {len(files)} checkpoints; give it once for each, in their order"
        )
