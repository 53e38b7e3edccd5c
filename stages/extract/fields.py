"""Parses and formats the choice of token fields and blocks, and lists their arrays in the store.

`keys` and `cls_query` belong to the last block. The others take blocks, counted from 0: `tokens:all`, `tokens:last`
(the same as `tokens`), `cls_attention:8-11`, `tokens:3+7+11`.
"""

from collections.abc import Mapping, Sequence

from ...manifests.artifact.facts import BackboneFacts
from ...manifests.artifact.fields import Field
from ...manifests.artifact.quantized import scale_name
from ...manifests.errors import ConfigError
from ..vision.token_fields import FIELDS, LAST_ONLY, Wanted, field_shapes


def explicit_fields(texts: Sequence[str], facts: BackboneFacts) -> tuple[str, ...]:
    """The choice in the one spelling that configurations use; raises ConfigError if it is impossible."""
    wanted = blocks_by_field(texts, facts.depth)
    field_shapes(facts, wanted)
    return _format_fields(wanted)


def blocks_by_field(texts: Sequence[str], depth: int) -> Wanted:
    """Field → blocks."""
    wanted: dict[str, Sequence[int]] = {}
    for text in map(str.strip, texts):
        name, colon, blocks = text.partition(":")
        if name not in FIELDS:
            raise ConfigError(f"unknown field {name!r}; choose among {', '.join(FIELDS)}")
        if name in wanted:
            raise ConfigError(f"field {name} is given twice; name it once, with all its blocks")
        if colon and name in LAST_ONLY:
            raise ConfigError(f"field {text} names blocks, but {name} exists for the last block only; write {name}")
        wanted[name] = _parse_blocks(text, blocks if colon else "last", depth)
    if not wanted:
        raise ConfigError(f"no fields are given; choose among {', '.join(FIELDS)}")
    return wanted


def merge_existing_fields(texts: Sequence[str], existing: Sequence[str], depth: int) -> tuple[str, ...]:
    """The given fields together with the existing ones.

    If only the last block is given, existing blocks are kept with it, because readers pick the last among them. Not so
    for tokens with `support_tokens`: pairs are read with all stored blocks.
    """
    wanted, stored = blocks_by_field(texts, depth), blocks_by_field(existing, depth)
    last_is_picked = {"cls_attention", "tokens"} if "support_tokens" not in wanted else {"cls_attention"}

    def is_stored(name: str) -> bool:
        return name in last_is_picked and list(wanted[name]) == [depth - 1] and depth - 1 in stored[name]

    kept = {name: blocks for name, blocks in stored.items() if name not in wanted or is_stored(name)}
    return _format_fields({**wanted, **kept})


def array_fields(facts: BackboneFacts, wanted: Wanted, dtype: str) -> list[Field]:
    """The arrays of the store; each int8 array has an array of scales."""
    stored = []
    for name, shape in field_shapes(facts, wanted).items():
        detail = {"blocks": list(wanted[name])}
        chunk = shape if name in LAST_ONLY else (1, *shape[1:])
        stored.append(Field(name=name, kind="array", shape=shape, dtype=dtype, chunk=chunk, detail=detail))
        if dtype == "int8":
            scale = Field(
                name=scale_name(name), kind="array", shape=shape[:-1], dtype="float32", chunk=chunk[:-1], detail=detail
            )
            stored.append(scale)
    return stored


def fields_in_group(wanted: Wanted, stored: Sequence[str]) -> Mapping[str, Sequence[int]]:
    """The fields that are stored."""
    return {name: blocks for name, blocks in wanted.items() if name in stored}


def _parse_blocks(field: str, text: str, depth: int) -> list[int]:
    words = {"all": range(depth), "last": range(depth - 1, depth)}
    blocks: set[int] = set()
    for part in text.split("+"):
        if part in words:
            blocks.update(words[part])
            continue
        first, dash, last = part.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or int(last or first) < int(first):
            raise ConfigError(
                f"field {field} has blocks {text!r}; write all, last, a number such as 11, a range such as 8-11, or "
                "several joined by +"
            )
        if int(last or first) >= depth:  # before a huge range is expanded
            raise ConfigError(f"field {field} names block {int(last or first)}, expected 0 to {depth - 1}")
        blocks.update(range(int(first), int(last or first) + 1))
    return sorted(blocks)


def _format_fields(wanted: Wanted) -> tuple[str, ...]:
    return tuple(
        name if name in LAST_ONLY else f"{name}:{_format_blocks(wanted[name])}" for name in FIELDS if name in wanted
    )


def _format_blocks(blocks: Sequence[int]) -> str:
    runs: list[list[int]] = []
    for number in sorted(blocks):
        if runs and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return "+".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
