"""Few-shot classification and segmentation: learners judged on classes that they have not learned."""

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
from ...manifests.datasets.fold_lists import Benchmark, read_fold
from ...manifests.errors import ConfigError
from ...manifests.files.sealed import Json, digest_of
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
from .folds import Fold, base_episodes, episode_ids
from .learners import TrainedLearner, file_sha256, refuse_other_features
from .predictions import LabelMaps
from .published_scores import find_published_scores
from .questions import load_learners, make_folds, usable_ids
from .support_masks import Masks, label_map_masks, pseudo_masks, refuse_without_maps, true_masks

KEEP_EVERY_S = 60.0
THRESHOLD_EPISODES = 200  # that the floor's threshold is chosen on


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is the same for every fold."""

    config: FewShotConfig
    inputs: Inputs
    truth: GroundTruth
    features: Features
    underway: Underway

    @property
    def reads_keys(self) -> bool:
        return self.config.support_mask == "pseudo"


def resolve(config: FewShotConfig, inputs: Inputs) -> FewShotConfig:
    """Checkpoints are counted, artifacts and files together; a file's digest and what lists say are looked up."""
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
        raise ConfigError("judging needs either stored tokens (--tokens DIR) or a backbone to run (--backbone NAME)")
    fold, lists = config.fold, tuple[str, ...]()
    if config.protocol == CLASSES:
        if any(files) and not config.classes:
            raise ConfigError("a file does not say which classes it has learned; name the others with --classes")
    else:
        fold = config.fold or tuple(range(len(files)))
        lists = tuple(_lists_sha256(config.protocol, config.folds, each) for each in fold)
    return replace(
        config,
        fold=fold,
        lists_sha256=lists,
        files=files,
        files_sha256=tuple(file_sha256(each) if each else "" for each in files),
        seeing=config.seeing and resolve_backbone(config.seeing, config.device),
    )


def _lists_sha256(benchmark: Benchmark, folds: str, fold: int) -> str:
    lists = read_fold(benchmark, folds, fold, "novel")
    return digest_of([list(lists.classes), [list(line) for line in lists.lines]])


def reads(config: FewShotConfig, inputs: Inputs) -> Mapping[str, Sequence[str]]:
    _refuse_labels(config, inputs)
    held = inputs["images"].plan.fields
    of_images = ["labels", *(["mask"] if "mask" in held else []), *(["picture"] if config.seeing else [])]
    needed: dict[str, Sequence[str]] = {"images": of_images}
    for role, artifact in inputs.items():
        if role.startswith("checkpoint"):
            needed[role] = sorted(artifact.fingerprints)
        elif role == "tokens":
            fields = fields_to_read(config.support_mask == "pseudo")
            Tokens(artifact).require(fields, _blocks_of(inputs, Tokens(artifact)))
            needed[role] = array_names(artifact, fields)
        elif role.startswith("labels"):
            needed[role] = ("data",) if artifact.plan.kind == "dataset" else ("label", "found")
    return needed


def _blocks_of(inputs: Inputs, tokens: Tokens) -> Mapping[str, str]:
    """What the learners look at, as `extract` is told it: what a file was trained on is not known, so all."""
    known = [student_facts(each).sight for role, each in inputs.items() if role.startswith("checkpoint")]
    blocks = next((sight.blocks for sight in known if sight), ())
    is_part = 0 < len(blocks) < tokens.facts.backbone.depth
    return dict.fromkeys(SEVERAL, "+".join(map(str, blocks)) if is_part else "all")


def _refuse_labels(config: FewShotConfig, inputs: Inputs) -> None:
    if (config.support_mask == "enhanced") != (labels_role(0) in inputs):
        raise ConfigError(
            "enhanced masks of supports come from label maps, and nothing else does; pass --labels LABELS or DATASET "
            "with --support-mask enhanced, or neither"
        )


def compute(config: FewShotConfig, inputs: Inputs, underway: Underway) -> Findings:
    truth = GroundTruth(inputs["images"], "--images")
    learners = load_learners(config, inputs)
    folds = make_folds(config, learners, inputs["images"], truth, usable_ids(config, inputs))
    if "tokens" in inputs:
        refuse_other_pictures(inputs["tokens"], inputs["images"])
    asked = _Asked(config, inputs, truth, _features(config, inputs, learners), underway)
    for learner, fold in zip(learners, folds, strict=True):
        refuse_other_features(learner, asked.features)
        asked.features.require(list(dict.fromkeys(each for one in fold.episodes for each in episode_ids(one))))
    masks = _masks(asked, folds)
    rows = _answer_episodes(asked, learners, folds, masks)
    is_present = [true_presence(fold.episodes, truth) for fold in folds]
    found = [
        _score_fold(asked, learner, fold, rows[place], is_present[place])
        for place, (learner, fold) in enumerate(zip(learners, folds, strict=True))
    ]
    metrics, classes = _tables(asked, folds, found)
    text = json.dumps(metrics, indent=1, sort_keys=True, allow_nan=False)
    files = {"metrics.json": text.encode(), "classes.parquet": classes}
    if config.save_predictions:
        told = [(fold.name, fold.episodes, rows[n], is_present[n]) for n, fold in enumerate(folds)]
        files["episodes.parquet"] = predictions_table(told)
    facts = {"protocol": config.protocol, "mean": metrics["mean"]}
    return Findings(files, facts, _warnings(asked, learners, folds))


def _features(config: FewShotConfig, inputs: Inputs, learners: Sequence[TrainedLearner]) -> Features:
    fields = fields_to_read(config.support_mask == "pseudo")
    if config.seeing is None:
        return Cached(Tokens(inputs["tokens"]), fields)
    blocks = next((each.facts.sight.blocks for each in learners if each.facts.sight), ())
    return Online(config.seeing, fields, pictures_of_images(inputs["images"]), blocks)


def _masks(asked: _Asked, folds: Sequence[Fold]) -> list[Masks]:
    """For each fold."""
    sight = asked.features.sight
    match asked.config.support_mask:
        case "pseudo":
            return [pseudo_masks(sight)] * len(folds)
        case "gt":
            return [true_masks(asked.truth, sight)] * len(folds)
    found = []
    for number, fold in enumerate(folds):
        labels = _labels(asked, number)
        refuse_other_pictures(labels, asked.inputs["images"])
        refuse_other_classes(labels, asked.inputs["images"])
        maps = LabelMaps(labels, asked.truth.labels, len(class_table(labels)))
        refuse_without_maps(maps, _supports(fold), str(labels.place))
        found.append(label_map_masks(maps, sight))
    return found


def _labels(asked: _Asked, number: int) -> Artifact:
    return asked.inputs.get(labels_role(number), asked.inputs[labels_role(0)])


def _answer_episodes(
    asked: _Asked, learners: Sequence[TrainedLearner], folds: Sequence[Fold], masks: Sequence[Masks]
) -> list[list[EpisodeRow]]:
    """Of each fold; those that were kept are not answered again."""
    done = _load_saved_rows(asked.underway)
    next_keep = time.monotonic() + KEEP_EVERY_S
    places = [(place, number) for place, fold in enumerate(folds) for number in range(len(fold.episodes))]
    for place, number in places[len(done) :]:
        done.append(_answer_episode(asked, learners[place], folds[place].episodes[number], masks[place]))
        if time.monotonic() > next_keep:
            asked.underway.keep(f"{len(done):09d}.json", json.dumps([row.as_json() for row in done]).encode())
            asked.underway.say(f"{len(done):,} of {len(places):,} episodes answered")
            next_keep = time.monotonic() + KEEP_EVERY_S
    ends = list(accumulate((len(fold.episodes) for fold in folds), initial=0))
    return [done[start:stop] for start, stop in pairwise(ends)]


def _load_saved_rows(underway: Underway) -> list[EpisodeRow]:
    for _, data in underway.latest():
        return [EpisodeRow.from_json(each) for each in json.loads(data)]
    return []


def _answer_episode(asked: _Asked, judged: TrainedLearner, episode: Episode, masks: Masks) -> EpisodeRow:
    truth_HW = asked.truth.mask(episode.query)
    device = find_device(asked.config.device)
    answerer = Answerer(judged.learner.to(device).eval(), asked.features, masks, asked.reads_keys, device)
    found = answerer.answer(episode, (truth_HW.shape[0], truth_HW.shape[1]))
    return episode_row(episode, found, truth_HW, asked.config.void)


def _score_fold(
    asked: _Asked, judged: TrainedLearner, fold: Fold, rows: Sequence[EpisodeRow], is_present: np.ndarray
) -> FoldAnswers:
    config, episodes = asked.config, fold.episodes
    similarity_EN = np.array([row.similarities for row in rows], np.float64)
    count, threshold = len(episodes), _threshold(asked, fold)
    guesses = {
        FLOORS[0]: constant(count, config.way, is_present=False),
        FLOORS[1]: all_foreground(count, config.way),
        **({} if threshold is None else {FLOORS[2]: nearest_cls(similarity_EN, threshold)}),
    }
    by_name: dict[str, Answered] = {LEARNER: collect_answers(episodes, rows, is_present)}
    for name, guess in guesses.items():
        by_name[name] = collect_floor_answers(episodes, guess, asked.truth, config.void, is_present)
    names = class_names(class_table(asked.inputs["images"]))
    said: dict[str, Json] = {
        "name": fold.name,
        "checkpoint": judged.where.rstrip("/").rpartition("/")[2],
        "classes": [names[each] for each in fold.classes],
        "episodes": count,
        "pictures": fold.pictures,
        "queries": len({each.query for each in episodes}),
        "present": round(float(np.mean(is_present)), 4),
        "nearest_threshold": None if threshold is None or np.isinf(threshold) else threshold,
        **({"supervision": judged.facts.supervision} if judged.facts.supervision else {}),
        **({"select": judged.facts.select} if judged.facts.select else {}),
    }
    return FoldAnswers(said=said, answered=by_name)


def _threshold(asked: _Asked, fold: Fold) -> float | None:
    """Of class tokens, by episodes of the classes that were learned; None where there are no pictures of these."""
    usable = usable_ids(asked.config, asked.inputs)
    labels = {each: found for each, found in asked.truth.labels.items() if each in usable}
    episodes = base_episodes(fold.base, labels, fold.classes, asked.config.shot, THRESHOLD_EPISODES)
    if not episodes:
        asked.underway.say(
            f"no class that was learned has {asked.config.shot + 1} pictures in {asked.inputs['images'].place}, so the "
            f"threshold of {FLOORS[2]} cannot be chosen and {fold.name} is without this floor"
        )
        return None
    is_present_E = np.array([each.is_present[0] for each in episodes])
    return choose_threshold(np.array(similarities_of(asked.features, episodes)), is_present_E)


def _tables(asked: _Asked, folds: Sequence[Fold], found: Sequence[FoldAnswers]) -> tuple[dict[str, Json], bytes]:
    config = asked.config
    names = class_names(class_table(asked.inputs["images"]))
    mean = mean_table(found, config.seed, config.resamples)
    metrics: dict[str, Json] = {
        **{name: getattr(config, name) for name in ("protocol", "way", "shot", "void", "support_mask")},
        "folds": [fold_table(each, config.seed, config.resamples) for each in found],
        "mean": mean,
    }
    supervisions = [str(each.said["supervision"]) for each in found if "supervision" in each.said]
    published = find_published_scores(config, supervisions)
    if published is not None:
        metrics["published"] = comparison(published, mean)
    return metrics, tables.encode_table(
        pa.Table.from_pylist([row for each in found for row in class_rows(each, names)])
    )


def _warnings(asked: _Asked, learners: Sequence[TrainedLearner], folds: Sequence[Fold]) -> list[str]:
    found = []
    for judged, fold in zip(learners, folds, strict=True):
        pictures = {each for episode in fold.episodes for each in episode_ids(episode)}
        if judged.facts.select == "upstream":
            found.append(f"{judged.where} was chosen among its steps by test episodes, so {fold.name} flatters it")
        if both := pictures & judged.seen:
            found.append(f"{judged.where} has learned from {len(both)} pictures of {fold.name}, which may flatter it")
    if asked.config.support_mask == "enhanced":
        for number, fold in enumerate(folds):
            labels = _labels(asked, number)
            flattered = find_training_ids(labels)
            found += leakage_warnings(labels, flattered)
            if told := flattered.ids & _supports(fold):
                found.append(f"{labels.place} was made with the true masks of {len(told)} supports, which may flatter")
    return found


def _supports(fold: Fold) -> frozenset[str]:
    return frozenset(each for one in fold.episodes for each in episode_ids(one)[1:])


FSCS = WholeStage(
    command=COMMAND,
    code_version=1,
    resolve=resolve,
    compute=compute,
    reads=reads,
    libraries=("numpy", "torch"),
    device=lambda config: config.device.partition(":")[0],
)
