"""Train a student on a published dataset: from labels and features to a checkpoint."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ...manifests.artifact.tokens import Tokens, array_names
from ...manifests.artifact.underway import Underway
from ...manifests.errors import ConfigError, InputError
from ...manifests.published.schema import FRAME
from ..scores.truth import GroundTruth, refuse_other_classes
from ..stage import Configs, Findings, Inputs, WholeStage
from ..students.feature_names import ONE_BLOCK
from ..students.features import (
    Cached,
    Features,
    Online,
    PictureLoader,
    pictures_of_dataset,
    pictures_of_images,
    resolve_backbone,
)
from ..students.same_pictures import refuse_other_pictures
from ..vision.patch_features import resolve_keys
from .config import TRAIN, TrainConfig
from .cst import train_learner
from .given import TrainingData
from .linear import train_classifier
from .published import PublishedDataset


def resolve(config: TrainConfig, inputs: Inputs) -> TrainConfig:
    """A linear student always learns on a CPU, whatever its backbone runs on."""
    if inputs and (config.seeing is None) != ("tokens" in inputs):
        raise ConfigError(
            "a student needs either stored tokens (--tokens DIR) or a backbone to run (--backbone NAME), not both"
        )
    if config.seeing is None:
        is_read = config.reads_keys and "tokens" in inputs and "keys" in inputs["tokens"].plan.fields
        return replace(config, keys=str(resolve_keys(Tokens(inputs["tokens"])))) if is_read else config
    device = "cpu" if config.student == "linear" else config.device
    return replace(config, seeing=resolve_backbone(config.seeing, config.device), device=device)


def wants(config: TrainConfig, extract: Mapping[str, Any]) -> Sequence[str]:
    if config.seeing is not None:
        return ()
    if config.student == "linear":
        return ("tokens" if config.block is None else f"tokens:{config.block}",)
    several = ("tokens:all", "support_tokens:all")
    return (*several, "keys", "cls_query") if config.reads_keys else several


def skips(config: TrainConfig) -> Sequence[str]:
    return ("tokens",) if config.seeing is not None else ()


def refuse(configs: Configs, given: Inputs) -> None:
    if configs["train"].student == "cst" and "extract" in configs and configs["extract"].fit != "squash":
        raise ConfigError('reads a view without padding; set fit = "squash" in [extract]')


def reads(config: TrainConfig, inputs: Inputs) -> Mapping[str, Sequence[str]]:
    needed: dict[str, Sequence[str]] = {"dataset": (FRAME,)}
    if "tokens" in inputs:
        tokens = inputs["tokens"]
        fields = dict.fromkeys("tokens" if name == ONE_BLOCK else name for name in config.fields)
        needed["tokens"] = array_names(tokens, [name for name in fields if name in tokens.plan.fields])
    if "images" in inputs:
        pictures, masks = ["picture"] if config.seeing else [], ["mask"] if _has_masks(inputs) else []
        needed["images"] = ["labels", *pictures, *masks]
    return needed


def compute(config: TrainConfig, inputs: Inputs, underway: Underway) -> Findings:
    published = PublishedDataset(inputs["dataset"])
    features = _features(config, inputs, published)
    given = TrainingData(inputs["dataset"], published, features, _truth(inputs))
    trained = train_classifier if config.student == "linear" else train_learner
    return trained(config, given, underway)


def _features(config: TrainConfig, inputs: Inputs, published: PublishedDataset) -> Features:
    if config.seeing is not None:
        return Online(config.seeing, config.fields, _pictures(inputs, published), block=config.block)
    features = Cached(Tokens(inputs["tokens"]), config.fields, config.block)
    refuse_other_pictures(inputs["tokens"], inputs["dataset"])
    return features


def _pictures(inputs: Inputs, published: PublishedDataset) -> PictureLoader:
    """The indexed pictures if there are any, else those that the dataset leads to."""
    if "images" in inputs:
        refuse_other_pictures(inputs["images"], inputs["dataset"])
        return pictures_of_images(inputs["images"])
    labels = published.labels
    is_inside = labels.artifact.plan.config["embed_images"]
    if not (is_inside or labels.images_root or "://" in labels.row(0)["uri"]):
        raise InputError(
            f"{published.place} neither holds its pictures nor leads to them; pass the images artifact as --images, or "
            "stored tokens as --tokens"
        )
    return pictures_of_dataset(labels)


def _truth(inputs: Inputs) -> GroundTruth | None:
    """None without any mask."""
    if not _has_masks(inputs):
        return None
    refuse_other_pictures(inputs["images"], inputs["dataset"])
    refuse_other_classes(inputs["dataset"], inputs["images"])
    return GroundTruth(inputs["images"], "--images")


def _has_masks(inputs: Inputs) -> bool:
    return "images" in inputs and "mask" in inputs["images"].plan.fields


STAGE = WholeStage(
    command=TRAIN,
    code_version=2,
    resolve=resolve,
    wants=wants,
    skips=skips,
    refuse=refuse,
    compute=compute,
    reads=reads,
    takes_long=True,
    libraries=("numpy", "Pillow", "timm", "torch"),
    device=lambda config: str(config.device if config.student == "cst" else "cpu").partition(":")[0],
)
