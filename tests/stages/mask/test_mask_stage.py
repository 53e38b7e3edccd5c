"""The stage as a run drives it: which rows there are, with which supports they look, and what is stored of a map."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from builders.configs import make_config
from builders.small_dataset import tree, write_picture
from builders.small_tokens import CLASSES, PICTURES, UNITS_OF_5, Bench, Labelled
from maskmill.manifests.artifact.artifact import Artifact, open_artifact
from maskmill.manifests.artifact.ledger import record_name
from maskmill.manifests.artifact.tokens import Tokens
from maskmill.manifests.errors import ConfigError, StaleArtifact
from maskmill.pipeline.answers.verify import verify
from maskmill.pipeline.running.options import RunOptions
from maskmill.stages.maps.cst import cosine_map, mean_of_queries, normalise_queries
from maskmill.stages.maps.kept_mass import attention_map, mass_thresholds
from maskmill.stages.maps.threshold_rules import KeptMass
from maskmill.stages.maps.thresholds import otsu
from maskmill.stages.mask import computing
from maskmill.stages.mask.config import MaskConfig

HEADS = 2
Row = dict[str, Any]


def classes_of(name: str, pictures: Labelled = PICTURES) -> list[int]:
    return [CLASSES.index(label) + 1 for label in pictures[name][0].split("|") if label]


def rows_of(name: str) -> list[tuple[str, int | None, int]]:
    return [(name, index, 0) for index in classes_of(name)] or [(name, None, 0)]


def said(maps: Artifact, *columns: str) -> list[tuple[Any, ...]]:
    """Those columns of every row, in order."""
    return [tuple(row[name] for name in columns) for row in maps.rows(list(columns)).to_pylist()]


def maps_by_row(maps: Artifact) -> dict[tuple[str, int | None], np.ndarray]:
    """(id, class) → map, of the rows that are ok."""
    rows = maps.rows(["id", "class", "status"]).to_pylist()
    values = maps.read("map", range(len(rows)))
    return {(row["id"], row["class"]): value for row, value in zip(rows, values, strict=True) if row["status"] == "ok"}


# ---- the supports, slowly


def splitmix64(value: int) -> int:
    """The finaliser as published (Steele, Lea and Flood 2014)."""
    value = (value + 0x9E3779B97F4A7C15) % 2**64
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    value = (value ^ value >> 27) * 0x94D049BB133111EB % 2**64
    return value ^ value >> 31


def hashed(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def supports_of(
    tokens: Tokens, name: str, index: int, count: int, seed: int = 0, pictures: Labelled = PICTURES
) -> list[str]:
    """The other pictures of class and split whose tokens are whole, smallest hash of all four first."""
    whole = {row["id"] for row in tokens.rows.to_pylist() if row["status"] == "ok"}
    others = [
        other
        for other, (_, split) in pictures.items()
        if other in whole - {name} and split == pictures[name][1] and index in classes_of(other, pictures)
    ]
    own = hashed(f"{seed}\0{index}\0{name}")
    return sorted(others, key=lambda other: splitmix64(hashed(other) ^ own))[:count]


def query_of(tokens: Tokens, names: Sequence[str]) -> torch.Tensor:
    queries = normalise_queries(torch.from_numpy(tokens.read("cls_query", list(names))), HEADS)
    return mean_of_queries(queries) if len(names) > 1 else queries[0]


def map_of(tokens: Tokens, name: str, query_HE: torch.Tensor) -> np.ndarray:
    """As `stages.attention.cst` has it of one picture alone."""
    keys_1TD = torch.from_numpy(tokens.read("keys", [name]))
    return cosine_map(keys_1TD, query_HE).numpy().reshape(4, 6)


# ---- rows


def test_without_supports_there_is_a_row_for_each_picture(bench: Bench) -> None:
    maps = bench.mask(bench.tokens(), supports="0")
    assert said(maps, "id", "class", "instance", "note") == [(name, None, 0, "") for name in PICTURES]
    failed = {row[0]: row[1:] for row in said(maps, "id", "status", "reason") if row[1] != "ok"}
    assert failed == {"broken": ("upstream", "truncated"), "changed": ("upstream", "changed")}


@pytest.mark.parametrize("supports", ["1", "8", "all"])
def test_with_supports_there_is_a_row_for_each_class_of_a_picture(bench: Bench, supports: str) -> None:
    maps = bench.mask(bench.tokens(), supports=supports)
    assert said(maps, "id", "class", "instance") == [row for name in PICTURES for row in rows_of(name)]
    notes = {(name, index): note for name, index, note in said(maps, "id", "class", "note") if note}
    assert notes == {("bird/6", 1): "no_support", ("none/7", None): "no_label", ("cat/8", 2): "no_support"}
    blocked = {row[:2] for row in said(maps, "id", "class", "status") if row[2] != "ok"}
    assert blocked == {("broken", 2), ("changed", 3)}
    empty = maps_by_row(maps)["none/7", None]
    assert not empty.any()
    (row,) = [row for row in maps.rows().to_pylist() if row["id"] == "none/7"]
    assert (row["threshold"], row["foreground"]) == (0, 0)


def test_facts_and_scalars_are_what_refine_needs(bench: Bench) -> None:
    tokens = bench.tokens()
    maps = bench.mask(tokens, supports="0")
    facts = maps.plan.facts
    assert (facts["grid"], facts["patch"]) == ([4, 6], [16, 16])
    assert (facts["score_kind"], facts["align_corners"]) == ("cosine01", True)
    assert [each["name"] for each in facts["classes"]] == list(CLASSES)
    assert (facts["weights"]["source"], facts["backbone"]) == ("random:0", "test_vit.r160_in1k")
    sizes = [(row["id"], row["box"], row["height"], row["width"]) for row in tokens.rows.to_pylist()]
    assert said(maps, "id", "box", "height", "width") == sizes


# ---- values


@pytest.mark.parametrize("dtype", ["float16", "float32", "int8"])
@pytest.mark.parametrize("supports", [0, 1, 2, 8])
def test_a_map_is_that_of_the_supports_with_the_smallest_hashes(bench: Bench, dtype: str, supports: int) -> None:
    """To the bit what the science gives of the arrays that `open_tokens` reads, whoever stands beside it."""
    tokens = bench.tokens(dtype=dtype)
    found = maps_by_row(bench.mask(tokens, supports=str(supports), seed=3))
    assert len(found) == (11 if supports == 0 else 12)
    for (name, index), map_RC in found.items():
        if supports and index is None:
            continue
        others = supports_of(tokens, name, index, supports, seed=3) if index else []
        np.testing.assert_array_equal(map_RC, map_of(tokens, name, query_of(tokens, others or [name])), f"{name}")


def test_the_choice_depends_on_seed_and_picture(bench: Bench) -> None:
    """Otherwise the promise of the smallest hash would be kept by any fixed order."""
    tokens = bench.tokens()
    cats = ("cat/0", "cat/1", "cat/2", "both/3")
    assert {supports_of(tokens, "cat/0", 2, 1, seed)[0] for seed in range(40)} == {"cat/1", "cat/2", "both/3"}
    assert len({frozenset(supports_of(tokens, name, 2, 2)) for name in cats}) > 2
    one, other = (maps_by_row(bench.mask(tokens, supports="1", seed=seed)) for seed in (0, 1))
    assert any(not np.array_equal(one[row], other[row]) for row in one)


def test_all_supports_give_the_mean_of_their_maps(bench: Bench) -> None:
    tokens = bench.tokens()
    found = maps_by_row(bench.mask(tokens, supports="all"))
    tried = 0
    for (name, index), map_RC in found.items():
        if index is None:
            continue
        others = supports_of(tokens, name, index, 99) or [name]
        mean_RC = np.mean([map_of(tokens, name, query_of(tokens, [other])) for other in others], axis=0)
        np.testing.assert_allclose(map_RC, mean_RC, rtol=0, atol=1e-6)
        tried += len(others) > 1
    assert tried >= 5
    few = maps_by_row(bench.mask(tokens, supports="8"))  # more than there are
    for row in few:
        np.testing.assert_allclose(found[row], few[row], rtol=0, atol=1e-6)


def test_units_and_what_is_read_together_change_no_value(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = bench.tokens()
    whole = maps_by_row(bench.mask(tokens, RunOptions(max_bad=0.5), supports="2"))
    monkeypatch.setattr(computing, "PICTURES_AT_ONCE", 2)
    parted = maps_by_row(bench.mask(tokens, RunOptions(max_bad=0.5, unit_rows=3), supports="2"))
    assert whole.keys() == parted.keys()
    assert all(np.array_equal(whole[row], parted[row]) for row in whole)


def test_attention_of_the_class_token(bench: Bench) -> None:
    tokens = bench.tokens(fields=("cls_attention:all",))
    maps = bench.mask(tokens, method="cls-attention")
    assert said(maps, "id", "class") == [(name, None) for name in PICTURES]
    assert (maps.plan.facts["score_kind"], maps.plan.facts["align_corners"]) == ("share_of_max", False)
    found = maps_by_row(maps)
    for row in maps.rows().to_pylist():
        if row["status"] != "ok":
            continue
        valid_1T = valid_patches(row["box"])[None]
        last_1HT = torch.from_numpy(tokens.read("cls_attention", [row["id"]])[:, -1])
        map_1T = attention_map(last_1HT, valid_1T)
        np.testing.assert_array_equal(found[row["id"], None].ravel(), map_1T[0])
        assert row["threshold"] == mass_thresholds(map_1T, valid_1T, 0.6)[0][0]


# ---- thresholds, padding, flips


def valid_patches(box: Sequence[int]) -> np.ndarray:
    """Pixel by pixel: patches of which more than half is picture."""
    is_picture = np.zeros((64, 96), bool)
    is_picture[box[0] : box[2], box[1] : box[3]] = True
    return is_picture.reshape(4, 16, 6, 16).mean(axis=(1, 3)).ravel() > 0.5


def test_padding_has_no_share_in_the_threshold(bench: Bench) -> None:
    maps = bench.mask(bench.tokens(), supports="0")
    found, differing = maps_by_row(maps), 0
    for row in maps.rows().to_pylist():
        if row["status"] != "ok":
            continue
        map_T, valid_T = found[row["id"], None].ravel(), valid_patches(row["box"])
        inside_1T = map_T[valid_T][None]
        threshold_1, _ = otsu(inside_1T, np.ones_like(inside_1T, bool))
        assert row["threshold"] == threshold_1[0]
        assert row["foreground"] == pytest.approx((inside_1T > threshold_1).mean())
        everywhere_1, _ = otsu(map_T[None], np.ones((1, 24), bool))
        differing += everywhere_1[0] != threshold_1[0]
    assert differing > 3


@pytest.mark.parametrize("fit", ["pad", "squash"])
def test_maps_and_boxes_of_a_flipped_view_are_turned_back(bench: Bench, fit: str) -> None:
    flipped, straight = bench.tokens(fit=fit, flip=True), bench.tokens(fit=fit)
    maps = bench.mask(flipped, supports="2")
    tried = 0
    for (name, index), map_RC in maps_by_row(maps).items():
        if index is None:
            continue
        query = query_of(flipped, supports_of(flipped, name, index, 2) or [name])
        np.testing.assert_array_equal(map_RC, map_of(flipped, name, query)[:, ::-1])
        tried += 1
    assert tried > 5
    boxes = {row["id"]: row["box"] for row in straight.rows.to_pylist()}
    assert all(row[1] == boxes[row[0]] for row in said(maps, "id", "box"))
    assert fit == "squash" or any(row["box"] != boxes[row["id"]] for row in flipped.rows.to_pylist())
    for (_, index, threshold, box), map_RC in zip(
        (row[1:] for row in said(maps, "status", "id", "class", "threshold", "box") if row[0] == "ok"),
        maps_by_row(maps).values(),
        strict=True,
    ):
        inside_1T = map_RC.ravel()[valid_patches(box)][None]
        assert index is None or threshold == otsu(inside_1T, np.ones_like(inside_1T, bool))[0][0]


@pytest.mark.parametrize(("rule", "threshold"), [("0.25", np.float32(0.25)), ("0.4", np.float32(0.4))])
def test_a_number_is_the_threshold_of_every_row(bench: Bench, rule: str, threshold: np.float32) -> None:
    maps = bench.mask(bench.tokens(), supports="0", threshold=rule)
    assert {row[1] for row in said(maps, "status", "threshold") if row[0] == "ok"} == {float(threshold)}


# ---- the heads' maps


def head_maps_of(maps: Artifact) -> tuple[np.ndarray, np.ndarray]:
    positions = range(maps.plan.num_rows)
    return maps.read("map", positions), maps.read("head_maps", positions)


@pytest.mark.parametrize(
    "asked",
    [{"supports": "0"}, {"supports": "2"}, {"supports": "all"}, {"method": "cls-attention"}],
    ids=lambda asked: "-".join(asked.values()),
)
@pytest.mark.parametrize("flip", [False, True])
def test_a_map_is_the_mean_of_its_heads(bench: Bench, asked: dict[str, Any], flip: bool) -> None:
    """Of rows without class or picture both are empty."""
    tokens = bench.tokens(fields=("keys", "cls_query", "cls_attention"), flip=flip)
    maps = bench.mask(tokens, per_head=True, **asked)
    map_RRC, heads_RHRC = head_maps_of(maps)
    assert heads_RHRC.shape == (maps.plan.num_rows, HEADS, 4, 6)
    np.testing.assert_allclose(heads_RHRC.mean(axis=1), map_RRC, rtol=0, atol=1e-6)
    differs_R = (heads_RHRC[:, 0] != heads_RHRC[:, 1]).any(axis=(1, 2)).tolist()
    assert differs_R == [status == "ok" and note != "no_label" for status, note in said(maps, "status", "note")]


def test_heads_are_added_to_maps_that_are_there(bench: Bench) -> None:
    """What is there keeps its bytes, and what is added is what would have been made at once."""
    tokens, out, at_once = bench.tokens(), bench.new_out(), bench.new_out()
    bench.mask_into(out, tokens)
    before = tree(out)
    options = RunOptions(unit_rows=4, max_bad=0.5)
    assert bench.mask_into(out, tokens, options, per_head=True).units_run == 4
    after = tree(out)
    assert all(after[name] == digest for name, digest in before.items() if name.startswith(("map.", "ledger/")))
    assert verify(str(out)).exit_code == 0
    bench.mask_into(at_once, tokens, per_head=True)
    both = open_artifact(str(out)), open_artifact(str(at_once))
    for found, wanted in zip(*map(head_maps_of, both), strict=True):
        np.testing.assert_array_equal(found, wanted)
    columns = ["id", "class", "threshold", "note", "map_sha256", "head_maps_sha256"]
    assert said(both[0], *columns) == said(both[1], *columns)
    assert both[0].plan.field_fingerprints == both[1].plan.field_fingerprints


def test_a_run_that_asks_for_no_heads_keeps_those_that_are_there(bench: Bench) -> None:
    tokens, out = bench.tokens(), bench.new_out()
    bench.mask_into(out, tokens)
    bench.mask_into(out, tokens, per_head=True)
    whole = tree(out)
    assert bench.mask_into(out, tokens).units_run == 0
    for name in ("map.zarr/c/0/0/0", "head_maps.zarr/c/0/0/0/0"):
        (out / name).unlink()
    assert bench.mask_into(out, tokens).units_run == 2
    assert tree(out) == whole


# ---- what an added or changed picture does


def units(out: Path) -> dict[int, bytes]:
    return {number: (out / record_name("ledger", number)).read_bytes() for number in range(99) if exists(out, number)}


def exists(out: Path, number: int) -> bool:
    return (out / record_name("ledger", number)).exists()


def test_an_added_picture_changes_only_rows_that_look_with_it(own_bench: Bench) -> None:
    bench, options = own_bench, RunOptions(unit_rows=2, max_bad=0.5)
    tokens, out = bench.tokens(), bench.new_out()
    bench.mask_into(out, tokens, options, supports="2")
    before, records = said(open_artifact(str(out)), "id", "class", "map_sha256", "unit"), units(out)
    write_picture(bench.home / "cat/new.png", 50, (30, 20))
    grown = {"cat/new": ("cat", "train"), **PICTURES}  # first in the table: rows are appended all the same
    bench.index(grown, update=True)
    bench.extract(Path(tokens.artifact.place.uri))
    tokens = bench.tokens()
    outcome = bench.mask_into(out, tokens, options, supports="2")
    after = open_artifact(str(out))
    old = {row[:2]: row[2:] for row in before}
    new = {row[:2]: row[2:] for row in said(after, "id", "class", "map_sha256", "unit")}
    assert list(new) == [*old, ("cat/new", 2)]
    looking = {
        (name, index)
        for name, index in old
        if index == 2 and "cat/new" in supports_of(tokens, name, index, 2, pictures=grown)
    }
    blocked = {("broken", 2)}  # planned with other supports, and still without a map
    assert looking - blocked, "choose another name: nobody looks with this picture"
    assert len(looking - blocked) < 4
    assert {row for row in old if old[row][0] != new[row][0]} == looking - blocked
    touched = {old[row][1] for row in looking}
    assert outcome.units_run == len(touched) + 1
    assert {unit for unit, record in records.items() if units(out)[unit] != record} == touched
    fresh = bench.mask(tokens, supports="2")
    assert maps_by_row(fresh).keys() == maps_by_row(after).keys()
    assert all(np.array_equal(maps_by_row(after)[row], value) for row, value in maps_by_row(fresh).items())
    assert bench.mask_into(out, tokens, options, supports="2").units_run == 0


def test_a_changed_picture_changes_its_rows_and_those_that_look_with_it(own_bench: Bench) -> None:
    bench, options = own_bench, RunOptions(unit_rows=1, max_bad=0.5)
    tokens, out = bench.tokens(), bench.new_out()
    bench.mask_into(out, tokens, options, supports="1")
    before = said(open_artifact(str(out)), "id", "class", "map_sha256")
    write_picture(bench.home / "cat/1.png", 77, (30, 20))
    bench.index()
    bench.extract(Path(tokens.artifact.place.uri))
    bench.mask_into(out, bench.tokens(), options, supports="1")
    after = said(open_artifact(str(out)), "id", "class", "map_sha256")
    changed = {old[:2] for old, new in zip(before, after, strict=True) if old != new}
    wanted = {
        (name, index)
        for name, index, _ in before
        if name == "cat/1" or (index == 2 and "cat/1" in supports_of(tokens, name, 2, 1))
    }
    assert changed == wanted - {("broken", 2)}
    assert 1 < len(changed) < 5


def test_a_picture_that_changes_its_class_is_told(own_bench: Bench) -> None:
    """Its row is another row, and an artifact never loses one."""
    bench = own_bench
    tokens, out = bench.tokens(), bench.new_out()
    bench.mask_into(out, tokens, supports="1")
    before = tree(out)
    bench.index({**PICTURES, "dog/4": ("bird", "train")})
    with pytest.raises(StaleArtifact, match=r"'dog/4, 3, 0'.*--out"):
        bench.mask_into(out, tokens, supports="1")
    assert tree(out) == before


# ---- what is refused


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"supports": "-1"}, r"supports.*'-1'.*0.*all"),
        ({"supports": "²"}, r"supports.*'²'"),
        ({"method": "cts"}, r"'cts'.*cst"),
        ({"method": "cls-attention", "supports": "1"}, r"cls-attention.*supports"),
        ({"threshold": "1.5"}, r"threshold.*'1.5'.*otsu.*0.*1.*kept-mass:"),
        ({"threshold": "nan"}, r"threshold.*'nan'"),
        ({"threshold": "kept-mass:0"}, r"threshold.*'kept-mass:0'"),
    ],
)
def test_a_mistake_is_told(bench: Bench, asked: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        make_config(MaskConfig, {"tokens": bench.tokens().artifact}, **asked)


def test_one_spelling_of_what_is_asked_for(bench: Bench) -> None:
    tokens = bench.tokens().artifact
    assert make_config(MaskConfig, {"tokens": tokens}) == make_config(
        MaskConfig, {"tokens": tokens}, method="cst", supports="08", seed=0, threshold="otsu"
    )
    assert make_config(MaskConfig, {"tokens": tokens}, instances=1) == make_config(MaskConfig, {"tokens": tokens})
    assert make_config(MaskConfig, {"tokens": tokens}, threshold="0.40") == make_config(
        MaskConfig, {"tokens": tokens}, threshold=".4"
    )
    assert make_config(MaskConfig, {"tokens": tokens}, method="cls-attention").threshold == KeptMass(0.6)


def test_tokens_without_the_field_say_which_are_there(bench: Bench) -> None:
    with pytest.raises(ConfigError, match=r"cls_attention.*`mask.* --fields"):
        bench.mask(bench.tokens(), method="cls-attention")


def test_images_of_another_dataset_are_refused(bench: Bench, tmp_path: Path) -> None:
    other = Bench(tmp_path)
    write_picture(tmp_path / "a.png", 1)
    other.index({"a": ("cat", "train")})
    with pytest.raises(ConfigError, match=r"'cat/0'.*--images"):
        other.mask(bench.tokens(), supports="0")
    with pytest.raises(ConfigError, match=r"'cat/\d'.*--images"):
        other.mask(bench.tokens(), supports="2")


def test_what_is_stored_is_sound(bench: Bench) -> None:
    out = bench.new_out()
    bench.mask_into(out, bench.tokens())
    assert verify(str(out)).exit_code == 0
    assert bench.mask_into(out, bench.tokens()).units_run == 0
    again = bench.new_out()
    bench.mask_into(again, bench.tokens())
    assert tree(out) == tree(again)
    with pytest.raises(StaleArtifact, match=r"seed.*0.*1"):
        bench.mask_into(out, bench.tokens(), UNITS_OF_5, seed=1)
