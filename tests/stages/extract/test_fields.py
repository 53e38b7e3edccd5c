"""How fields and blocks are written, and which arrays are stored of them."""

import random
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import example, given, strategies as st

from maskmill.manifests.artifact.facts import BackboneFacts
from maskmill.manifests.errors import ConfigError
from maskmill.stages.extract.fields import array_fields, blocks_by_field, explicit_fields, fields_in_group
from maskmill.stages.vision.backbone import backbone_facts
from maskmill.stages.vision.token_fields import FIELDS, LAST_ONLY

DEPTH = 6


def facts(name: str = "test_vit.r160_in1k") -> BackboneFacts:
    return backbone_facts(name, 32, 48)


BLOCKS = st.sets(st.integers(0, DEPTH - 1), min_size=1)
CHOICES = st.dictionaries(st.sampled_from(FIELDS), BLOCKS, min_size=1).map(
    lambda found: {name: {DEPTH - 1} if name in LAST_ONLY else blocks for name, blocks in found.items()}
)


def spelled(blocks: set[int], chance: random.Random) -> str:
    """One of the many ways to write a set of blocks: in any order, in ranges that may overlap, or by a word."""
    if blocks == set(range(DEPTH)) and chance.random() < 0.3:
        return "all"
    if blocks == {DEPTH - 1} and chance.random() < 0.3:
        return "last"
    parts = [str(number) for number in blocks]
    parts += [f"{a}-{b}" for a in blocks for b in blocks if a <= b and blocks >= set(range(a, b + 1))]
    chosen = [part for part in parts if chance.random() < 0.5]
    covered = {n for part in chosen for n in range(int(part.split("-")[0]), int(part.split("-")[-1]) + 1)}
    chosen += [str(number) for number in blocks - covered]
    chance.shuffle(chosen)
    return "+".join(chosen)


def written(choice: Mapping[str, set[int]], chance: random.Random) -> list[str]:
    asked = [
        name if name in LAST_ONLY or (blocks == {DEPTH - 1} and chance.random() < 0.3) else f"{name}:{blocks_text}"
        for name, blocks in choice.items()
        for blocks_text in [spelled(blocks, chance)]
    ]
    chance.shuffle(asked)
    return [f" {one} " if chance.random() < 0.2 else one for one in asked]


@given(CHOICES, st.randoms(use_true_random=False))
def test_a_choice_has_one_form_however_it_is_written(choice: dict[str, set[int]], chance: random.Random) -> None:
    explicit = explicit_fields(written(choice, chance), facts())
    assert explicit == explicit_fields(written(choice, chance), facts())
    assert explicit == explicit_fields(explicit, facts())
    meant = blocks_by_field(explicit, DEPTH)
    assert {name: set(blocks) for name, blocks in meant.items()} == choice
    assert list(meant) == [name for name in FIELDS if name in choice]
    assert all(list(blocks) == sorted(blocks) for blocks in meant.values())


def test_the_one_form() -> None:
    asked = ["tokens:5+0-1+3", "cls_attention:all", "support_tokens:last", "cls_query", "keys"]
    assert explicit_fields(asked, facts()) == (
        "keys",
        "cls_query",
        "cls_attention:0-5",
        "tokens:0-1+3+5",
        "support_tokens:5",
    )
    assert explicit_fields(["tokens"], facts()) == explicit_fields(["tokens:last"], facts()) == ("tokens:5",)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ([], r"^no fields.* keys, cls_query, "),
        (["values"], r"field 'values'.* keys, cls_query, "),
        ([""], r"''"),
        (["Keys"], r"'Keys'"),
        (["keys", " keys"], r"keys.*twice"),
        (["tokens:3", "tokens:4"], r"tokens.*twice.*blocks"),
        (["keys:5"], r"keys:5.*keys"),
        (["cls_query:"], r"cls_query:.*cls_query"),
        (["tokens:"], r"tokens:.*''.*all, last.*8-11"),
        (["tokens:first"], r"blocks 'first'"),
        (["tokens:-1"], r"blocks '-1'"),
        (["tokens:1-"], r"blocks '1-'"),
        (["tokens:1-2-3"], r"blocks '1-2-3'"),
        (["tokens:1,2"], r"blocks '1,2'"),
        (["tokens:1++2"], r"blocks '1\+\+2'"),
        (["tokens:³"], r"blocks '³'"),
        (["tokens:0+4-2"], r"blocks '0\+4-2'"),
        (["tokens:6"], r"tokens:6.*6.*0.*5"),
        (["tokens:0-999999999999"], r"tokens:0-999999999999.*0.*5"),
    ],
)
def test_a_mistake_is_told(asked: Sequence[str], told: str) -> None:
    with pytest.raises(ConfigError, match=told) as refused:
        explicit_fields(asked, facts())
    assert "\n" not in str(refused.value)


def test_what_a_backbone_cannot_give_is_told() -> None:
    without = backbone_facts("test_vit2.r160_in1k", 32, 48)
    assert explicit_fields(["keys"], without) == ("keys",)
    for field in ("cls_query", "cls_attention:0", "tokens:0", "support_tokens:0"):
        with pytest.raises(ConfigError, match=r"test_vit2\.r160_in1k.*class token"):
            explicit_fields(["keys", field], without)


@given(CHOICES, st.sampled_from(["float16", "float32", "int8"]))
@example({"keys": {5}, "tokens": {0, 3}, "support_tokens": {1}}, "int8")
def test_arrays_have_a_row_per_picture_and_a_chunk_per_block(choice: dict[str, set[int]], dtype: str) -> None:
    wanted = {name: sorted(blocks) for name, blocks in choice.items()}
    stored = {field.name: field for field in array_fields(facts(), wanted, dtype)}
    shapes = {
        "keys": (6, 64),
        "cls_query": (64,),
        "cls_attention": (2, 6),
        "tokens": (7, 64),
        "support_tokens": (145, 64),
    }
    for name, blocks in wanted.items():
        field = stored.pop(name)
        assert field.shape == (shapes[name] if name in LAST_ONLY else (len(blocks), *shapes[name]))
        assert field.chunk == (shapes[name] if name in LAST_ONLY else (1, *shapes[name]))
        assert (field.kind, field.dtype, field.detail) == ("array", dtype, {"blocks": blocks})
        if dtype == "int8":
            scale = stored.pop(f"{name}_scale")
            assert (scale.shape, scale.chunk) == (field.shape[:-1], field.chunk[:-1])
            assert (scale.dtype, scale.detail) == ("float32", {"blocks": blocks})
    assert not stored


def test_a_group_computes_its_own_fields() -> None:
    wanted = blocks_by_field(["keys", "tokens:all"], DEPTH)
    assert fields_in_group(wanted, ["tokens", "tokens_scale"]) == {"tokens": [0, 1, 2, 3, 4, 5]}
    assert fields_in_group(wanted, ["keys"]) == {"keys": [5]}
