"""Maps of several views: whose values they are, how rows and supports are joined, what is refused, what changes do."""

import dataclasses
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from builders import toy_tokens
from builders.configs import make_config
from builders.small_dataset import tree, write_picture
from builders.small_tokens import BACKBONE, PICTURES, UNITS_OF_5, Bench
from maskmill.manifests.artifact.artifact import Artifact, open_artifact
from maskmill.manifests.artifact.plan import listing_batches
from maskmill.manifests.artifact.tokens import Tokens, open_tokens
from maskmill.manifests.datasets.layouts import FolderSource
from maskmill.manifests.errors import ConfigError, StaleArtifact
from maskmill.pipeline.answers.verify import verify
from maskmill.pipeline.running.options import RunOptions
from maskmill.pipeline.running.run import Outcome, run
from maskmill.stages.extract.config import ExtractConfig
from maskmill.stages.extract.stage import STAGE as EXTRACT
from maskmill.stages.index.config import IndexConfig
from maskmill.stages.index.stage import STAGE as INDEX
from maskmill.stages.maps.cst import cosine_map, mean_of_queries, normalise_queries
from maskmill.stages.maps.thresholds import otsu
from maskmill.stages.mask.config import MaskConfig
from maskmill.stages.mask.merging import Lattice, resample_maps
from maskmill.stages.mask.methods import METHODS
from maskmill.stages.mask.stage import STAGE as MASK
from maskmill.stages.stage import Work
from maskmill.stages.vision.weights import read_weights

HEADS, PATCH = 2, (16, 16)
FIELDS = ("keys", "cls_query", "cls_attention")


def mask_into(out: Path, views: list[Tokens], bench: Bench, options: RunOptions = UNITS_OF_5, **asked: Any) -> Outcome:
    first, *others = [view.artifact.place.uri for view in views]
    inputs = {"tokens": first, "images": str(bench.images)}
    inputs |= {f"view{number}": uri for number, uri in enumerate(others, 2)}
    return run(MASK, make_config(MaskConfig, {"tokens": views[0].artifact}, **asked), inputs, str(out), options)


def merge(bench: Bench, *views: Tokens, **asked: Any) -> Artifact:
    out = bench.new_out()
    mask_into(out, list(views), bench, **asked)
    return open_artifact(str(out), "maps")


def by_row(maps: Artifact, field: str = "map") -> dict[tuple[str, int | None], np.ndarray]:
    rows = maps.rows(["id", "class", "status"]).to_pylist()
    values = maps.read(field, range(len(rows)))
    return {(row["id"], row["class"]): value for row, value in zip(rows, values, strict=True) if row["status"] == "ok"}


def told(maps: Artifact, *columns: str) -> list[dict[str, Any]]:
    return maps.rows(["id", "class", *columns]).to_pylist()


# ---- values

METHOD = [{"supports": "0"}, {"supports": "2"}, {"supports": "all"}, {"method": "cls-attention"}]


@pytest.mark.parametrize("asked", METHOD, ids=lambda asked: "-".join(asked.values()))
@pytest.mark.parametrize("flip", [False, True])
def test_a_view_merged_with_itself_is_that_view(bench: Bench, asked: dict[str, Any], flip: bool) -> None:
    """Extracted in batches of another size: other bytes in plan.json, and the same in every array."""
    one, other = (bench.tokens(fields=FIELDS, flip=flip, batch=batch) for batch in (16, 3))
    single, double = bench.mask(one, per_head=True, **asked), merge(bench, one, other, per_head=True, **asked)
    assert double.plan.fingerprint != single.plan.fingerprint
    for field in ("map", "head_maps"):
        found, expected = by_row(double, field), by_row(single, field)
        assert found.keys() == expected.keys()
        for row, value in expected.items():
            # The heads' sum is divided by the largest of their mean, which the map has rounded otherwise.
            np.testing.assert_allclose(found[row], value, rtol=0, atol=0 if field == "map" else 1e-6)
    columns = ("threshold", "foreground", "box", "height", "width", "note", "status", "map_sha256")
    assert told(double, *columns) == told(single, *columns)


def supports_of(maps: Artifact, tokens: Tokens) -> dict[tuple[str, int | None], list[str]]:
    """As they were planned, by id."""
    ids = tokens.rows.column("id").to_pylist()
    listed = open_listing(maps)
    return {(row["id"], row["class"]): [ids[place] for place in row["supports"]] or [row["id"]] for row in listed}


def open_listing(maps: Artifact) -> list[dict[str, Any]]:
    return [row for batch in listing_batches(maps.place, maps.plan) for row in batch.to_pylist()]


def slow_map(tokens: Tokens, name: str, supports: list[str]) -> np.ndarray:
    """One picture's map in one view, upright, from the arrays that `open_tokens` reads."""
    queries_KHE = normalise_queries(torch.from_numpy(tokens.read("cls_query", supports)), HEADS)
    query_HE = mean_of_queries(queries_KHE) if len(supports) > 1 else queries_KHE[0]
    map_RC = cosine_map(torch.from_numpy(tokens.read("keys", [name])), query_HE).numpy().reshape(grid_of(tokens))
    return map_RC[:, ::-1] if tokens.artifact.plan.config["flip"] else map_RC


def grid_of(tokens: Tokens) -> tuple[int, int]:
    rows, columns = tokens.backbone["grid"]
    return rows, columns


def lattice_of(tokens: Tokens, name: str) -> Lattice:
    (row,) = [row for row in tokens.rows.to_pylist() if row["id"] == name]
    top, left, bottom, right = row["box"]
    if tokens.artifact.plan.config["flip"]:
        left, right = (tokens.backbone["columns_px"] - each for each in (right, left))
    return Lattice(grid_of(tokens), PATCH, (top, left, bottom, right))


OTHERS: dict[str, dict[str, Any]] = {
    "flipped": {"flip": True},
    "larger": {"image_size": (96, 128)},
    "smaller, another aspect": {"image_size": (48, 32)},
    "squashed and flipped": {"fit": "squash", "flip": True, "image_size": (80, 80)},
}


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("supports", ["0", "2"])
def test_a_map_is_the_mean_of_the_views_on_the_first_ones_grid(bench: Bench, name: str, supports: str) -> None:
    """Supports are seen in the same view as the picture is."""
    views = [bench.tokens(), bench.tokens(**OTHERS[name])]
    maps = merge(bench, *views, supports=supports)
    looked_with, found = supports_of(maps, views[0]), by_row(maps)
    assert (maps.plan.facts["grid"], maps.plan.facts["patch"]) == ([4, 6], [16, 16])
    assert len(found) == (11 if supports == "0" else 12)
    for row in told(maps, "status", "threshold", "foreground"):
        key = (row["id"], row["class"])
        if row["status"] != "ok" or (supports != "0" and row["class"] is None):
            continue
        lattices = [lattice_of(view, row["id"]) for view in views]
        first_RC, other_RC = (slow_map(view, row["id"], looked_with[key]) for view in views)
        mean_RC = (first_RC + resample_maps(other_RC, lattices[1], lattices[0], align_corners=True)) / 2
        top, left, bottom, right = lattices[0].box
        is_picture = np.zeros((64, 96), bool)
        is_picture[top:bottom, left:right] = True
        valid_RC = is_picture.reshape(4, 16, 6, 16).mean(axis=(1, 3)) > 0.5
        np.testing.assert_allclose(found[key][valid_RC], mean_RC[valid_RC], rtol=0, atol=1e-7)
        np.testing.assert_array_equal(found[key][~valid_RC], first_RC[~valid_RC])
        inside_1T = found[key][valid_RC][None]
        assert row["threshold"] == otsu(inside_1T, np.ones_like(inside_1T, bool))[0][0]
        assert row["foreground"] == pytest.approx((inside_1T > row["threshold"]).mean())


def test_three_views_have_a_third_each(bench: Bench) -> None:
    squashed: list[dict[str, Any]] = [{}, {"flip": True}, {"batch": 3}]
    views = [bench.tokens(fit="squash", **each) for each in squashed]
    found, expected = by_row(merge(bench, *views, supports="0")), [by_row(bench.mask(v, supports="0")) for v in views]
    for row, map_RC in found.items():
        np.testing.assert_allclose(map_RC, np.mean([each[row] for each in expected], axis=0), rtol=0, atol=1e-7)


def test_a_sum_is_1_where_it_is_largest(bench: Bench) -> None:
    views = [bench.tokens(fields=FIELDS), bench.tokens(fields=FIELDS, flip=True)]
    maps = merge(bench, *views, method="cls-attention", per_head=True)
    found, heads = by_row(maps), by_row(maps, "head_maps")
    assert {float(map_RC.max()) for map_RC in found.values()} == {1.0}
    for row, heads_HRC in heads.items():
        np.testing.assert_allclose(heads_HRC.mean(axis=0), found[row], rtol=0, atol=1e-6)


def test_units_and_workers_change_no_value(bench: Bench) -> None:
    views, outs = [bench.tokens(), bench.tokens(image_size=(96, 128), flip=True)], [bench.new_out(), bench.new_out()]
    for out, unit_rows in zip(outs, (20, 3), strict=True):
        mask_into(out, views, bench, RunOptions(unit_rows=unit_rows, max_bad=0.5))
    one, other = (by_row(open_artifact(str(out))) for out in outs)
    assert all(np.array_equal(one[row], other[row]) for row in one)


# ---- a backbone to which a mirrored picture is the mirrored picture


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures with their mirrored twins, and weights whose patch kernels and positions are their own mirror image."""
    home = tmp_path_factory.mktemp("mirror")
    (home / "pictures").mkdir()
    generator = np.random.default_rng(5)
    for name in "abc":
        picture_HW3 = generator.integers(0, 256, (64, 96, 3), dtype=np.uint8)
        Image.fromarray(picture_HW3).save(home / f"pictures/{name}.png")
        Image.fromarray(np.ascontiguousarray(picture_HW3[:, ::-1])).save(home / f"pictures/{name}-mirrored.png")
    run(INDEX, IndexConfig(source=FolderSource(root=str(home / "pictures"))), {}, str(home / "images"))
    _, state = read_weights(BACKBONE, "random:0")
    state = {name: tensor.clone() for name, tensor in state.items()}
    kernel = state["patch_embed.proj.weight"]
    state["patch_embed.proj.weight"] = (kernel + kernel.flip(-1)) / 2
    positions_1ND = state["pos_embed"]
    of_patches = positions_1ND[:, 1:].reshape(1, 10, 10, -1)
    symmetric = ((of_patches + of_patches.flip(2)) / 2).reshape(1, 100, -1)
    state["pos_embed"] = torch.cat([positions_1ND[:, :1], symmetric], dim=1)
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, home / "weights.safetensors")
    return home


def mirror_maps(home: Path, name: str, *views: Mapping[str, Any], weights: str = "") -> dict[str, np.ndarray]:
    places = []
    for number, view in enumerate(views):
        places.append(str(home / f"{name}-tokens-{number}"))
        config = make_config(
            ExtractConfig,
            backbone=BACKBONE,
            weights=weights or str(home / "weights.safetensors"),
            **{"image_size": (64, 96), **view},
        )
        run(EXTRACT, config, {"images": str(home / "images")}, places[-1])
    inputs = {"tokens": places[0], "images": str(home / "images")}
    inputs |= {f"view{number}": place for number, place in enumerate(places[1:], 2)}
    out = home / name
    run(MASK, make_config(MaskConfig, {"tokens": open_artifact(places[0])}, supports="0"), inputs, str(out))
    return {identifier: map_RC for (identifier, _), map_RC in by_row(open_artifact(str(out))).items()}


def test_a_flipped_view_alone_is_the_plain_one(mirror: Path) -> None:
    """Within what float16 keeps of a key, on a backbone that does not tell left from right."""
    plain, flipped = mirror_maps(mirror, "plain", {}), mirror_maps(mirror, "flipped", {"flip": True})
    for name, map_RC in plain.items():
        assert np.ptp(map_RC) > 0.01
        np.testing.assert_allclose(flipped[name], map_RC, rtol=0, atol=1e-3)
        assert np.abs(flipped[name][:, ::-1] - map_RC).max() > 0.01


@pytest.mark.parametrize("size", [(64, 96), (48, 80)])
def test_plain_and_flipped_together_are_flip_equivariant(mirror: Path, size: tuple[int, int]) -> None:
    """On a backbone that does tell left from right, whatever the sizes of a pair."""
    further: dict[str, Any] = {"image_size": size, "fit": "squash"}
    third = [] if size == (64, 96) else [further, {**further, "flip": True}]
    found = mirror_maps(mirror, f"both-{size[0]}", {}, {"flip": True}, *third, weights="random:0")
    for letter in "abc":
        twin_RC = found[f"{letter}-mirrored"][:, ::-1]
        np.testing.assert_allclose(twin_RC, found[letter], rtol=0, atol=2e-3 if third else 1e-6)
    alone = mirror_maps(mirror, f"alone-{size[0]}", {}, weights="random:0")
    assert max(np.abs(alone[f"{each}-mirrored"][:, ::-1] - alone[each]).max() for each in "abc") > 0.01


# ---- rows


def toys(bench: Bench, config: toy_tokens.TokensConfig, out: Path | None = None, **changes: Any) -> Tokens:
    out = out or bench.new_out()
    stage = dataclasses.replace(toy_tokens.TOKENS, **changes)
    run(stage, config, {"images": str(bench.images)}, str(out), UNITS_OF_5)
    return open_tokens(str(out))


def test_rows_are_joined_by_id(bench: Bench) -> None:
    """Another view that lists the pictures in another order gives the same maps."""

    def backwards(*given: Any) -> Any:
        listed = toy_tokens.plan(*given)
        batches = [batch.take(list(reversed(range(batch.num_rows)))) for batch in listed.batches]
        return dataclasses.replace(listed, batches=iter(reversed(batches)))

    first, other = toys(bench, toy_tokens.TokensConfig()), toy_tokens.TokensConfig(flip=True, grid=(3, 4))
    straight, turned = toys(bench, other), toys(bench, other, plan=backwards)
    assert turned.rows.column("id").to_pylist() == [*PICTURES][::-1]
    for supports in ("0", "1", "all"):
        one, same = (merge(bench, first, view, supports=supports) for view in (straight, turned))
        assert told(one, "map_sha256", "threshold", "note", "status") == told(
            same, "map_sha256", "threshold", "note", "status"
        )


def test_a_row_that_failed_in_one_view_fails_upstream(bench: Bench) -> None:
    """A map of the views that are left would be another kind of map among the rest. Nobody looks with it, either."""

    def spoilt(work: Work, *given: Any) -> Any:
        result = toy_tokens.run_unit(work, *given)
        for index, identifier in enumerate(work.ids):
            if identifier == "cat/1":
                result.arrays["keys"][index] = np.nan
        return result

    first, flipped = toys(bench, toy_tokens.TokensConfig()), toy_tokens.TokensConfig(flip=True)
    maps = merge(bench, first, toys(bench, flipped, run_unit=spoilt), supports="8")
    failed = {
        row["id"]: (row["status"], row["reason"]) for row in told(maps, "status", "reason") if row["status"] != "ok"
    }
    assert failed == {
        "broken": ("upstream", "truncated"),
        "cat/1": ("upstream", "not_finite"),
    }
    cats = supports_of(maps, first)["cat/0", 2]
    assert sorted(cats) == ["both/3", "cat/2"]


def test_a_changed_support_changes_the_rows_that_look_with_it_in_any_view(own_bench: Bench) -> None:
    bench, options, out = own_bench, RunOptions(unit_rows=1, max_bad=0.5), own_bench.new_out()
    views: list[dict[str, Any]] = [{}, {"flip": True}]
    mask_into(out, [bench.tokens(**view) for view in views], bench, options, supports="1")
    before = told(open_artifact(str(out)), "map_sha256")
    write_picture(bench.home / "cat/1.png", 77, (30, 20))
    bench.index()
    for view in views:
        bench.extract(Path(bench.tokens(**view).artifact.place.uri), **view)
    tokens = [bench.tokens(**view) for view in views]
    mask_into(out, tokens, bench, options, supports="1")
    maps = open_artifact(str(out))
    changed = {
        (old["id"], old["class"]) for old, new in zip(before, told(maps, "map_sha256"), strict=True) if old != new
    }
    looking = {row for row, names in supports_of(maps, tokens[0]).items() if "cat/1" in names}
    assert changed == (looking | {("cat/1", 2)}) - {("broken", 2)}
    assert mask_into(out, tokens, bench, options, supports="1").units_run == 0
    assert verify(str(out)).exit_code == 0


def test_a_support_whose_query_changed_in_another_view_alone_changes_its_rows(bench: Bench, tmp_path: Path) -> None:
    """As where that view was computed on another processor."""

    def elsewhere(work: Work, *given: Any) -> Any:
        result = toy_tokens.run_unit(work, *given)
        if "cat/1" in work.ids:
            result.arrays["cls_query"][list(work.ids).index("cat/1")] += 1
        return result

    first, flipped = toys(bench, toy_tokens.TokensConfig()), toy_tokens.TokensConfig(flip=True)
    out, options = bench.new_out(), RunOptions(unit_rows=1, max_bad=0.5)
    mask_into(out, [first, toys(bench, flipped, tmp_path / "view", run_unit=elsewhere)], bench, options, supports="1")
    before = told(open_artifact(str(out)), "map_sha256")
    shutil.rmtree(tmp_path / "view")
    mask_into(out, [first, toys(bench, flipped, tmp_path / "view")], bench, options, supports="1")
    maps = open_artifact(str(out))
    changed = {
        (old["id"], old["class"]) for old, new in zip(before, told(maps, "map_sha256"), strict=True) if old != new
    }
    looking = {row for row, names in supports_of(maps, first).items() if "cat/1" in names and row[0] != "cat/1"}
    assert changed == looking - {("broken", 2)} != set()


# ---- another choice of views is another configuration


def test_views_are_part_of_what_is_asked_for(bench: Bench) -> None:
    plain, flipped, larger = bench.tokens(), bench.tokens(flip=True), bench.tokens(image_size=(96, 128))
    one, two = bench.new_out(), bench.new_out()
    mask_into(one, [plain], bench)
    mask_into(two, [plain, flipped], bench)
    before = tree(one), tree(two)
    added = r"inputs.view2.*nothing.*cls_query, keys.*--out"
    with pytest.raises(StaleArtifact, match=added):
        mask_into(one, [plain, flipped], bench)
    with pytest.raises(StaleArtifact, match=r"inputs.view2.*cls_query, keys.*nothing"):
        mask_into(two, [plain], bench)
    with pytest.raises(StaleArtifact, match=r"inputs.view2.cls_query"):
        mask_into(two, [plain, larger], bench)
    with pytest.raises(StaleArtifact, match=r"inputs.tokens.cls_query"):
        mask_into(two, [flipped, plain], bench)
    assert (tree(one), tree(two)) == before
    assert mask_into(two, [plain, flipped], bench).units_run == 0


# ---- what is refused


def test_strange_views_are_refused(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = bench.tokens()

    def refused(view: Tokens, match: str, **asked: Any) -> None:
        out = bench.new_out()
        with pytest.raises(ConfigError, match=match):
            mask_into(out, [first, bench.tokens(flip=True), view], bench, **asked)
        assert not out.exists()

    refused(first, "same view")
    refused(bench.tokens(flip=True), "same view")
    refused(
        bench.tokens(weights="random:1"),
        r"weights.*random:1.*random:0",
    )
    other_one = "vit_tiny_patch16_224"
    refused(
        bench.tokens(backbone=other_one),
        rf"backbone.*{other_one}.*test_vit\.r160_in1k",
    )
    other = Bench(tmp_path)
    write_picture(tmp_path / "a.png", 1)
    other.index({"a": ("cat", "train")})
    refused(other.tokens(), "other images")
    lacking = r"cls_query.*`maskmill extract .* --flip --image-size 48x32 .* --fields cls_query"
    refused(bench.tokens(fields=("keys",), flip=True, image_size=(48, 32)), lacking)
    monkeypatch.setitem(METHODS, "cst", dataclasses.replace(METHODS["cst"], merge=None))
    refused(bench.tokens(image_size=(48, 32)), "cst.*views")


def test_views_of_before_and_after_a_change_are_refused(own_bench: Bench) -> None:
    bench, first = own_bench, own_bench.tokens()
    write_picture(bench.home / "cat/new.png", 50, (30, 20))
    bench.index({**PICTURES, "cat/new": ("cat", "train")}, update=True)
    with pytest.raises(ConfigError, match=r"extract.*images"):
        mask_into(bench.new_out(), [first, bench.tokens(flip=True)], bench)
    bench.extract(Path(first.artifact.place.uri))
    assert mask_into(bench.new_out(), [bench.tokens(), bench.tokens(flip=True)], bench).finished
