"""In-context masks: scores by hand for a picture of three clusters, and a fitted bank of supports."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jaxtyping import Float
from PIL import Image

from builders import toy_tokens
from builders.configs import make_config
from builders.toy_tokens import PATCH, TokensConfig
from maskmill.manifests.artifact.artifact import Artifact, open_artifact
from maskmill.manifests.artifact.checkpoints import WEIGHTS, training_ids
from maskmill.manifests.classes import IGNORE
from maskmill.manifests.datasets.layouts import FolderSource, TableSource
from maskmill.manifests.errors import ConfigError, InputError
from maskmill.manifests.pictures.palette import encode_label_map
from maskmill.pipeline.answers.verify import verify
from maskmill.pipeline.running.options import RunOptions
from maskmill.pipeline.running.run import Outcome, run
from maskmill.pipeline.running.whole import run_whole
from maskmill.stages.index.config import IndexConfig
from maskmill.stages.index.stage import STAGE as INDEX
from maskmill.stages.mask.config import FitConfig, MaskConfig
from maskmill.stages.mask.incontext import Support, cluster_patches, incontext_map
from maskmill.stages.mask.method_fit import FIT
from maskmill.stages.mask.stage import STAGE as MASK
from maskmill.stages.mask.support_bank import load_bank
from maskmill.stages.stage import RowResult, UnitResult, Work

GRID, WIDTH = (2, 3), 8
GROUND, HEAD, BODY, WHEEL, SKY = np.eye(WIDTH, dtype=np.float32)[:5]
LEG = (HEAD + BODY) / np.sqrt(2, dtype=np.float32)  # joins neither at a cosine of 0.71 to both, once they are apart
# The patches of each picture, row by row. Objects are the first two columns.
PICTURES: Mapping[str, list[np.ndarray]] = {
    "cat/a": [HEAD, BODY, GROUND, HEAD, BODY, GROUND],
    "cat/b": [GROUND, SKY, HEAD, GROUND, SKY, HEAD],  # its mask is wrong
    "cat/c": [HEAD, LEG, GROUND, GROUND, SKY, GROUND],
    "dog/d": [WHEEL, WHEEL, GROUND, WHEEL, WHEEL, SKY],
    "dog/e": [WHEEL, GROUND, GROUND, SKY, GROUND, GROUND],
    "owl/f": [SKY, GROUND, SKY, SKY, GROUND, SKY],  # no owl has a mask
    "dog/plain": [GROUND] * 6,
}
MASKED = ("cat/a", "cat/b", "dog/d")
ROW_AT_ONCE = RunOptions(unit_rows=1)


def write_tokens(work: Work, config: TokensConfig, prepared: Any) -> UnitResult:
    declared = {field.name: field for field in toy_tokens.fields(config, work.inputs)}
    arrays = {name: np.zeros((len(work.ids), *each.shape), np.float16) for name, each in declared.items()}
    for index, identifier in enumerate(work.ids):
        keys_RCK = np.stack(PICTURES[identifier]).reshape(*GRID, WIDTH)
        arrays["keys"][index] = (keys_RCK[:, ::-1] if config.flip else keys_RCK).reshape(-1, WIDTH)
    box = [0, 0, *config.image_size]
    results = [RowResult({"box": box, "height": box[2], "width": box[3]}) for _ in work.ids]
    return UnitResult(results, {name: arrays[name] for name in work.fields})


TOKENS = replace(toy_tokens.TOKENS, run_unit=write_tokens)


@dataclass(frozen=True, slots=True)
class Home:
    path: Path
    numbers: Any

    def inputs(self, images: str = "images", tokens: str = "tokens") -> dict[str, str]:
        return {"tokens": str(self.path / tokens), "images": str(self.path / images)}

    def new_out(self) -> str:
        return str(self.path / f"out-{next(self.numbers)}")

    def fit(self, images: str = "images", tokens: str = "tokens", **asked: Any) -> tuple[str, Outcome]:
        out, inputs = self.new_out(), self.inputs(images, tokens)
        read = {"tokens": open_artifact(inputs["tokens"])}
        config = make_config(FitConfig, read, **{"method": "incontext", **asked})
        return out, run_whole(FIT, config, inputs, out)

    def mask(self, model: str, options: RunOptions = ROW_AT_ONCE, **asked: Any) -> Artifact:
        out = self.new_out()
        self.mask_into(out, model, options, **asked)
        return open_artifact(out, "maps")

    def mask_into(self, out: str, model: str, options: RunOptions = ROW_AT_ONCE, **asked: Any) -> Outcome:
        read = {"tokens": open_artifact(self.inputs()["tokens"]), "model": open_artifact(model)}
        config = make_config(MaskConfig, read, **{"method": "incontext", **asked})
        return run(MASK, config, {**self.inputs(), "model": model}, out, options)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    path = tmp_path_factory.mktemp("incontext")
    size = (GRID[1] * PATCH, GRID[0] * PATCH)
    for number, identifier in enumerate(PICTURES):
        for folder in ("pictures", "masks"):
            (path / folder / identifier).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (number, 0, 0)).save(path / "pictures" / f"{identifier}.png")
        if identifier in MASKED:
            mask = Image.new("L", size, 0)
            mask.paste(255, (0, 0, 2 * PATCH, size[1]))
            mask.save(path / "masks" / f"{identifier}.png")
    for out, masks in (("images", str(path / "masks")), ("unmasked", "")):
        source = FolderSource(root=str(path / "pictures"), masks=masks)
        run(INDEX, IndexConfig(source=source), {}, str(path / out), RunOptions())
    for out, is_flipped in (("tokens", False), ("mirrored", True)):
        config = TokensConfig(grid=GRID, width=WIDTH, flip=is_flipped)
        run(TOKENS, config, {"images": str(path / "images")}, str(path / out))
    return Home(path, count())


def map_of(maps: Artifact, identifier: str) -> Float[np.ndarray, "T"]:
    (place,) = [place for place, row in enumerate(maps.rows(["id"]).to_pylist()) if row["id"] == identifier]
    return maps.read("map", [place])[0].ravel()


def note_of(maps: Artifact, identifier: str) -> str:
    return next(row["note"] for row in maps.rows(["id", "note"]).to_pylist() if row["id"] == identifier)


def test_scores_are_cross_times_intra_times_the_share_of_candidates() -> None:
    """Of the body's cluster, one patch only agrees with it."""
    tail = np.array([0.6, 0, 0.8, 0, 0, 0, 0, 0], np.float32)  # agrees with the ground, and lies nearest the body
    patches = np.stack([HEAD, HEAD, BODY, GROUND, tail])
    clusters = np.array([0, 0, 1, 2, 1])
    support = Support(np.stack([HEAD, BODY, GROUND]), np.array([True, True, False]))
    mean = (HEAD + BODY) / np.sqrt(2)
    body = (BODY + tail) / np.linalg.norm(BODY + tail)
    agreement = (BODY @ mean + tail @ mean) / 2
    assert HEAD @ mean > body @ mean, "so the head is the seed"
    expected = [HEAD @ mean, HEAD @ mean, agreement * (body @ HEAD), 0, agreement * (body @ HEAD)]
    np.testing.assert_allclose(incontext_map(patches, clusters, [support]), expected, atol=1e-6)


def test_half_of_the_supports_suffice_and_clusters_count_by_their_candidates() -> None:
    agrees, differs = (Support(np.stack([HEAD, GROUND]), np.array([is_head, not is_head])) for is_head in (True, False))
    patches, clusters = np.stack([HEAD, SKY]), np.array([0, 0])
    # The sky agrees with nothing: it is no candidate, but belongs to the cluster of the seed, whose share is 1.
    np.testing.assert_allclose(incontext_map(patches, clusters, [agrees]), [0.5, 0.5], atol=1e-6)
    found = incontext_map(np.stack([HEAD, GROUND]), np.array([0, 1]), [agrees, differs])
    assert found.max() > 0.6, "one of two"
    assert not incontext_map(np.stack([HEAD]), np.array([0]), [agrees, differs, differs]).any(), "one of three"


def test_clusters_are_joined_by_their_mean_cosine() -> None:
    patches = np.stack([HEAD, HEAD, LEG, BODY, GROUND])
    joined = cluster_patches(patches, 0.6)
    assert len(set(joined[:3])) == 1
    assert len(set(joined)) == 3, "head with leg at 0.71; the body then only at a third of that"
    assert len(set(cluster_patches(patches, 0.8))) == 4
    assert cluster_patches(patches[:1], 0.6).tolist() == [0]


def test_masked_pictures_show_where_an_object_is(home: Home) -> None:
    model, _ = home.fit(gt_list=("cat/a", "dog/d"))
    assert sorted(training_ids(open_artifact(model), "masks")) == ["cat/a", "dog/d"]
    maps = home.mask(model)
    assert (map_of(maps, "cat/c") > 0.2).tolist() == [True, True, False, False, False, False]
    assert (map_of(maps, "dog/e") > 0.2).tolist() == [True, False, False, False, False, False]
    assert maps.rows(["threshold"]).column("threshold").to_pylist()[0] == pytest.approx(0.2)


def test_maps_do_not_depend_on_what_is_computed_together(home: Home) -> None:
    model, _ = home.fit(gt_per_class=1)
    one, all_at_once = (home.mask(model, RunOptions(unit_rows=rows)) for rows in (1, 64))
    np.testing.assert_array_equal(one.read("map", range(len(PICTURES))), all_at_once.read("map", range(len(PICTURES))))


def test_a_picture_does_not_support_itself_unless_it_is_alone(home: Home) -> None:
    """The mask of b says that its ground and sky are the cat; beside a, b is looked at with the eyes of a."""
    alone, _ = home.fit(gt_list=("cat/b",))
    assert (map_of(home.mask(alone), "cat/b") > 0.2).any()
    both, _ = home.fit(gt_list=("cat/a", "cat/b"))
    assert (map_of(home.mask(both), "cat/b") > 0.2).tolist() == [False, False, True, False, False, True]


def test_a_class_without_supports_has_empty_maps_and_the_fit_says_so(home: Home) -> None:
    model, outcome = home.fit(gt_per_class=1)
    assert ["owl" in warning for warning in outcome.warnings] == [True]
    out = home.new_out()
    assert ["--gt-per-class" in warning for warning in home.mask_into(out, model).warnings] == [True]
    maps = open_artifact(out, "maps")
    assert note_of(maps, "owl/f") == "no_structure"
    assert not map_of(maps, "owl/f").any()


def test_a_picture_of_one_colour_is_noted(home: Home) -> None:
    model, _ = home.fit(gt_per_class=1)
    assert note_of(home.mask(model), "dog/plain") == "no_structure"


def test_supports_of_a_mirrored_view_are_those_of_the_upright_one(home: Home) -> None:
    upright, _ = home.fit(gt_list=("cat/a", "dog/d"))
    mirrored, _ = home.fit(tokens="mirrored", gt_list=("cat/a", "dog/d"))
    one, other = (home.mask(model).read("map", range(len(PICTURES))) for model in (upright, mirrored))
    np.testing.assert_allclose(one, other, atol=1e-6)


def test_supports_are_for_the_classes_that_they_were_drawn_of(home: Home) -> None:
    model, _ = home.fit(gt_per_class=1)
    source = TableSource(file=str(home.path / "pictures" / "others.csv"), classes=("owl", "cat", "dog"))
    lines = [f"{identifier}.png,{identifier.partition('/')[0]}" for identifier in PICTURES]
    Path(source.file).write_text("\n".join(["path,labels", *lines]) + "\n")
    run(INDEX, IndexConfig(source=source), {}, str(home.path / "others"), RunOptions())
    run(TOKENS, TokensConfig(grid=GRID, width=WIDTH), {"images": str(home.path / "others")}, home.new_out())
    inputs = home.inputs("others") | {"model": model}
    config = make_config(MaskConfig, {"model": open_artifact(model)}, method="incontext")
    with pytest.raises(ConfigError, match=r"class 1 is owl .*--model"):
        run(MASK, config, inputs, home.new_out())


def test_an_object_smaller_than_a_patch_has_one(home: Home) -> None:
    """And what is undecided neither votes nor counts."""
    label_IJ = np.zeros((GRID[0] * PATCH, GRID[1] * PATCH), np.uint8)
    label_IJ[1, 1] = 1
    label_IJ[:PATCH, 2 * PATCH :] = IGNORE
    (home.path / "pictures" / "small.png").write_bytes(encode_label_map(label_IJ))
    table = home.path / "pictures" / "table.csv"
    table.write_text("path,labels,mask\ndog/d.png,dog,small.png\n")
    source = TableSource(file=str(table), classes=("dog",))
    run(INDEX, IndexConfig(source=source), {}, str(home.path / "small"), RunOptions())
    model, _ = home.fit("small", gt_per_class=1)
    (support,) = load_bank(open_artifact(model)).by_class[1].values()
    assert support.is_object_P.tolist() == [True, False, False, False, False]


def test_bad_input_is_one_sentence(home: Home) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({}, "--gt-per-class"),
        ({"gt_per_class": 1, "gt_list": ("cat/a",)}, "--gt-list"),
        ({"gt_per_class": 1, "method": "found"}, "--gt-per-class"),
    ]
    for asked, named in cases:
        with pytest.raises(ConfigError, match=named):
            home.fit(**asked)
    with pytest.raises(InputError, match="--images"):
        home.fit("unmasked", gt_per_class=1)
    with pytest.raises(InputError, match=r"--gt-list.*cat/c"):
        home.fit(gt_list=("cat/c",))
    model, _ = home.fit(gt_per_class=1)
    with pytest.raises(ConfigError, match="--supports"):
        home.mask(model, supports="8")
    with pytest.raises(ConfigError, match="--side"):
        home.mask(model, side="corners")


def test_damaged_supports_are_refused(home: Home) -> None:
    model, _ = home.fit(gt_per_class=1)
    file = Path(model) / WEIGHTS
    data = bytearray(file.read_bytes())
    data[-3] ^= 4
    file.write_bytes(data)
    assert verify(model).exit_code == 4
