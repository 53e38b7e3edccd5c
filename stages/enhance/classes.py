"""The classes that an enhancer learns from: by name or number, and meaning the same in maps and masks."""

import difflib
from collections.abc import Mapping, Sequence

from ...manifests.artifact import Artifact
from ...manifests.errors import ConfigError, InputError
from ...manifests.published import class_names
from ...manifests.sealed import Json


def class_indices(named: Sequence[str], table: Sequence[Mapping[str, Json]]) -> list[int]:
    by_name = {
        **{str(each["index"]): each["index"] for each in table},
        **{each["name"]: each["index"] for each in table},
    }
    for name in named:
        if name not in by_name:
            near = difflib.get_close_matches(name, [each["name"] for each in table], n=1)
            meant = f"did you mean {near[0]}?" if near else "give names or numbers of its class table"
            raise ConfigError(f"classes names {name!r}, which the maps do not have; {meant}")
    return sorted({by_name[name] for name in named})


def refuse_other_classes(maps: Artifact, images: Artifact) -> None:
    """A class is a number, and masks must mean the same by it as the maps do."""
    held, found = (class_names(artifact.plan.facts["classes"]) for artifact in (maps, images))
    for index in sorted(held.keys() & found.keys()):
        if held[index] != found[index]:
            raise InputError(
                f"class {index} is {held[index]} in {maps.place} and {found[index]} in {images.place}; "
                "pass as --images those that the maps were made from, or others of their class table"
            )
