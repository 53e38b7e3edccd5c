"""Few-shot classification and segmentation: learners are scored on classes that they have not learned."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

import numpy as np
import pyarrow as pa

from ...manifests.artifact import tables
from ...manifests.artifact.artifact import Artifact
from ...manifests.artifact.facts import class_table
from ...manifests.artifact.leakage import find_training_ids, leakage_warnings
from ...manifests.artifact.tokens import Tokens, array_names
from ...manifests.artifact.underway import Underway
from ...manifests.counts import count_of
from ...manifests.datasets.fold_lists import read_fold
from ...manifests.errors import ConfigError
from ...manifests.files.sealed import Json
from ...manifests.published.schema import class_names
from ..scores.few_shot import Answered
from ..scores.truth import GroundTruth, refuse_other_classes
from ..stage import Findings, Inputs, WholeStage
from ..students.episodes import Episode
from ..students.facts import student_facts
from ..students.feature_names import SEVERAL
from ..students.features import Cached, Features, Online, pictures_of_images, resolve_backbone
from ..students.same_pictures import refuse_other_pictures
from ..vision.backbone import find_device
from ..vision.patch_features import resolve_keys
from .answering import Answerer, fields_to_read, similarities_of
from .episode_rows import (
    EpisodeRow,
    collect_answers,
    collect_floor_answers,
    episode_row,
    predictions_table,
    true_presence,
)
from .few_shot_config import CHECKPOINT, CLASSES, FSCS as COMMAND, LABELS, FewShotConfig, labels_role, refuse_count
from .few_shot_floors import all_foreground, choose_threshold, constant, nearest_cls
from .few_shot_tables import FLOORS, LEARNER, FoldAnswers, class_rows, comparison, fold_table, mean_table
from .folds import Fold, base_episodes, lists_digest, make_folds, usable_ids
from .learners import TrainedLearner, file_sha256, load_learners, refuse_other_features
from .predictions import LabelMaps
from .published_scores import find_published_scores
from .support_masks import Masks, label_map_masks, pseudo_masks, refuse_without_maps, true_masks

KEEP_EVERY_S = 60.0
THRESHOLD_EPISODES = 200  # to choose the floor's threshold on


@dataclass(frozen=True, slots=True)
class _Run:
    """What all folds share."""

    config: FewShotConfig
    inputs: Inputs
    truth: GroundTruth
    features: Features
    underway: Underway

    @property
    def reads_keys(self) -> bool:
        return self.config.support_mask == "pseudo"


def resolve(config: FewShotConfig, inputs: Inputs) -> FewShotConfig:
    """Counts checkpoints, artifacts and files together; looks up the digests of files and lists."""
    find_device(config.device)
    if not inputs:
        return config
    files = config.files or ("",) * sum(role.startswith(CHECKPOINT) for role in inputs)
    refuse_count("classes", config.classes, len(files))
    refuse_count("fold", config.fold, len(files))
    num_labels = sum(role.startswith(LABELS) for role in inputs)
    if num_labels > 1:
        refuse_count("labels", range(num_labels), len(files))
    if (config.seeing is None) != ("tokens" in inputs):
        raise ConfigError(
            "scoring needs either stored tokens (--tokens DIR) or a backbone to run (--backbone NAME), not both"
        )
    fold, lists = config.fold, tuple[str, ...]()
    if config.protocol == CLASSES:
        if any(files) and not config.classes:
            file = next(filter(None, files))
            raise ConfigError(f"{file} does not say which classes it has learned; name those to score with --classes")
    else:
        fold = config.fold or tuple(range(len(files)))
        lists = tuple(lists_digest(read_fold(config.protocol, config.folds, number, "novel")) for number in fold)
    reads_keys = config.support_mask == "pseudo" and "tokens" in inputs and "keys" in inputs["tokens"].plan.fields
    return replace(
        config,
        keys=str(resolve_keys(Tokens(inputs["tokens"]))) if reads_keys else config.keys,
        fold=fold,
        lists_sha256=lists,
        files=files,
        files_sha256=tuple(file_sha256(file) if file else "" for file in files),
        seeing=config.seeing and resolve_backbone(config.seeing, config.device),
    )


def reads(config: FewShotConfig, inputs: Inputs) -> Mapping[str, Sequence[str]]:
    _refuse_labels(config, inputs)
    has_masks = "mask" in inputs["images"].plan.fields
    needed: dict[str, Sequence[str]] = {
        "images": ["labels", *(["mask"] if has_masks else []), *(["picture"] if config.seeing else [])]
    }
    for role, artifact in inputs.items():
        if role.startswith(CHECKPOINT):
            needed[role] = sorted(artifact.fingerprints)
        elif role == "tokens":
            fields = fields_to_read(config.support_mask == "pseudo")
            Tokens(artifact).require(fields, _blocks_of(inputs, Tokens(artifact)))
            needed[role] = array_names(artifact, fields)
        elif role.startswith(LABELS):
            needed[role] = ("data",) if artifact.plan.kind == "dataset" else ("label", "found")
    return needed


def _blocks_of(inputs: Inputs, tokens: Tokens) -> Mapping[str, str]:
    """The blocks that the learners read, as `extract` spells them; all, if only files are given."""
    specs = [student_facts(artifact).sight for role, artifact in inputs.items() if role.startswith(CHECKPOINT)]
    blocks = next((spec.blocks for spec in specs if spec), ())
    is_part = 0 < len(blocks) < tokens.facts.backbone.depth
    return dict.fromkeys(SEVERAL, "+".join(map(str, blocks)) if is_part else "all")


def _refuse_labels(config: FewShotConfig, inputs: Inputs) -> None:
    if (config.support_mask == "enhanced") != (labels_role(0) in inputs):
        raise ConfigError(
            "--labels and --support-mask enhanced need each other: enhanced masks of supports come from label maps; "
            "pass --labels LABELS or DATASET with --support-mask enhanced, or leave both out"
        )


def compute(config: FewShotConfig, inputs: Inputs, underway: Underway) -> Findings:
    truth = GroundTruth(inputs["images"], "--images")
    learners = load_learners(config, inputs)
    folds = make_folds(config, learners, inputs["images"], truth, usable_ids(config, inputs))
    if "tokens" in inputs:
        refuse_other_pictures(inputs["tokens"], inputs["images"])
    shared = _Run(config, inputs, truth, _features(config, inputs, learners), underway)
    for learner, fold in zip(learners, folds, strict=True):
        refuse_other_features(learner, shared.features)
        shared.features.require(fold.ids)
    rows = _answer_episodes(shared, learners, folds, _masks(shared, folds))
    is_present = [true_presence(fold.episodes, truth) for fold in folds]
    answers = [_score_fold(shared, *parts) for parts in zip(learners, folds, rows, is_present, strict=True)]
    metrics, classes = _tables(shared, answers)
    text = json.dumps(metrics, indent=1, sort_keys=True, allow_nan=False)
    files = {"metrics.json": text.encode(), "classes.parquet": classes}
    if config.save_predictions:
        files["episodes.parquet"] = predictions_table(
            (fold.name, fold.episodes, fold_rows, present)
            for fold, fold_rows, present in zip(folds, rows, is_present, strict=True)
        )
    facts = {"protocol": config.protocol, "mean": metrics["mean"]}
    return Findings(files, facts, _warnings(shared, learners, folds))


def _features(config: FewShotConfig, inputs: Inputs, learners: Sequence[TrainedLearner]) -> Features:
    fields = fields_to_read(config.support_mask == "pseudo")
    if config.seeing is None:
        return Cached(Tokens(inputs["tokens"]), fields)
    blocks = next((learner.facts.sight.blocks for learner in learners if learner.facts.sight), ())
    return Online(config.seeing, fields, pictures_of_images(inputs["images"]), blocks)


def _masks(shared: _Run, folds: Sequence[Fold]) -> list[Masks]:
    sight, images = shared.features.sight, shared.inputs["images"]
    if shared.config.support_mask == "pseudo":
        return [pseudo_masks(sight)] * len(folds)
    if shared.config.support_mask == "gt":
        return [true_masks(shared.truth, sight)] * len(folds)
    masks = []
    for number, fold in enumerate(folds):
        labels = _labels(shared, number)
        refuse_other_pictures(labels, images)
        refuse_other_classes(labels, images)
        maps = LabelMaps(labels, shared.truth.labels, len(class_table(labels)))
        refuse_without_maps(maps, fold.supports, str(labels.place))
        masks.append(label_map_masks(maps, sight))
    return masks


def _labels(shared: _Run, number: int) -> Artifact:
    return shared.inputs.get(labels_role(number), shared.inputs[labels_role(0)])


def _answer_episodes(
    shared: _Run, learners: Sequence[TrainedLearner], folds: Sequence[Fold], masks: Sequence[Masks]
) -> list[list[EpisodeRow]]:
    """The rows of each fold; saved rows are not answered again."""
    done = _load_saved_rows(shared.underway)
    next_keep = time.monotonic() + KEEP_EVERY_S
    places = [(place, episode) for place, fold in enumerate(folds) for episode in fold.episodes]
    for place, episode in places[len(done) :]:
        done.append(_answer_episode(shared, learners[place], episode, masks[place]))
        if time.monotonic() > next_keep:
            shared.underway.keep(f"{len(done):09d}.json", json.dumps([row.as_json() for row in done]).encode())
            shared.underway.say(f"{len(done):,} of {count_of(len(places), 'episode')} answered")
            next_keep = time.monotonic() + KEEP_EVERY_S
    ends = list(accumulate((len(fold.episodes) for fold in folds), initial=0))
    return [done[start:stop] for start, stop in pairwise(ends)]


def _load_saved_rows(underway: Underway) -> list[EpisodeRow]:
    for _, data in underway.latest():
        return [EpisodeRow.from_json(row) for row in json.loads(data)]
    return []


def _answer_episode(shared: _Run, trained: TrainedLearner, episode: Episode, masks: Masks) -> EpisodeRow:
    truth_HW = shared.truth.mask(episode.query)
    device = find_device(shared.config.device)
    answerer = Answerer(trained.learner.to(device).eval(), shared.features, masks, shared.reads_keys, device)
    answer = answerer.answer(episode, (truth_HW.shape[0], truth_HW.shape[1]))
    return episode_row(episode, answer, truth_HW, shared.config.void)


def _score_fold(
    shared: _Run, trained: TrainedLearner, fold: Fold, rows: Sequence[EpisodeRow], is_present: np.ndarray
) -> FoldAnswers:
    config, episodes, facts = shared.config, fold.episodes, trained.facts
    similarity_EN = np.array([row.similarities for row in rows], np.float64)
    count, threshold = len(episodes), _threshold(shared, fold)
    guesses = {
        FLOORS[0]: constant(count, config.way, is_present=False),
        FLOORS[1]: all_foreground(count, config.way),
        **({} if threshold is None else {FLOORS[2]: nearest_cls(similarity_EN, threshold)}),
    }
    by_name: dict[str, Answered] = {LEARNER: collect_answers(episodes, rows, is_present)}
    for name, guess in guesses.items():
        by_name[name] = collect_floor_answers(episodes, guess, shared.truth, config.void, is_present)
    names = class_names(class_table(shared.inputs["images"]))
    summary: dict[str, Json] = {
        "name": fold.name,
        "checkpoint": trained.where.rstrip("/").rpartition("/")[2],
        "classes": [names[index] for index in fold.classes],
        "episodes": count,
        "pictures": fold.pictures,
        "queries": len({episode.query for episode in episodes}),
        "present": round(float(np.mean(is_present)), 4),
        "nearest_threshold": None if threshold is None or np.isinf(threshold) else threshold,
        **({"supervision": facts.supervision} if facts.supervision else {}),
        **({"select": facts.select} if facts.select else {}),
    }
    return FoldAnswers(said=summary, answered=by_name)


def _threshold(shared: _Run, fold: Fold) -> float | None:
    """The similarity that separates episodes of learned classes best; None without pictures of these classes."""
    usable = usable_ids(shared.config, shared.inputs)
    labels = {identifier: classes for identifier, classes in shared.truth.labels.items() if identifier in usable}
    episodes = base_episodes(fold.base, labels, fold.classes, shared.config.shot, THRESHOLD_EPISODES)
    if not episodes:
        shared.underway.say(
            f"no learned class has {shared.config.shot + 1} pictures in {shared.inputs['images'].place}, so the "
            f"threshold of {FLOORS[2]} cannot be chosen and {fold.name} does not have this floor"
        )
        return None
    is_present_E = np.array([episode.is_present[0] for episode in episodes])
    return choose_threshold(np.array(similarities_of(shared.features, episodes)), is_present_E)


def _tables(shared: _Run, folds: Sequence[FoldAnswers]) -> tuple[dict[str, Json], bytes]:
    config = shared.config
    names = class_names(class_table(shared.inputs["images"]))
    mean = mean_table(folds, config.seed, config.resamples)
    metrics: dict[str, Json] = {
        **{name: getattr(config, name) for name in ("protocol", "way", "shot", "void", "support_mask")},
        "folds": [fold_table(fold, config.seed, config.resamples) for fold in folds],
        "mean": mean,
    }
    supervisions = [str(fold.said["supervision"]) for fold in folds if "supervision" in fold.said]
    published = find_published_scores(config, supervisions)
    if published is not None:
        metrics["published"] = comparison(published, mean)
    rows = [row for fold in folds for row in class_rows(fold, names)]
    return metrics, tables.encode_table(pa.Table.from_pylist(rows))


def _warnings(shared: _Run, learners: Sequence[TrainedLearner], folds: Sequence[Fold]) -> list[str]:
    warnings = []
    for trained, fold in zip(learners, folds, strict=True):
        if trained.facts.select == "upstream":
            warnings.append(f"the step of {trained.where} was chosen on test episodes, so {fold.name} flatters it")
        if both := trained.seen.intersection(fold.ids):
            warnings.append(
                f"{trained.where} has learned from {count_of(len(both), 'picture')} of {fold.name}, which may "
                "flatter it"
            )
    if shared.config.support_mask == "enhanced":
        for number, fold in enumerate(folds):
            labels = _labels(shared, number)
            fitted = find_training_ids(labels)
            warnings += leakage_warnings(labels, fitted)
            if both := fitted.ids & fold.supports:
                warnings.append(
                    f"{labels.place} was made with the true masks of {count_of(len(both), 'support')}, which may "
                    "flatter"
                )
    return warnings


FSCS = WholeStage(
    command=COMMAND,
    code_version=1,
    resolve=resolve,
    compute=compute,
    reads=reads,
    libraries=("numpy", "torch"),
    device=lambda config: config.device.partition(":")[0],
)
