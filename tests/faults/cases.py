"""The stages that the faults are tried on. A new stage joins every test of this folder with one line in CASES."""

import hashlib
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from builders import toy, toy_tokens
from builders.configs import make_config
from builders.small_heads import UNFITTED, UnfittedConfig
from faults.crash import Ended, as_command, in_child
from maskmill.manifests.artifact import plan as plans
from maskmill.manifests.artifact.artifact import open_artifact
from maskmill.manifests.datasets.layouts import FolderSource
from maskmill.pipeline.answers.verify import verify
from maskmill.pipeline.running.options import RunOptions
from maskmill.pipeline.running.run import Outcome, finish_parts, run
from maskmill.pipeline.running.whole import run_whole
from maskmill.stages.enhance import stage as enhance
from maskmill.stages.enhance.config import EnhanceConfig
from maskmill.stages.extract import stage as extract
from maskmill.stages.extract.config import ExtractConfig
from maskmill.stages.index import stage as index
from maskmill.stages.index.config import IndexConfig
from maskmill.stages.manifest import stage as manifest
from maskmill.stages.manifest.config import ManifestConfig
from maskmill.stages.manifest.croissant import NAME as DESCRIPTION
from maskmill.stages.mask import stage as mask
from maskmill.stages.mask.config import MaskConfig
from maskmill.stages.pixels import stage as pixels
from maskmill.stages.pixels.config import PixelsConfig
from maskmill.stages.refine import stage as refine
from maskmill.stages.refine.config import RefineConfig
from maskmill.stages.refine.presets import find_preset
from maskmill.stages.stage import Stage, WholeStage

UNIT_ROWS, MAX_BAD = 3, 0.2
# Ten pictures in four units, the last of one row, its name as odd as names are.
IDS = [*(f"cat/{number}" for number in range(5)), *(f"dog/{number}" for number in range(4)), "dog/für 写"]
BROKEN = "cat/3"  # fails in `index` and counts as `upstream` below it


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A stage as the faults meet it."""

    stage: Any  # a Stage; of what is below the cases it may be one without units
    config: Callable[[Path], Any]  # of the home where pictures and inputs lie
    inputs: Mapping[str, str] = field(default_factory=dict)  # role → the case that makes its artifact
    before_forking: Callable[[], Any] = lambda: None  # loads what every child would load again
    others: Mapping[str, Sequence[Any]] = field(default_factory=dict)  # setting → other values, where not any will do
    slow: Collection[str] = ()  # tests that it leaves to the slow tier
    quick: Collection[str] = ()  # where there are any, it leaves all others

    def leaves(self, test: str) -> bool:
        return test in self.slow or bool(self.quick and test not in self.quick)


@dataclass(frozen=True, slots=True)
class Home:
    """A directory with a case's pictures and inputs. Outputs lie beside them, so that all name their inputs alike."""

    case: Case
    path: Path
    _numbers: Iterator[int] = field(default_factory=count)

    def new_out(self) -> Path:
        return self.path / f"out-{next(self._numbers)}"

    def run(self, out: Path, **options: Any) -> dict[str, Any]:
        """One run in this process: meant for a child, because a process believes a file that it has checked once."""
        stage = options.pop("stage", self.case.stage)
        config = options.pop("config", None) or self.case.config(self.path)
        inputs = {role: str(self.path / name) for role, name in self.case.inputs.items()}
        if isinstance(stage, WholeStage):
            return _numbers(run_whole(stage, config, inputs, str(out)))
        wanted = {"unit_rows": UNIT_ROWS, "max_bad": MAX_BAD, **options}
        return _numbers(run(stage, config, inputs, str(out), RunOptions(**wanted)))

    def finish(self, out: Path) -> dict[str, Any]:
        """What `maskmill finish` does, in this process."""
        return _numbers(finish_parts(str(out), RunOptions(max_bad=MAX_BAD)))

    def tried(self, out: Path, **options: Any) -> Ended:
        """A run in a child, as the command would do it."""
        return in_child(as_command(lambda: self.run(out, **options)))

    def made(self, out: Path, **options: Any) -> dict[str, Any]:
        """A run in a child that must go well, with every file then compared with its digest."""

        def run_and_verify() -> dict[str, Any]:
            numbers = self.run(out, **options)
            assert_sound(out)
            return numbers

        ended = in_child(as_command(run_and_verify))
        assert ended.code == 0, ended
        return dict(ended.answer)

    def remade_inputs(self, **options: Any) -> None:
        """Runs the stages before this one again, each once, after a change of the pictures."""
        for name in dict.fromkeys(_before(self.case)):
            Home(_found(name), self.path).made(self.path / name, **options)


@dataclass(frozen=True, slots=True)
class Subject:
    """A stage with its inputs, and what an undisturbed run of it makes."""

    home: Home
    reference: Path  # never written to again
    tree: dict[str, str]


def _before(case: Case) -> Iterator[str]:
    """The cases that make its inputs, those first that make theirs."""
    for name in case.inputs.values():
        yield from _before(_found(name))
        yield name


def _found(name: str) -> Case:
    return (CASES | BELOW)[name]


def _numbers(outcome: Outcome) -> dict[str, Any]:
    return {"run": outcome.units_run, "skipped": outcome.units_skipped, "counts": dict(outcome.counts)}


def home_of(case: Case, path: Path) -> Home:
    """A case with pictures and inputs of its own."""
    case.before_forking()
    path.mkdir(parents=True, exist_ok=True)
    make_pictures(path)
    home = Home(case, path)
    home.remade_inputs()
    return home


def subject_of(case: Case, path: Path) -> Subject:
    home = home_of(case, path)
    assert home.made(path / "reference")["run"] == 4
    return Subject(home, path / "reference", tree(path / "reference"))


def make_pictures(home: Path) -> None:
    """Ten small pictures in two classes, one of them broken, and masks for all but one."""
    for number, identifier in enumerate(IDS):
        make_picture(home, identifier, seed=number)
        mask = home / "masks" / f"{identifier}.png"
        mask.parent.mkdir(parents=True, exist_ok=True)
        if identifier != "dog/2":
            object_HW = np.zeros((10 + number, 12), np.uint8)
            object_HW[2:7, 3:9] = 255 if number % 2 else 1
            Image.fromarray(object_HW).save(mask)
    picture_of(home, BROKEN).write_bytes(b"<html>no picture</html>")


def make_picture(home: Path, identifier: str, seed: int) -> None:
    path = picture_of(home, identifier)
    path.parent.mkdir(parents=True, exist_ok=True)
    noise_HW3 = np.random.default_rng(seed).integers(0, 256, (10 + seed % 10, 12, 3), dtype=np.uint8)
    Image.fromarray(noise_HW3).save(path)


def picture_of(home: Path, identifier: str) -> Path:
    return home / "pictures" / f"{identifier}.png"


def tree(out: Path) -> dict[str, str]:
    """Every file of an artifact with the sha256 of its bytes, but for those that may differ; directories with ""."""
    found: dict[str, str] = {}
    for path in sorted(out.rglob("*")):
        name = path.relative_to(out).as_posix()
        if name != ".lock" and name.partition("/")[0] != "log":
            found[name] = "" if path.is_dir() else hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def files(out: Path) -> list[str]:
    return [name for name, digest in tree(out).items() if digest]


def assert_sound(out: Path) -> None:
    verdict = verify(str(out))
    assert (verdict.exit_code, verdict.faults, verdict.strangers) == (0, (), ()), verdict


def read_everything(out: Path) -> dict[str, Any]:
    """Every row, array value and cell of an artifact as a consumer reads them, and its listing as a run does."""
    artifact = open_artifact(str(out))
    positions = range(artifact.plan.num_rows)
    digests = {}
    for name, each in artifact.plan.fields.items():
        if each.kind == "array":
            digests[name] = hashlib.sha256(artifact.read(name, positions).tobytes()).hexdigest()
        elif each.kind == "table":
            digests[name] = hashlib.sha256(repr(artifact.cells(name, positions)).encode()).hexdigest()
        elif each.kind == "frame":
            units = artifact.plan.layout(artifact.plan.group_of(name)).units()
            rows = [artifact.frame(name, unit.index).read().to_pylist() for unit in units]
            digests[name] = hashlib.sha256(repr(rows).encode()).hexdigest()
    if DESCRIPTION in artifact.summary.files:
        digests[DESCRIPTION] = hashlib.sha256(artifact.file(DESCRIPTION)).hexdigest()
    listed = [row for batch in plans.listing_batches(artifact.place, artifact.plan) for row in batch.to_pylist()]
    return {"rows": artifact.rows().to_pylist(), "fields": digests, "listed": len(listed)}


def content(out: Path) -> dict[str, dict[str, Any]]:
    """The rows of an artifact by id, with the digests of their content, and without the slot where they lie."""
    rows = in_child(lambda: open_artifact(str(out)).rows().to_pylist()).answer
    return {row["id"]: {name: value for name, value in row.items() if name not in ("unit", "row")} for row in rows}


def verdict_code(out: Path) -> int | None:
    """The exit code of `maskmill verify`."""
    ended = in_child(as_command(lambda: verify(str(out)).exit_code))
    assert "Traceback" not in ended.stderr, ended.stderr
    return ended.answer if ended.code == 0 else ended.code


def reading_code(out: Path) -> int | None:
    """How the command ends that reads an artifact in full."""
    ended = in_child(as_command(lambda: read_everything(out)))
    assert "Traceback" not in ended.stderr, ended.stderr
    return ended.code


def copied(source: Path, target: Path) -> Path:
    shutil.copytree(source, target, symlinks=True)
    return target


def removed(out: Path) -> None:
    if os.path.lexists(out):
        shutil.rmtree(out)


def with_run_unit(case: Case, run_unit: Callable[..., Any]) -> Stage:
    """The case's stage with another function for its units."""
    return replace(case.stage, run_unit=run_unit)


def folder_with_masks(home: Path) -> IndexConfig:
    return IndexConfig(source=FolderSource(root=str(home / "pictures"), masks=str(home / "masks")))


# The fast tier hurts one subject for each way of writing: the toy (arrays in units) everything, and where it is named
# below echo (cells), extract (an array of a real stage) and manifest (frames, the dataset), index (what grows only
# when told). What is left to the slow tier hurts files and locks, which are the same for every stage.
ONCE_SLOW = (
    *("test_out_of_space_at_every_operation", "test_a_truncated_file", "test_two_runs_at_once"),
    *("test_another_environment", "test_workers_make_the_same_bytes"),
)
WITH_TORCH_SLOW = (*ONCE_SLOW, "test_hurt_while_it_grows")
DAMAGE_SLOW = (
    *("test_a_flipped_bit", "test_a_deleted_file", "test_files_swapped_within_an_artifact"),
    *("test_stopped_by_a_signal", "test_parts_at_once", "test_a_full_disk", "test_a_file_size_limit"),
)
TIMES_SLOW = ("test_another_time", "test_a_picture_with_another_time", "test_another_name_of_the_output")
# Of stages that write the files of others: an array as the toy does, cells as echo does.
LIKE_OTHERS_SLOW = (
    *(*WITH_TORCH_SLOW, *DAMAGE_SLOW, *TIMES_SLOW),
    *("test_killed_at_every_operation", "test_a_picture_since_it_was_made", "test_a_picture_that_comes_back"),
)

# Of a stage that is a case already, read from more inputs.
OF_INPUTS = (
    *("test_a_picture_since_it_was_made", "test_a_picture_that_comes_back", "test_the_input_is_another_artifact"),
    *("test_only_what_was_planned_is_computed", "test_retry_runs_the_failed_units_alone", "test_every_setting_in_turn"),
)


@cache
def tiny_config() -> ExtractConfig:
    """timm's smallest vision transformer on pictures of five tokens."""
    return make_config(
        ExtractConfig, backbone="test_vit.r160_in1k", weights="random:0", image_size=(32, 32), fit="squash", batch=2
    )


@cache
def tiny_backbone(config: ExtractConfig) -> Any:
    return extract.prepare(config, {})


def prepare(config: ExtractConfig, inputs: Any) -> Any:
    """A backbone that every child has from its parent, or loading it would be all that a child does."""
    return tiny_backbone(config)


CASES: dict[str, Case] = {
    "index": Case(
        stage=index.STAGE,
        config=folder_with_masks,
        slow=(*ONCE_SLOW, *DAMAGE_SLOW, "test_killed_at_every_operation"),
    ),
    "toy": Case(
        stage=toy.TOY, config=lambda home: toy.ToyConfig(fields=("square", "wide")), inputs={"images": "index"}
    ),
    "extract": Case(
        stage=replace(extract.STAGE, prepare=prepare),
        config=lambda home: tiny_config(),
        inputs={"images": "index"},
        before_forking=lambda: tiny_backbone(tiny_config()),
        others={
            "backbone": ["vit_tiny_patch16_224"],
            "image_size": [(48, 32)],
            "device": ["cpu:0"],  # another of the same type
        },
        slow=(*WITH_TORCH_SLOW, *DAMAGE_SLOW, *TIMES_SLOW),
    ),
    "pixels": Case(
        stage=pixels.STAGE,
        config=lambda home: PixelsConfig(image_size=(8, 12)),
        inputs={"images": "index"},
        others={"image_size": [(12, 8)]},
        slow=LIKE_OTHERS_SLOW,
    ),
    "echo": Case(
        stage=toy.ECHO,
        config=lambda home: toy.EchoConfig(),
        inputs={"toys": "toy"},
        slow=(*WITH_TORCH_SLOW, *DAMAGE_SLOW, *TIMES_SLOW),
    ),
    "mask": Case(
        stage=mask.STAGE,
        config=lambda home: make_config(MaskConfig, method="cst", supports="0", threshold="otsu"),
        inputs={"tokens": "toytokens", "images": "index"},
        others={
            "method": ["cls-attention"],
            "supports": ["1"],
            "threshold": ["0.3", "kept-mass:0.6"],
            "tau": [0.2],
            "feature": ["keys"],
            "side": ["corners"],
            "propagate": [0.5],
        },
        slow=LIKE_OTHERS_SLOW,
    ),
    "maskviews": Case(
        stage=mask.STAGE,
        config=lambda home: make_config(MaskConfig, method="cst", supports="0", threshold="otsu"),
        inputs={"tokens": "toytokens", "view2": "toyflipped", "images": "index"},
        others={
            "method": ["cls-attention"],
            "supports": ["1"],
            "threshold": ["0.3", "kept-mass:0.6"],
            "tau": [0.2],
            "feature": ["keys"],
            "side": ["corners"],
            "propagate": [0.5],
        },
        quick=OF_INPUTS,
    ),
    "enhance": Case(
        stage=enhance.STAGE,
        config=lambda home: make_config(EnhanceConfig, threshold="otsu"),
        inputs={"maps": "heads", "images": "index", "model": "enhancer"},
        others={"threshold": ["0.3", "kept-mass:0.6"]},
        slow=LIKE_OTHERS_SLOW,
    ),
    "refine": Case(
        stage=refine.STAGE,
        config=lambda home: make_config(RefineConfig),
        inputs={"maps": "mask", "images": "index"},
        others={"preset": [find_preset("crf", "irn")], "background": ["constant:0.7"], "threshold": [0.5]},
        slow=LIKE_OTHERS_SLOW,
    ),
    "manifest": Case(
        stage=manifest.STAGE,
        config=lambda home: make_config(ManifestConfig, embed_images=True),
        inputs={"labels": "refine", "maps": "mask", "images": "index", "compared": "otherlabels"},
        others={"min_score": ["area>=0.4"]},
        slow=WITH_TORCH_SLOW,
    ),
}
# What is read by a case and is none itself.
BELOW: dict[str, Case] = {
    "otherlabels": Case(
        stage=refine.STAGE,
        config=lambda home: make_config(RefineConfig, background="constant:0.7"),
        inputs={"maps": "mask", "images": "index"},
    ),
    "toytokens": Case(
        stage=toy_tokens.TOKENS, config=lambda home: toy_tokens.TokensConfig(), inputs={"images": "index"}
    ),
    "heads": Case(
        stage=mask.STAGE,
        config=lambda home: make_config(MaskConfig, method="cst", supports="0", threshold="otsu", per_head=True),
        inputs={"tokens": "toytokens", "images": "index"},
    ),
    "enhancer": Case(stage=UNFITTED, config=lambda home: UnfittedConfig(), inputs={"maps": "heads"}),
    "toyflipped": Case(
        stage=toy_tokens.TOKENS,
        config=lambda home: toy_tokens.TokensConfig(grid=(3, 2), flip=True),
        inputs={"images": "index"},
    ),
}
