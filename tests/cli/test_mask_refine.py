"""`maskmill fit`, `mask` and `refine` with their plans: what they print, where they look for images, each mistake."""

import json
import re
import shlex
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from maskmill.cli.main import main
from maskmill.manifests.artifact.artifact import open_artifact
from maskmill.manifests.artifact.checkpoints import SEEN, WEIGHTS, training_ids_json
from maskmill.manifests.artifact.underway import Underway
from maskmill.stages.mask.config import FitConfig
from maskmill.stages.mask.methods import METHODS, Method, MethodInput
from maskmill.stages.stage import Findings, Inputs
from small_dataset import tree, write_picture
from small_tokens import Bench, bench_of

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
    line = rf"maps: 13 rows, 11 ok, 2 failed upstream; 1 units run in \d+\.\d s → {home}/objects\n"
    assert re.fullmatch(line, capsys.readouterr().out)
    assert main(["mask", "tokens", "--supports", "2", "--seed", "5", "--out", "classes", *LENIENT]) == 0
    assert main(["refine", "objects", "--class-maps", "classes", "--out", "labels", *LENIENT]) == 0
    said = capsys.readouterr().out
    assert "labels: 13 rows, 11 ok, 2 failed upstream; 1 units run in " in said
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
    assert "flipped tokens holds keys and no cls_query; add it with `maskmill extract " in said
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
        assert (
            "maskmill: warning: threshold 0.4 belongs to dino_deitsmall8_300ep_pretrain.pth" in capsys.readouterr().err
        )
    assert main(["status", "paper"]) == 0
    assert "  warning: threshold 0.4 belongs to" in capsys.readouterr().out


# ---- where the images are


def test_images_that_were_moved_are_named_by_an_option(home: Path, capsys: Capture) -> None:
    """What was made of them lies where it lay; the sentence says which option."""
    (home / "images").rename(home / "elsewhere")
    for command in (["mask", "tokens"], ["refine", "maps"]):
        assert main([*command, "--out", "out", *LENIENT]) == 2
        said = capsys.readouterr().err
        assert said.endswith(
            f"{command[1]} does not lead to the images that it was made from; pass their path as --images\n"
        )
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
    assert main(["fit", "tokens", "--method", "ramps", "--seed", "4", "--out", "model"]) == 3
    assert "was made with seed = 3 and this run asks for 4" in capsys.readouterr().err


MISTAKES = {
    "mask maps --out x": "holds maps where tokens are wanted; give the path of a tokens artifact",
    "mask nowhere --out x": "no artifact at",
    "mask tokens": "Missing option '--out'",
    "mask tokens --method cts --out x": "there is no mask method 'cts'; did you mean cst?",
    "mask tokens --supports some --out x": "supports is 'some' and must be a number from 0, or all",
    "mask tokens --threshold low --out x": "threshold is 'low' and must be otsu, a number from 0 to 1",
    "mask tokens --method cls-attention --out x": "holds cls_query, keys and no cls_attention; add it with `maskmill",
    "mask tokens maps --out x": "holds maps where tokens are wanted; give the path of a tokens artifact",
    "mask tokens nowhere --out x": "no artifact at",
    "mask tokens tokens --out x": "tokens is the same view as one before it; name each view once",
    "mask --out x": "Missing argument 'TOKENS...'",
    "mask tokens --method ramps --out x": "method ramps is fitted first; run `maskmill fit --method ramps`",
    "mask tokens --method ramps --per-head --out x": "method ramps has no maps of heads; leave --per-head out, or "
    "choose among cst, cls-attention",
    "mask tokens --method ncut --instances 2 --out x": "method ncut finds one object in a picture; leave --instances",
    "mask tokens --method maskcut --instances 256 --out x": "instances is 256 and must be from 1 to 255",
    "mask tokens --method ncut --tau 2 --out x": "tau is 2, a cosine that keys must exceed, and must",
    "mask tokens --model maps --out x": "holds maps where checkpoint are wanted",
    "mask tokens --images tokens --out x": "holds tokens where images are wanted",
    "fit tokens --method cst --out x": "method cst is not fitted; use it with `maskmill mask` as it is",
    "fit tokens --method xyz --out x": "there is no mask method 'xyz'; choose among cst, cls-attention",
    "fit tokens --out x": "Missing option '--method'",
    "fit maps --method ramps --out x": "holds maps where tokens are wanted",
    "refine tokens --out x": "holds tokens where maps are wanted",
    "refine maps --refiner crd --out x": "'crd' is not one of 'none', 'crf', 'par', 'guided'",
    "refine maps --refiner auto --out x": "'auto' is not one of 'none', 'crf', 'par', 'guided'",
    "refine maps --preset irn --out x": "a preset is for --refiner crf, par or guided",
    "refine maps --refiner par --preset irn --out x": "there is no PAR preset called 'irn'; choose one of toco, afa",
    "refine maps --refiner guided --preset irn --out x": "the preset of the guided filter is 'irn' and must be RADIUS,",
    "refine maps --refiner guided --background preset --out x": "is preset, and none belongs to this refiner; name one",
    "refine maps --refiner par --device tpu --out x": "device is tpu and must be cpu, cuda or cuda:NUMBER",
    "refine maps --device cuda --out x": "device is cuda, and the refiner none runs on the CPU alone; leave the device",
    "refine maps --background dim --out x": "the background rule is 'dim', and must be rows, map, constant:SCORE",
    "refine maps --threshold 2 --out x": "threshold is 2 and must be from 0 to 1",
    "refine maps --threshold 0.5 --background power:1 --out x": "threshold 0.5 is for rows and the background rule",
    "refine maps --background map --out x": "the maps have no row of class 0; choose another rule",
    "refine maps --class-maps tokens --out x": "holds tokens where maps are wanted",
}


@pytest.mark.usefixtures("ramps")
@pytest.mark.parametrize("command", list(MISTAKES))
def test_a_mistake_is_one_sentence(made: Path, command: str, tmp_path: Path, capsys: Capture) -> None:
    words = [str(made / word) if word in ("maps", "tokens", "images", "nowhere") else word for word in command.split()]
    out = [str(tmp_path / "x") if word == "x" else word for word in words]
    assert main(out) == 2
    said = capsys.readouterr().err
    assert MISTAKES[command] in said
    assert "Traceback" not in said


def test_the_crf_without_its_extra_is_one_sentence(made: Path, tmp_path: Path, monkeypatch, capsys: Capture) -> None:
    for name in ("pydensecrf", "pydensecrf.densecrf", "pydensecrf.utils"):
        monkeypatch.setitem(sys.modules, name, None)
    for about in ([], ["plan"]):
        assert main([*about, "refine", str(made / "maps"), "--refiner", "crf", "--out", str(tmp_path / "x")]) == 2
        said = capsys.readouterr().err
        assert said.startswith("maskmill: the refiner crf needs pydensecrf, which cannot be imported (")
        assert "pip install 'maskmill[crf]'" in said
        assert said.count("\n") == 1
    assert not (tmp_path / "x").exists()


def test_maps_of_a_changed_dataset_are_refused_by_name(home: Path, capsys: Capture) -> None:
    bench = Bench(home / "other")
    write_picture(bench.home / "a.png", 1)
    bench.index({"a": ("cat", "train")})
    for command in (["mask", "tokens"], ["refine", "maps"]):
        assert main([*command, "--images", "other/images", "--out", "x"]) == 2
        assert "has no row 'cat/0', of which" in capsys.readouterr().err
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
