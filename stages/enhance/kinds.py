"""Checks that maps are of the kind that an enhancer was fitted on."""

import shlex
from collections.abc import Mapping

from ...manifests.artifact.artifact import Artifact
from ...manifests.artifact.facts import MapsFacts
from ...manifests.errors import ConfigError
from ...manifests.files.sealed import Json
from ..stage import Configs, Inputs

HEAD_MAPS = "head_maps"
KIND = "enhancer"


def maps_kind(maps: Artifact) -> dict[str, Json]:
    """What an enhancer's maps must have in common."""
    config, facts = maps.plan.config, MapsFacts.of(maps)
    views = [source for source in maps.plan.inputs if source.role not in ("images", "model")]
    return {
        "method": config.get("method", maps.plan.stage),
        "supports": config.get("supports", ""),
        "score_kind": facts.score_kind,
        "views": max(1, len(views)),
        "heads": maps.plan.fields[HEAD_MAPS].shape[0],
        "backbone": facts.backbone,
        "weights_sha256": facts.weights.sha256,
    }


def refuse_without_heads(maps: Artifact) -> None:
    if HEAD_MAPS in maps.plan.fields:
        return
    if maps.plan.stage != "mask":
        raise ConfigError(
            f"{maps.place} has no maps of heads: it was made by {maps.plan.stage}, expected mask; "
            "pass maps made by `maskmill mask --per-head`"
        )
    raise ConfigError(f"{maps.place} has no maps of heads; add them with `{_command(maps)}`")


def refuse_without_heads_in_recipe(configs: Configs, given: Inputs) -> None:
    if "mask" in configs and not configs["mask"].per_head:
        raise ConfigError("needs the maps of heads; set per_head = true in [mask]")


def refuse_other_kind(maps: Artifact, checkpoint: Artifact) -> None:
    counts: Mapping[str, Json] = checkpoint.summary.counts
    if counts.get("kind") != KIND:
        raise ConfigError(
            f"{checkpoint.place} is not an enhancer: found kind {counts.get('kind')}, expected {KIND}; pass a "
            "checkpoint made by `maskmill enhance fit`"
        )
    differences = [
        f"{name} {counts.get(name)} (these have {value})"
        for name, value in maps_kind(maps).items()
        if counts.get(name) != value
    ]
    if differences:
        raise ConfigError(
            f"{checkpoint.place} was made for maps of {' and '.join(differences)}; pass {maps.place} with a checkpoint "
            f"made by `maskmill enhance fit {maps.place}`"
        )


def _command(maps: Artifact) -> str:
    """The command that made the maps, with --per-head."""
    uris = {source.role: source.place(maps.place).uri for source in maps.plan.inputs}
    words = [uri for role, uri in uris.items() if role not in ("images", "model")]
    words += [word for role in ("images", "model") if role in uris for word in (f"--{role}", uris[role])]
    for name in ("method", "supports", "seed", "threshold"):  # all options of methods with heads
        words += [f"--{name}", str(maps.plan.config[name])]
    return shlex.join(["maskmill", "mask", *words, "--per-head", "--out", maps.place.uri])
