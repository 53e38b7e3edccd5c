"""`ncut` and `maskcut` as a run drives them: slots for objects, notes, and what follows from several rows a picture."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from builders.configs import make_config
from builders.mistakes import assert_named
from builders.small_dataset import tree
from builders.small_tokens import PICTURES, Bench
from builders.toy_tokens import TOKENS, TokensConfig
from maskmill.manifests.artifact.artifact import Artifact, open_artifact
from maskmill.manifests.artifact.tokens import Tokens, open_tokens
from maskmill.manifests.errors import ConfigError, StaleArtifact
from maskmill.manifests.pictures.palette import decode_label_map
from maskmill.pipeline.answers.verify import verify
from maskmill.pipeline.running.options import RunOptions
from maskmill.pipeline.running.run import run
from maskmill.stages.maps.upsampling import upsample_maps
from maskmill.stages.mask import computing, methods
from maskmill.stages.mask.config import MaskConfig
from maskmill.stages.mask.ncut import MEAN, maskcut_maps, ncut_map
from maskmill.stages.refine.config import RefineConfig
from maskmill.stages.refine.stage import STAGE as REFINE

GRID = (5, 6)
WHOLE_PICTURES = [name for name in PICTURES if name != "broken"]
WHOLE = RunOptions(max_bad=0.5)
Slot = tuple[str, int]


@pytest.fixture(scope="session")
def toys(bench: Bench) -> Tokens:
    """Random keys of eight numbers, in whose graphs a few patches stand out; of every picture but the broken one."""
    out = bench.new_out()
    run(TOKENS, TokensConfig(grid=GRID), {"images": str(bench.images)}, str(out), WHOLE)
    return open_tokens(out)


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def by_slot(maps: Artifact) -> dict[Slot, np.ndarray]:
    """The maps of rows that are ok."""
    rows = maps.rows(["id", "instance", "status"]).to_pylist()
    pairs = zip(rows, maps.read("map", range(len(rows))), strict=True)
    return {(row["id"], row["instance"]): value for row, value in pairs if row["status"] == "ok"}


def keys_of(tokens: Tokens, name: str) -> torch.Tensor:
    return torch.from_numpy(tokens.read("keys", [name])[0])


EVERYWHERE = np.ones(GRID, bool)


# ---- one object


@pytest.mark.usefixtures("one_thread")
def test_ncut_has_a_row_for_each_picture(bench: Bench, toys: Tokens) -> None:
    maps = bench.mask(toys, method="ncut")
    rows = maps.rows().to_pylist()
    assert [(row["id"], row["class"], row["instance"]) for row in rows] == [(name, None, 0) for name in PICTURES]
    rows = [row for row in rows if row["status"] == "ok"]
    assert {row["threshold"] for row in rows} == {float(MEAN)}
    facts = maps.plan.facts
    assert (facts["score_kind"], facts["align_corners"]) == ("mean_at_half", False)
    for row in rows:
        found = by_slot(maps)[row["id"], 0]
        np.testing.assert_array_equal(found, ncut_map(keys_of(toys, row["id"]), EVERYWHERE, 0.2))
        assert row["foreground"] == pytest.approx((found > MEAN).mean())
        assert row["note"] == ("" if found.any() else "no_structure")
    assert len({row["foreground"] for row in rows}) > 3


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(("dtype", "flip"), [("float16", False), ("int8", False), ("float32", True)])
def test_of_stored_keys_and_a_padded_view(bench: Bench, dtype: str, flip: bool) -> None:
    """To the bit what the science gives of the patches that are picture."""
    tokens = bench.tokens(dtype=dtype, flip=flip)
    maps = bench.mask(tokens, method="ncut", tau=0.1)
    cut = padded = 0
    for row in tokens.rows.to_pylist():
        if row["status"] == "ok":
            top, left, bottom, right = row["box"]
            is_picture = np.zeros((64, 96), bool)
            is_picture[top:bottom, left:right] = True
            valid = is_picture.reshape(4, 16, 6, 16).mean(axis=(1, 3)) > 0.5
            wanted = ncut_map(keys_of(tokens, row["id"]), valid, 0.1)
            np.testing.assert_array_equal(by_slot(maps)[row["id"], 0], wanted[:, ::-1] if flip else wanted)
            cut, padded = cut + bool(wanted.any()), padded + (not valid.all())
    assert cut > 3
    assert padded > 3


@pytest.mark.parametrize("rule", ["otsu", "0.7", "kept-mass:0.3"])
def test_other_thresholds_cut_the_object_smaller(bench: Bench, toys: Tokens, rule: str) -> None:
    shares = [
        dict(zip(PICTURES, maps.rows(["foreground"])["foreground"].to_pylist(), strict=True))
        for maps in (bench.mask(toys, method="ncut", threshold=rule), bench.mask(toys, method="ncut"))
    ]
    assert sum(shares[0][name] < shares[1][name] for name in PICTURES) > 3 or rule == "otsu"
    assert shares[0] != shares[1]


# ---- several objects


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("instances", [1, 3, 5])
def test_maskcut_has_that_many_rows_for_each_picture(bench: Bench, toys: Tokens, instances: int) -> None:
    maps = bench.mask(toys, method="maskcut", instances=instances)
    rows = maps.rows().to_pylist()
    wanted = [(name, None, number) for name in PICTURES for number in range(instances)]
    assert [(row["id"], row["class"], row["instance"]) for row in rows] == wanted
    found = by_slot(maps)
    for name in WHOLE_PICTURES:
        values = [found[name, number] for number in range(instances)]
        np.testing.assert_array_equal(values, maskcut_maps(keys_of(toys, name), EVERYWHERE, 0.15, instances))
    notes = {(row["id"], row["instance"]): row["note"] for row in rows if row["status"] == "ok"}
    empty = {slot for slot, value in found.items() if not value.any()}
    assert {slot for slot, note in notes.items() if note} == empty
    assert {notes[slot] for slot in empty if slot[1]} <= {"no_instance"}
    assert {notes[slot] for slot in empty if not slot[1]} <= {"no_structure"}
    assert instances == 1 or 0 < sum(note == "no_instance" for note in notes.values()) < 12 * (instances - 1)


def test_units_and_what_is_read_together_change_no_byte_of_a_map(
    bench: Bench, toys: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A unit may end between the objects of a picture: those before are then found twice."""
    whole = by_slot(bench.mask(toys, WHOLE, method="maskcut"))
    for unit_rows, pictures, rows in [(1, 16, 32), (5, 2, 32), (39, 3, 1)]:
        monkeypatch.setattr(computing, "PICTURES_AT_ONCE", pictures)
        monkeypatch.setattr(computing, "ROWS_AT_ONCE", rows)
        parted = by_slot(bench.mask(toys, RunOptions(unit_rows=unit_rows, max_bad=0.5), method="maskcut"))
        assert whole.keys() == parted.keys()
        assert all(np.array_equal(whole[slot], parted[slot]) for slot in whole)


@pytest.mark.parametrize("method", ["ncut", "maskcut"])
def test_the_same_bytes_on_one_and_two_threads(bench: Bench, toys: Tokens, method: str) -> None:
    before, trees = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            out = bench.new_out()
            bench.mask_into(out, toys, method=method)
            trees.append(tree(out))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert trees[0] == trees[1]
    assert verify(str(out)).exit_code == 0


def test_a_unit_is_of_few_pictures(bench: Bench, toys: Tokens) -> None:
    """Each takes long, so that little is lost when a worker dies; and a picture's objects are in one unit."""
    units: list[tuple[dict[str, Any], int]] = [({"method": "maskcut", "instances": 5}, 160), ({"method": "ncut"}, 32)]
    for asked, rows in [*units, ({}, 1024)]:
        maps = bench.mask(toys, WHOLE, **asked)
        assert maps.plan.groups[0].unit_rows == rows


# ---- nothing to cut


def zero_keys(given: methods.MethodInput) -> np.ndarray:
    zeros = np.zeros_like(given.fields[methods.PATCHES])
    return methods.maskcut_instance_maps(replace(given, fields={methods.PATCHES: zeros}))


def test_keys_of_zero_are_noted_and_warned_of_once(bench: Bench, toys: Tokens, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(methods.METHODS, "maskcut", replace(methods.METHODS["maskcut"], apply=zero_keys))
    out = bench.new_out()
    outcome = bench.mask_into(out, toys, method="maskcut")
    assert (outcome.exit_code, outcome.counts["ok"]) == (6, 36)
    (sentence,) = outcome.warnings
    assert_named(sentence, "12 100% no_structure 0.15 --tau")
    maps = open_artifact(str(out))
    assert not maps.read("map", range(39)).any()
    notes = [row["note"] for row in maps.rows().to_pylist() if row["status"] == "ok"]
    assert notes == ["no_structure", "no_instance", "no_instance"] * 12


def test_slots_without_an_object_are_not_warned_of(bench: Bench, toys: Tokens) -> None:
    outcome = bench.mask_into(bench.new_out(), toys, method="maskcut", instances=8)
    assert outcome.counts["ok"] == 12 * 8
    assert (outcome.warnings, outcome.exit_code) == ((), 0)


# ---- what follows


@pytest.mark.parametrize("refiner", ["none", "crf"])
def test_refine_makes_one_label_map_of_a_pictures_objects(bench: Bench, toys: Tokens, refiner: Any) -> None:
    """All of them are its object; without a refiner the label map is where any of their maps is above its threshold."""
    maps, out = bench.mask(toys, method="maskcut"), bench.new_out()
    inputs = {"maps": maps.place.uri, "images": str(bench.images)}
    outcome = run(REFINE, make_config(RefineConfig, refiner=refiner), inputs, str(out), RunOptions(max_bad=0.5))
    labels = open_artifact(str(out))
    rows = labels.rows().to_pylist()
    assert [row["id"] for row in rows] == list(PICTURES)
    assert outcome.counts["rows"] == 13
    found, several = by_slot(maps), 0
    sizes = {row["id"]: row for row in maps.rows().to_pylist()}
    for place, row in enumerate(rows):
        if row["status"] != "ok":
            continue
        png = labels.cells("label", [place])[0]
        assert png is not None
        label_HW = decode_label_map(png)
        assert label_HW.shape == (sizes[row["id"]]["height"], sizes[row["id"]]["width"])
        maps_NRC = np.stack([found[row["id"], number] for number in range(3)])
        soft = upsample_maps(maps_NRC, label_HW.shape, tuple(sizes[row["id"]]["box"]), (4, 4), align_corners=False)
        several += (soft > MEAN).any(axis=(1, 2)).sum() > 1
        if refiner == "none":
            np.testing.assert_array_equal(label_HW > 0, (soft > MEAN).any(axis=0), row["id"])
    assert several > 3


# ---- what is refused


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"method": "ncut", "instances": 2}, r"ncut.*--instances"),
        ({"instances": 2}, r"cst.*--instances"),
        ({"method": "maskcut", "instances": 0}, r"instances.*0.*1.*255"),
        ({"method": "cst", "tau": 0.2}, r"cst.*--tau"),
        ({"method": "ncut", "tau": 1.0}, r"tau.*1.*0.*1"),
        ({"method": "ncut", "tau": float("nan")}, r"tau.*nan"),
        ({"method": "maskcut", "supports": "1"}, r"maskcut.*supports"),
        ({"method": "maskcut", "per_head": True}, r"maskcut.*heads"),
        ({"method": "maskct"}, r"'maskct'.*maskcut"),
    ],
)
def test_a_mistake_is_told(toys: Tokens, asked: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        make_config(MaskConfig, {"tokens": toys.artifact}, **asked)


def test_another_tau_or_number_of_objects_is_another_configuration(bench: Bench, toys: Tokens) -> None:
    out = bench.new_out()
    bench.mask_into(out, toys, method="maskcut")
    assert bench.mask_into(out, toys, method="maskcut", tau=0.15, instances=3).units_run == 0
    with pytest.raises(StaleArtifact, match=r"instances.*3.*4"):
        bench.mask_into(out, toys, method="maskcut", instances=4)
    with pytest.raises(StaleArtifact, match=r"tau.*0.15.*0.3"):
        bench.mask_into(out, toys, method="maskcut", tau=0.3)
