"""What a recipe may say, and that everything that is wrong with one is named at once."""

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from builders.mistakes import assert_named
from builders.small_recipe import SMALL, write_recipe
from maskmill.manifests.datasets.layouts import SOURCES
from maskmill.manifests.errors import ConfigError, InputError
from maskmill.manifests.files.place import place
from maskmill.manifests.pictures.limits import Limits
from maskmill.pipeline.recipes import SCRIPTS, SHIPPED, read_shipped_recipe
from maskmill.pipeline.recipes.recipe import Recipe, parse_recipe, read_recipe
from maskmill.pipeline.recipes.steps import recipe_steps
from maskmill.stages.mask.methods import METHODS
from maskmill.stages.stage import Findings


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the pictures that the small recipe names."""
    made = tmp_path_factory.mktemp("home")
    write_recipe(made)
    return made


def parsed(home: Path, text: str, *settings: str) -> Recipe:
    return parse_recipe(text.encode(), "recipe.toml", place(home), settings)


def mistakes(home: Path, text: str, *settings: str) -> list[str]:
    """What is said to be wrong, line by line."""
    with pytest.raises(ConfigError) as raised:
        parsed(home, text, *settings)
    assert raised.value.exit_code == 2
    first, *rest = str(raised.value).split("\n")
    if not rest:
        return [first.removeprefix("recipe.toml: ")]
    assert first == f"recipe.toml has {len(rest)} mistakes:"
    return [line.removeprefix("  ") for line in rest]


def test_a_recipe_holds_what_it_says_with_its_paths_made_absolute(home: Path) -> None:
    recipe = parsed(home, SMALL + '[run]\nworkers = 2\nmax_bad = 1\n"trust" = true')
    assert [step.name for step in recipe.steps] == ["index", "extract", "mask", "refine"]
    assert recipe.tables["index"] == {
        "layout": "folder",
        "root": str(home / "pictures"),
        "masks": str(home / "masks"),
    }
    assert recipe.tables["extract"]["image_size"] == (32, 32)
    assert recipe.run == {"workers": 2, "max_bad": 1.0, "trust": True}
    assert recipe.heading.title == "small"


def test_steps_run_in_their_own_order_however_the_file_has_them(home: Path) -> None:
    tables = SMALL.split("\n\n")
    recipe = parsed(home, "\n\n".join([tables[0], *reversed(tables[1:])]))
    assert [step.name for step in recipe.steps] == ["index", "extract", "mask", "refine"]


def test_every_mistake_is_named_at_once(home: Path) -> None:
    text = """
    titel = "x"
    refine = 3
    [index]
    layout = "folder"
    root = "picturs"
    [extract]
    backbone = "test_vit.r160_in1k"
    weights = "random:0"
    image_size = "32x32"
    fit = "pda"
    flip = "no"
    fields = ["keys", 3]
    batch = true
    [msak]
    supports = 0
    [mask]
    threshold = 1.5
    [run]
    workers = -1
    """
    named = [
        "titel title",
        "refine table [refine]",
        "[msak] mask",
        "title",
        "[run] workers -1 0",
        f"[index] root {home}/picturs",
        '[extract] image_size "32x32"',
        '[extract] fit "pda" pad squash',
        '[extract] flip "no" true false',
        '[extract] fields ["keys", 3]',
        "[extract] batch true",
        "[mask] threshold '1.5' otsu kept-mass:",
    ]
    for mistake, words in zip(mistakes(home, text), named, strict=True):
        assert_named(mistake, words)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ("", "title missing text"),
        ('title = "x"', "stage [index]"),
        ('title = "x"\n[index]', "[index] layout missing voc coco coco20i folder table"),
        ('title = "x"\n[index]\nlayout = "vok"\nroot = "."', '[index] layout "vok" voc coco'),
        ('title = "x"\n[index]\nlayout = "folder"', "[index] root missing"),
        ('title = "x"\n[index]\nlayout = "folder"\nroot = ""', "[index] root empty"),
        ('title = "x"\n[index]\nlayout = "folder"\nroot = "."\nsplit = "a"', "[index] split layout, root"),
        ('title = "x"\n[refine]', "[refine] maps [mask]"),
        ('title = "x', "recipe.toml TOML"),
        ("x = " + "[" * 5000, "recipe.toml TOML"),
        ("title = 2026-01-01\n[index]", 'title "2026-01-01" date text'),
    ],
)
def test_a_mistake_says_what_is_expected(home: Path, wrong: str, named: str) -> None:
    assert_named("\n".join(mistakes(home, wrong)), named)


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("index.masks=msaks", "[index] masks /msaks"),
        ("extract.weights=pictures", "[extract] /pictures"),
        ("manifest.ground_truth=pictures", "[manifest] ground_truth file"),
        ("extract.weights=weights.pth", "[extract] weights /weights.pth"),
        ("extract.backbone=test_vit.r161_in1k", "[extract] test_vit.r160_in1k"),
        ("extract.image_size=[32, 33]", "[extract] 32x33 16x16"),
        ("extract.fields=['kyes']", "[extract] 'kyes'"),
        ("mask.method=cts", "[mask] cts cst"),
        ("mask.supports=-1", "[mask] supports '-1' 0 all"),
        ("mask.model=pictures", "[mask] /pictures"),
        ("refine.preset=irn", "[refine] preset crf"),
        ("refine.background=constant:2", "[refine] constant:2 0 1"),
        ("refine.class_maps=gone", "[refine] class_maps /gone"),
        ("refine.threshold=nan", "[refine] threshold nan 0 1"),
        ("evaluate.against=gone", "[evaluate] against /gone"),
        ("manifest.ground_truth=[1]", "[manifest] ground_truth text list"),
        ("run.max_bad=2", "max_bad 2 0 1"),
        ("refine", "--set refine STAGE.KEY=VALUE"),
        ("a.b.c=1", "--set a.b.c=1 STAGE.KEY=VALUE"),
        ("title.x=1", "--set title.x=1 title table"),
        ("refine.treshold=0.5", "[refine] treshold threshold"),
    ],
)
def test_a_setting_is_checked_like_the_file(
    home: Path, setting: str, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    (found,) = mistakes(home, SMALL, setting)
    assert_named(found, named)


def test_a_fitted_method_needs_its_checkpoint(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fitted = dataclasses.replace(METHODS["cst"], name="fitted", fit=lambda *_: Findings({}))
    monkeypatch.setitem(METHODS, "fitted", fitted)
    (found,) = mistakes(home, SMALL, "mask.method=fitted")
    assert_named(found, "[mask] fitted")


def test_masks_are_needed_to_judge_by(home: Path) -> None:
    (found,) = mistakes(home, SMALL, "index.masks=", "evaluate.seed=1")
    assert_named(found, "[evaluate] [index] masks against")
    parsed(home, SMALL, "evaluate.seed=1")


@pytest.mark.parametrize(
    ("typed", "value"),
    [
        ("refine.threshold=0.5", 0.5),
        ("refine.threshold=1", 1.0),
        ("mask.threshold=otsu", "otsu"),
        ("mask.threshold=0.25", 0.25),
        ("mask.threshold='0.25'", "0.25"),
        ("mask.supports=all", "all"),
        ("extract.fields=['keys', 'tokens:all', 'cls_query']", ("keys", "tokens:all", "cls_query")),
        ("extract.image_size=[32, 48]", (32, 48)),
        ("extract.flip=true", True),
    ],
)
def test_a_setting_is_toml_or_else_text(home: Path, typed: str, value: object) -> None:
    table, _, key = typed.partition("=")[0].partition(".")
    assert parsed(home, SMALL, typed).tables[table][key] == value


def test_the_last_setting_of_a_key_counts(home: Path) -> None:
    recipe = parsed(home, SMALL, "refine.threshold=0.5", "refine.threshold=0.6")
    assert recipe.tables["refine"]["threshold"] == 0.6


def test_a_path_that_is_typed_is_relative_to_where_it_is_typed(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "others").mkdir()
    monkeypatch.chdir(tmp_path)
    assert parsed(home, SMALL, "index.root=others").tables["index"]["root"] == str(tmp_path / "others")
    absolute = parsed(home, SMALL.replace('"pictures"', f'"{tmp_path}/others"'))
    assert absolute.tables["index"]["root"] == str(tmp_path / "others")
    upwards = parsed(home, SMALL.replace('"pictures"', '"masks/../pictures"'))
    assert upwards.tables["index"]["root"] == str(home / "pictures")


def test_a_folder_inside_root_is_looked_for_there(home: Path, tmp_path: Path) -> None:
    (tmp_path / "voc" / "Segmentation").mkdir(parents=True)
    text = 'title = "x"\n[index]\nlayout = "voc"\nroot = "voc"\nsplit = "train"\nmasks = "{}"'
    assert parsed(tmp_path, text.format("Segmentation")).tables["index"]["masks"] == "Segmentation"
    (found,) = mistakes(tmp_path, text.format("SegmentationClass"))
    assert f"{tmp_path}/voc/SegmentationClass" in found


def test_pictures_in_an_object_store_are_looked_for_when_they_are_listed(home: Path) -> None:
    recipe = parsed(home, SMALL.replace('"pictures"', '"s3://bucket/pictures"'))
    assert recipe.tables["index"]["root"] == "s3://bucket/pictures"
    remote = parse_recipe(
        SMALL.replace('masks = "masks"', "").encode(), "recipe.toml", place("memory://bucket/recipes")
    )
    assert remote.tables["index"]["root"] == "memory://bucket/recipes/pictures"


def test_extract_keeps_what_later_steps_read(home: Path) -> None:
    def fields(*settings: str) -> Any:
        return parsed(home, SMALL, *settings).tables["extract"]["fields"]

    assert fields() == ("keys", "cls_query")
    assert fields("mask.method=cls-attention", "mask.supports=") == ("cls_attention",)
    assert fields("extract.fields=['tokens']") == ("tokens", "keys", "cls_query")
    asked = "extract.fields=['cls_attention:all']"
    assert fields(asked, "mask.method=cls-attention", "mask.supports=") == ("cls_attention:all",)


def test_ids_can_stand_in_a_file(home: Path, tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("cat/0\ndog/1\n")
    parsed(home, SMALL, f"manifest.ground_truth={tmp_path}/ids.txt")
    parsed(home, SMALL, "manifest.ground_truth=['cat/0']")
    (found,) = mistakes(home, SMALL, f"manifest.ground_truth={tmp_path}/idz.txt")
    assert "idz.txt, which is not there" in found


@pytest.mark.parametrize("missing", ["pydensecrf.utils", "pydensecrf.densecrf"])
def test_the_crf_is_refused_where_its_extra_is_missing(
    home: Path, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    (found,) = mistakes(home, SMALL, "refine.refiner=crf")
    assert "pydensecrf" in found
    assert "maskmill[crf]" in found


# ------------------------------------------------------------------------------------------------------------ views

VIEWED = SMALL.replace("supports = 0", "supports = 0\nviews = [{flip = true}, {image_size = [48, 64], fit = 'squash'}]")


def test_each_view_is_an_extraction_more(home: Path) -> None:
    recipe = parsed(home, VIEWED)
    steps = {step.name: step for step in recipe.steps}
    assert list(steps) == ["index", "extract", "extract-view2", "extract-view3", "mask", "refine"]
    assert steps["extract-view2"].command is steps["extract"].command
    extract = recipe.tables["extract"]
    assert recipe.tables["extract-view2"] == {**extract, "flip": True}
    assert recipe.tables["extract-view3"] == {**extract, "image_size": (48, 64), "fit": "squash"}
    assert extract["fields"] == ("keys", "cls_query")
    assert recipe.tables["mask"] == {"supports": 0}
    assert recipe.source_of(steps["mask"], "view3") == "extract-view3"
    set_by_hand = parsed(home, SMALL, "mask.views=[{flip = true}]")
    assert set_by_hand.tables["extract-view2"] == recipe.tables["extract-view2"]


@pytest.mark.parametrize(
    ("views", "named"),
    [
        ("3", "[mask] views 3 list table"),
        ("[3]", "[mask] views [3] list table"),
        ("[{flop = true}]", '[mask] views {"flop": true} flop flip'),
        ("[{flip = 1}]", '[mask] views {"flip": 1} flip true false'),
        ("[{flip = 1979-05-27}]", '[mask] views {"flip": "1979-05-27"} flip date'),
        ("[{}]", "[mask] views [extract] image_size fit flip"),
        ("[{image_size = 32}]", "[mask] views [extract] image_size fit flip"),
        ("[{flip = true}, {flip = true}]", "[mask] views [extract] image_size fit flip"),
        ("[{image_size = 33}]", "[extract-view2] 33x33 16x16"),
    ],
)
def test_a_view_that_cannot_be_is_told(home: Path, views: str, named: str) -> None:
    (mistake,) = mistakes(home, SMALL, f"mask.views={views}")
    assert_named(mistake, named)


def test_what_is_wrong_with_extract_is_told_once(home: Path) -> None:
    (mistake,) = mistakes(home, VIEWED, "extract.image_size=33", "mask.views=[{flip = true}]")
    assert_named(mistake, "[extract] 33x33")


def test_a_method_that_takes_one_view_is_told(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "cst", dataclasses.replace(METHODS["cst"], merge=None))
    (mistake,) = mistakes(home, VIEWED)
    assert_named(mistake, "[mask] cst views")


ENHANCED = SMALL.replace("supports = 0", "supports = 2\nper_head = true") + "[enhancer]\ngt_per_class = 1\n[enhance]\n"


def test_an_enhancer_may_stand_between_mask_and_refine(home: Path) -> None:
    recipe = parsed(home, ENHANCED)
    assert [step.name for step in recipe.steps] == ["index", "extract", "mask", "enhancer", "enhance", "refine"]
    refine = next(step for step in recipe.steps if step.name == "refine")
    assert recipe.source_of(refine, "maps") == "enhance"
    assert recipe.source_of(next(step for step in recipe.steps if step.name == "enhance"), "maps") == "mask"


def test_an_enhancer_without_heads_or_truth_is_told_before_anything_runs(home: Path) -> None:
    for name, found in zip(("enhancer", "enhance"), mistakes(home, ENHANCED, "mask.per_head=false"), strict=True):
        assert_named(found, f"[{name}] per_head [mask]")
    (mistake,) = mistakes(home, ENHANCED.replace('masks = "masks"', ""))
    assert_named(mistake, "[enhancer] [index] masks")
    (mistake,) = mistakes(home, ENHANCED.replace("[enhancer]\ngt_per_class = 1\n", ""))
    assert_named(mistake, "[enhance] model [enhancer]")
    (mistake,) = mistakes(home, ENHANCED, "enhancer.gt_fraction=0.5")
    assert_named(mistake, "[enhancer] gt_fraction gt_per_class gt_list")


@given(st.binary(max_size=200))
def test_bytes_that_are_no_recipe_are_told(data: bytes) -> None:
    with pytest.raises(ConfigError, match=r"recipe\.toml|title|stage"):
        parse_recipe(data, "recipe.toml", place("/nowhere"))


# ----------------------------------------------------------------------------------------------------- the schema


def test_limits_and_sources_share_no_key() -> None:
    limits = {each.name for each in dataclasses.fields(Limits)}
    assert all(limits.isdisjoint(each.name for each in dataclasses.fields(source)) for source in SOURCES.values())


@pytest.mark.parametrize("step", recipe_steps())
def test_roles_that_a_step_fills_are_its_stages(step: str) -> None:
    steps = recipe_steps(views=2)
    found = steps[step]
    roles = {role.rstrip("0123456789") for role in (*found.reads, *found.role_keys.values())}
    assert roles == {role for name, each in found.command.roles.items() for role in (name, each.several) if role}
    order = list(steps)
    for sources in found.reads.values():
        assert all(order.index(source) < order.index(step) for source in sources)


# ----------------------------------------------------------------------------------------------- those that ship


@pytest.mark.parametrize("name", SHIPPED)
def test_a_recipe_that_ships_is_right_but_for_its_paths(name: str, home: Path) -> None:
    (home / "annotations.json").write_text("{}")
    (home / "pictures.csv").write_text("path,labels,mask\ncat/a.jpg,disc,a.png\n")
    paths = {"root": home / "pictures", "images": home / "pictures", "annotations": home / "annotations.json"}
    paths["file"] = home / "pictures.csv"
    said = read_shipped_recipe(name).decode()
    settings = [f"index.{key}={path}" for key, path in paths.items() if f"\n{key} = " in said]
    masks = ["index.masks=cat"] if name == "voc-cst" else []  # a folder in root
    recipe = parse_recipe(said.encode(), name, place(home), [*settings, *masks, "extract.weights=random:0"])
    plain = ["index", "extract", "mask", "refine", "manifest"]
    assert [step.name for step in recipe.steps if step.name in plain] == plain
    if name.endswith("-cst"):
        assert recipe.tables["mask"] == {"method": "cst", "supports": 8, "threshold": 0.4}
        assert recipe.tables["extract"]["image_size"] == (400, 400)
        assert recipe.tables["extract"]["fit"] == "squash"


def test_weights_that_a_recipe_names_must_be_there(home: Path) -> None:
    found = "\n".join(mistakes(home, read_shipped_recipe("voc-cst").decode()))
    assert_named(found, f"[extract] weights {home}/dino_deitsmall8_300ep_pretrain.pth")


def test_a_recipe_is_read_from_its_file(tmp_path: Path) -> None:
    path = write_recipe(tmp_path)
    assert read_recipe(str(path)).tables["index"]["root"] == str(tmp_path / "pictures")
    with pytest.raises(InputError, match=r"gone\.toml"):
        read_recipe(str(tmp_path / "gone.toml"))
    with pytest.raises(InputError, match="maskmill recipe write folder"):
        read_recipe("folder")
    with pytest.raises(InputError, match=r"`sh reproduce-cst-coco\.sh`"):
        read_recipe("reproduce-cst-coco")


def test_the_recipes_that_ship_are_told_without_torch() -> None:
    script = "import sys; from maskmill.cli.main import main; main(['recipe', 'list']); print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert [line.split()[0] for line in ran.stdout.splitlines()[:-1]] == [*SHIPPED, *SCRIPTS]
    assert {"torch", "numpy", "timm", "click"} & set(ran.stdout.splitlines()[-1].split()) == {"click"}
