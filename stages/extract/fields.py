"""Which fields of which blocks: as a user writes it, and as the configuration and the store have it.

`keys` and `cls_query` are of the last block. The others take blocks: `tokens:all`, `tokens:last` (the same as
`tokens`), `cls_attention:8-11`, `tokens:3+7+11`, counted from 0.
"""

from collections.abc import Mapping, Sequence

from ...manifests.artifact.facts import BackboneFacts
from ...manifests.artifact.fields import Field
from ...manifests.artifact.quantized import scale_name
from ...manifests.errors import ConfigError
from ..vision.token_fields import FIELDS, LAST_ONLY, Wanted, field_shapes


def explicit_fields(asked: Sequence[str], facts: BackboneFacts) -> tuple[str, ...]:
    """The same choice in the one way in which the configuration has it; raises ConfigError for what cannot be."""
    wanted = blocks_by_field(asked, facts.depth)
    field_shapes(facts, wanted)
    return _format_fields(wanted)


def blocks_by_field(asked: Sequence[str], depth: int) -> Wanted:
    """Field → blocks."""
    wanted: dict[str, Sequence[int]] = {}
    for one in asked:
        name, colon, blocks = one.strip().partition(":")
        if name not in FIELDS:
            raise ConfigError(f"there is no field {name!r}; choose among {', '.join(FIELDS)}")
        if name in wanted:
            raise ConfigError(f"field {name} is asked for twice; name it once, with all its blocks")
        if colon and name in LAST_ONLY:
            raise ConfigError(f"field {one.strip()} names blocks, and {name} is always of the last one; write {name}")
        wanted[name] = _parse_blocks(one, blocks if colon else "last", depth)
    if not wanted:
        raise ConfigError(f"no fields are asked for; choose among {', '.join(FIELDS)}")
    return wanted


def merge_existing_fields(asked: Sequence[str], held: Sequence[str], depth: int) -> tuple[str, ...]:
    """What is asked for beside what is held.

    Who asks for the last block alone reads it wherever it stands among others, so others may be held with it; but
    tokens of pairs, which are read with `support_tokens`, are read of all blocks that are held.
    """
    wanted, there = blocks_by_field(asked, depth), blocks_by_field(held, depth)
    one_is_read = {"cls_attention", "tokens"} if "support_tokens" not in wanted else {"cls_attention"}

    def is_held(name: str) -> bool:
        return name in one_is_read and list(wanted[name]) == [depth - 1] and depth - 1 in there[name]

    return _format_fields({**wanted, **{name: there[name] for name in there if name not in wanted or is_held(name)}})


def array_fields(facts: BackboneFacts, wanted: Wanted, dtype: str) -> list[Field]:
    """The arrays of the store; signed bytes have the scales of their tokens beside them."""
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
    """Those of the fields that a group of the store holds."""
    return {name: blocks for name, blocks in wanted.items() if name in stored}


def _parse_blocks(one: str, text: str, depth: int) -> list[int]:
    if text == "all":
        return list(range(depth))
    if text == "last":
        return [depth - 1]
    blocks: set[int] = set()
    for part in text.split("+"):
        first, dash, last = part.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or int(last or first) < int(first):
            raise ConfigError(
                f"field {one.strip()} has blocks {text!r}; write all, last, a number such as 11, "
                "a range such as 8-11, or several joined by +"
            )
        if int(last or first) >= depth:  # before a range of any length is laid out
            raise ConfigError(f"field {one.strip()} names block {int(last or first)}, and there are 0 to {depth - 1}")
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
