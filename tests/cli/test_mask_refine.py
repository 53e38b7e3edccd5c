"""`maskmill fit`, `mask` and `refine` with their plans: what they print, where they look for images, each mistake."""

import json
import re
import shlex
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from builders.mistakes import assert_named, refused
from builders.small_dataset import tree, write_picture
from builders.small_tokens import Bench, bench_of
from maskmill.cli.main import main
from maskmill.manifests.artifact.artifact import open_artifact
from maskmill.manifests.artifact.checkpoints import SEEN, WEIGHTS, training_ids_json
from maskmill.manifests.artifact.underway import Underway
from maskmill.stages.mask.config import FitConfig
from maskmill.stages.mask.methods import METHODS, Method, MethodInput
from maskmill.stages.stage import Findings, Inputs

Capture = pytest.CaptureFixture[str]
LENIENT = ("--max-bad", "0.5")


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """images, tokens and maps; only read."""
    bench = bench_of(tmp_path_factory.mktemp("made"))
    bench.extract(bench.home / "tokens")
    assert main(["mask", str(bench.home / "tokens"), "--out", str(bench.home / "maps"), *LENIENT]) == 0
    return bench.home


@pytest.fixture
def home(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy, and the working directory."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_from_tokens_to_labels(home: Path, capsys: Capture) -> None:
    assert main(["mask", "tokens", "--supports", "0", "--out", "objects", *LENIENT]) == 0
    line = rf"maps: 13 rows, 11 ok, 2 failed upstream; 1 unit run in \d+\.\d s → {home}/objects\n"
    assert re.fullmatch(line, capsys.readouterr().out)
    assert main(["mask", "tokens", "--supports", "2", "--seed", "5", "--out", "classes", *LENIENT]) == 0
    assert main(["refine", "objects", "--class-maps", "classes", "--out", "labels", *LENIENT]) == 0
    said = capsys.readouterr().out
    assert "labels: 13 rows, 11 ok, 2 failed upstream; 1 unit run in " in said
    assert main(["refine", "objects", "--class-maps", "classes", "--out", "labels", *LENIENT]) == 0
    assert "; already done in " in capsys.readouterr().out
    labels = open_artifact("labels", "labels")
    assert [each.role for each in labels.plan.inputs] == ["maps", "images", "class_maps"]
    assert main(["status", "labels"]) == 0
    assert f"  class_maps: {home}/classes (as read)\n" in capsys.readouterr().out
    for name in ("classes", "labels"):
        assert main(["verify", name]) == 0


def test_the_plans_say_what_would_be_made_and_write_nothing(home: Path, capsys: Capture) -> None:
    before = tree(home)
    assert main(["plan", "mask", "tokens", "--json"]) == 0
    maps = json.loads(capsys.readouterr().out)
    assert (maps["rows"], maps["bytes_per_field"]) == (14, {"map": 14 * 4 * 6 * 4})
    assert main(["plan", "mask", "tokens", "--supports", "0", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 13
    assert main(["plan", "refine", "maps", "--unit-rows", "5", "--json"]) == 0
    labels = json.loads(capsys.readouterr().out)
    assert (labels["rows"], labels["units"]) == (13, 3)
    assert tree(home) == before
    assert main(["refine", "maps", "--unit-rows", "5", "--out", "labels", *LENIENT]) == 0
    assert len(tree(home / "labels")) == labels["files"]


def test_parts_and_finish_make_the_same_bytes(home: Path, capsys: Capture) -> None:
    for stage, given in (("mask", "tokens"), ("refine", "maps")):
        command = [stage, given, "--unit-rows", "4", *LENIENT]
        assert main([*command, "--out", "whole"]) == 0
        for part in ("2/2", "1/2"):
            assert main([*command, "--out", "parts", "--part", part]) == 0
        assert main(["finish", "parts", *LENIENT]) == 0
        assert tree(home / "parts") == tree(home / "whole")
        shutil.rmtree("parts")
        shutil.rmtree("whole")


def test_views_by_every_command(home: Path, capsys: Capture) -> None:
    """Merged, in parts, retried, verified, told, refined; fields that one lacks are added by what the refusal says."""
    bench = Bench(home)
    bench.extract(home / "flipped tokens", flip=True, fields=("keys",))
    command = ["mask", "tokens", "flipped tokens", "--unit-rows", "4", *LENIENT]
    assert main([*command, "--out", "whole"]) == 2
    said = capsys.readouterr().err
    assert_named(said, "cls_query `maskmill extract")
    assert main([*shlex.split(said.split("`")[1])[1:], *LENIENT]) == 0
    capsys.readouterr()
    assert main(["plan", *command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 14
    assert main([*command, "--out", "whole"]) == 0
    for part in ("2/2", "1/2"):
        assert main([*command, "--out", "parts", "--part", part]) == 0
    assert main(["finish", "parts", *LENIENT]) == 0
    assert tree(home / "parts") == tree(home / "whole")
    assert main(["verify", "whole"]) == 0
    capsys.readouterr()
    assert main(["retry", "whole", *LENIENT]) == 0
    assert "; already done in " in capsys.readouterr().out
    assert main(["status", "whole"]) == 0
    assert f"  view2: {home}/flipped tokens (as read)\n" in capsys.readouterr().out
    assert main(["refine", "whole", "--out", "labels", *LENIENT]) == 0


def test_a_warning_is_told_and_ends_with_6(home: Path, capsys: Capture) -> None:
    command = ["mask", "tokens", "--threshold", "0.4", "--out", "paper", *LENIENT]
    for _ in range(2):
        assert main(command) == 6
        assert_named(capsys.readouterr().err, "warning: threshold 0.4 dino_deitsmall8_300ep_pretrain.pth")
    assert main(["status", "paper"]) == 0
    assert_named(capsys.readouterr().out, "warning: threshold 0.4")


# ---- where the images are


def test_images_that_were_moved_are_named_by_an_option(home: Path, capsys: Capture) -> None:
    """What was made of them lies where it lay; the sentence says which option."""
    (home / "images").rename(home / "elsewhere")
    for command in (["mask", "tokens"], ["refine", "maps"]):
        refused(capsys, [*command, "--out", "out", *LENIENT], f"{command[1]} --images")
        assert not (home / "out").exists()
        assert main([*command, "--images", "elsewhere", "--out", "out", *LENIENT]) == 0
        shutil.rmtree("out")


def test_maps_whose_tokens_are_gone_lead_to_the_images(home: Path, capsys: Capture) -> None:
    shutil.rmtree("tokens")
    assert main(["refine", "maps", "--out", "labels", *LENIENT]) == 0
    (home / "maps").rename(home / "deep")
    (home / "below").mkdir()
    for name in ("images", "deep"):
        (home / name).rename(home / "below" / name)
    assert main(["refine", "below/deep", "--out", "again", *LENIENT]) == 0, "moved together"
    assert tree(home / "again")["rows.parquet"] == tree(home / "labels")["rows.parquet"]


# ---- a method that is fitted


def fit_nothing(config: FitConfig, inputs: Inputs, underway: Underway) -> Findings:
    files = {WEIGHTS: bytes([config.seed]), SEEN: training_ids_json([], [], [], [])}
    return Findings(files, {"kind": "classifier"})


def ramp(given: MethodInput) -> np.ndarray:
    return np.tile(np.linspace(0, given.model, 24, dtype=np.float32), (len(given.classes), 1))


@pytest.fixture
def ramps(monkeypatch: pytest.MonkeyPatch) -> None:
    method = Method(
        name="ramps",
        source="tokens",
        reads=("keys",),
        apply=ramp,
        score_kind="minmax",
        align_corners=False,
        threshold="0.5",
        fit=fit_nothing,
        load=lambda checkpoint: checkpoint.file(WEIGHTS)[0],
    )
    monkeypatch.setitem(METHODS, "ramps", method)


@pytest.mark.usefixtures("ramps")
def test_fit_and_mask_with_its_checkpoint(home: Path, capsys: Capture) -> None:
    command = ["fit", "tokens", "--method", "ramps", "--seed", "3", "--out", "model"]
    assert main(command) == 0
    line = (
        rf"checkpoint: kind classifier, method ramps, weights random:0, weights_sha256 \w+; done in .* → {home}/model\n"
    )
    assert re.fullmatch(line, capsys.readouterr().out)
    assert main(command) == 0
    assert "; already done in " in capsys.readouterr().out
    assert main(["mask", "tokens", "--method", "ramps", "--model", "model", "--out", "ramped", *LENIENT]) == 0
    maps = open_artifact("ramped", "maps")
    assert float(maps.read("map", [0]).max()) == 3
    for about in (["status", "model"], ["verify", "model"], ["status", "ramped"], ["retry", "ramped", *LENIENT]):
        assert main(about) == 0, about
    capsys.readouterr()
    refused(capsys, ["fit", "tokens", "--method", "ramps", "--seed", "4", "--out", "model"], "model seed 3 4", 3)


MISTAKES = {
    "mask maps --out x": "maps tokens",
    "mask nowhere --out x": "/nowhere",
    "mask tokens": "'--out'",
    "mask tokens --method cts --out x": "'cts' cst",
    "mask tokens --supports some --out x": "supports 'some' 0 all",
    "mask tokens --threshold low --out x": "threshold 'low' otsu 0 1",
    "mask tokens --method cls-attention --out x": "cls_attention `maskmill",
    "mask tokens maps --out x": "maps tokens",
    "mask tokens nowhere --out x": "/nowhere",
    "mask tokens tokens --out x": "/tokens view",
    "mask --out x": "TOKENS",
    "mask tokens --method ramps --out x": "`maskmill fit --method ramps",
    "mask tokens --method ramps --per-head --out x": "ramps --per-head cst, cls-attention",
    "mask tokens --method ncut --instances 2 --out x": "ncut --instances",
    "mask tokens --method maskcut --instances 256 --out x": "instances 256 1 255",
    "mask tokens --method ncut --tau 2 --out x": "tau 2",
    "mask tokens --model maps --out x": "maps checkpoint",
    "mask tokens --images tokens --out x": "tokens images",
    "fit tokens --method cst --out x": "cst `maskmill mask`",
    "fit tokens --method xyz --out x": "'xyz' cst, cls-attention",
    "fit tokens --out x": "'--method'",
    "fit maps --method ramps --out x": "maps tokens",
    "refine tokens --out x": "tokens maps",
    "refine maps --refiner crd --out x": "'crd' none crf par guided jbu",
    "refine maps --refiner auto --out x": "'auto' none crf par guided jbu",
    "refine maps --preset irn --out x": "preset --refiner crf par guided jbu",
    "refine maps --refiner par --preset irn --out x": "'irn' toco afa",
    "refine maps --refiner guided --preset irn --out x": "preset 'irn' RADIUS,",
    "refine maps --refiner guided --background preset --out x": "background preset",
    "refine maps --refiner par --device tpu --out x": "device tpu cpu cuda:NUMBER",
    "refine maps --device cuda --out x": "device cuda none",
    "refine maps --background dim --out x": "background 'dim' rows map, constant:SCORE",
    "refine maps --threshold 2 --out x": "--threshold 2 0 1",
    "refine maps --threshold cat=2 --out x": "--threshold cat=2 0 1",
    "refine maps --threshold cta=0.3 --threshold 0.5 --out x": "--threshold cta cat",
    "refine maps --refiner jbu --preset wide --out x": "--preset wide jbu SIGMA_SPATIAL,SIGMA_RANGE[,RADIUS]",
    "refine maps --threshold 0.5 --background power:1 --out x": "threshold 0.5 rows background",
    "refine maps --background map --out x": "maps class 0",
    "refine maps --class-maps tokens --out x": "tokens maps",
}


@pytest.mark.usefixtures("ramps")
@pytest.mark.parametrize("command", list(MISTAKES))
def test_a_mistake_is_one_sentence(made: Path, command: str, tmp_path: Path, capsys: Capture) -> None:
    words = [str(made / word) if word in ("maps", "tokens", "images", "nowhere") else word for word in command.split()]
    out = [str(tmp_path / "x") if word == "x" else word for word in words]
    refused(capsys, out, MISTAKES[command])


def test_the_crf_without_its_extra_is_one_sentence(made: Path, tmp_path: Path, monkeypatch, capsys: Capture) -> None:
    for name in ("pydensecrf", "pydensecrf.densecrf", "pydensecrf.utils"):
        monkeypatch.setitem(sys.modules, name, None)
    for about in ([], ["plan"]):
        command = [*about, "refine", str(made / "maps"), "--refiner", "crf", "--out", str(tmp_path / "x")]
        refused(capsys, command, "crf pydensecrf 'maskmill[crf]'")
    assert not (tmp_path / "x").exists()


def test_maps_of_a_changed_dataset_are_refused_by_name(home: Path, capsys: Capture) -> None:
    bench = Bench(home / "other")
    write_picture(bench.home / "a.png", 1)
    bench.index({"a": ("cat", "train")})
    for command in (["mask", "tokens"], ["refine", "maps"]):
        refused(capsys, [*command, "--images", "other/images", "--out", "x"], "other/images 'cat/0'")
        assert not (home / "x").exists()


# ---- options


def test_help_names_every_choice(capsys: Capture) -> None:
    for name, words in {
        "mask": ["--supports", "kept-mass", "maskcut", "--instances", "--tau"],
        "refine": ["two:LOW,HIGH", "--class-maps"],
        "fit": ["--seed"],
    }.items():
        assert main([name, "--help"]) == 0
        said = capsys.readouterr().out
        assert all(word in said for word in words)
