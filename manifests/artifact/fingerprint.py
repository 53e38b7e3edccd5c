"""What was made from what: three fingerprints, of an artifact, of a field in it and of one unit's rows.

artifact  format version, stage, code version, configuration, weights, libraries that change numbers, device type, and
          the fingerprints of the fields it reads
field     the artifact's, or less where a field depends on less, so that a stage reading one field of an artifact is
          not disturbed by a change of another
unit      the fields' it writes, and for each row it reads, in order, the id, the status and the digest of the content
"""

import dataclasses
import hashlib
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from ..errors import CorruptArtifact
from ..files.sealed import Json, canonical, digest_of

FORMAT_VERSION = 1
T = TypeVar("T")


def setting(*, default: Any = dataclasses.MISSING, changes_bytes: bool = True, is_kept: bool = False) -> Any:
    """A field of a stage's config; `changes_bytes=False` keeps it out of every fingerprint.

    Such a setting is forgotten unless `is_kept`: then plan.json has it, for a retry that could not run without.
    """
    return dataclasses.field(default=default, metadata={"changes_bytes": changes_bytes, "is_kept": is_kept})


def config_json(config: Any) -> dict[str, Json]:
    """A config dataclass as JSON, nested dataclasses under their field; what does not change bytes is left out."""
    values: dict[str, Json] = {}
    if hasattr(config, "layout"):  # which of several dataclasses stands in a union
        values["layout"] = config.layout
    for field in dataclasses.fields(config):
        if field.metadata.get("changes_bytes", True):
            values[field.name] = _json(getattr(config, field.name))
    return values


def settings_json(config: Any) -> dict[str, Json]:
    """What a later run needs of a config besides what changes bytes, such as where the weights lay."""
    fields = [field for field in dataclasses.fields(config) if field.metadata.get("is_kept")]
    return {field.name: _json(getattr(config, field.name)) for field in fields}


def config_from(cls: type[T], values: Mapping[str, Json]) -> T:
    """The config that `config_json` wrote. Settings that change no bytes take their defaults."""
    hints = typing.get_type_hints(cls)
    fields = {field.name for field in dataclasses.fields(typing.cast(Any, cls))}
    unknown = sorted(set(values) - fields - {"layout"})
    if unknown:
        raise CorruptArtifact(
            f"the stored configuration has unknown fields {unknown}; it was written by a newer maskmill"
        )
    return cls(**{name: _parse_value(hints[name], value) for name, value in values.items() if name in fields})


def differences(old: Json, new: Json, path: str = "") -> Iterable[tuple[str, Json, Json]]:
    """The named places where two JSON values differ, with both values."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted({*old, *new}):
            yield from differences(old.get(key), new.get(key), f"{path}.{key}" if path else key)
    elif canonical(old) != canonical(new):
        yield path, old, new


def unit_fingerprint(fields: Mapping[str, str], evidence: Iterable[Sequence[Json]]) -> str:
    """Of the fields a unit writes (name → fingerprint) and of every row it reads, in order."""
    running = hashlib.sha256(canonical(dict(fields)))
    for row in evidence:
        running.update(canonical(list(row)))
        running.update(b"\n")
    return running.hexdigest()


def ids_digest(ids: Iterable[str]) -> str:
    running = hashlib.sha256()
    for identifier in ids:
        running.update(identifier.encode())
        running.update(b"\0")
    return running.hexdigest()


def fingerprint(basis: Mapping[str, Json]) -> str:
    return digest_of({"format": FORMAT_VERSION, **basis})


def _json(value: Any) -> Json:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return config_json(value)
    if isinstance(value, tuple | list):
        return [_json(item) for item in value]
    return value


def _parse_value(hint: Any, value: Json) -> Any:
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        members = [member for member in typing.get_args(hint) if dataclasses.is_dataclass(member)]
        chosen = [
            m for m in members if isinstance(value, Mapping) and getattr(m, "layout", None) == value.get("layout")
        ]
        return config_from(typing.cast(type[Any], chosen[0]), value) if chosen else value
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return config_from(typing.cast(type[Any], hint), value)
    if origin is tuple and isinstance(value, list):
        inner = typing.get_args(hint)[0]
        return tuple(_parse_value(inner, item) for item in value)
    return value
