"""Which kind of maps an enhancer was made for. It has learned what those look like, so any other kind is refused."""

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
    """`supports` 0 is a picture's own class query."""
    config, facts = maps.plan.config, MapsFacts.of(maps)
    views = [each for each in maps.plan.inputs if each.role not in ("images", "model")]
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
            f"{maps.place} holds no maps of heads and was made by {maps.plan.stage}; "
            "pass maps that `maskmill mask --per-head` has made"
        )
    raise ConfigError(f"{maps.place} holds no maps of heads; add them with `{_command(maps)}`")


def refuse_without_heads_in_recipe(configs: Configs, given: Inputs) -> None:
    if "mask" in configs and not configs["mask"].per_head:
        raise ConfigError("reads the maps of heads; set per_head = true in [mask]")


def refuse_other_kind(maps: Artifact, checkpoint: Artifact) -> None:
    counts: Mapping[str, Json] = checkpoint.summary.counts
    if counts.get("kind") != KIND:
        raise ConfigError(
            f"{checkpoint.place} is no enhancer but of kind {counts.get('kind')}; pass a checkpoint that "
            "`maskmill enhance fit` has made"
        )
    differing = [
        (name, counts.get(name), value) for name, value in maps_kind(maps).items() if counts.get(name) != value
    ]
    if differing:
        told = " and ".join(f"{name} {found} (these have {value})" for name, found, value in differing)
        raise ConfigError(
            f"{checkpoint.place} was made for maps of {told}; pass {maps.place} with a checkpoint that "
            f"`maskmill enhance fit {maps.place}` has made"
        )


def _command(maps: Artifact) -> str:
    """What adds the heads to maps: the command that made them, and --per-head."""
    given = {each.role: each.place(maps.place).uri for each in maps.plan.inputs}
    words = [uri for role, uri in given.items() if role not in ("images", "model")]
    words += [word for role in ("images", "model") if role in given for word in (f"--{role}", given[role])]
    for name in ("method", "supports", "seed", "threshold"):  # all that methods with heads are told
        words += [f"--{name}", str(maps.plan.config[name])]
    return shlex.join(["maskmill", "mask", *words, "--per-head", "--out", maps.place.uri])
