"""A stage without units: made in one go, recognised, refused by name, made again, and answered about like any other."""

import json
import shutil
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from builders.configs import make_command
from builders.mistakes import assert_named
from builders.small_dataset import tree, write_dataset, write_picture
from builders.small_runs import index
from builders.toy import TOY, ToyConfig
from faults.crash import Fault, as_command, in_child, kill, no_space, operations
from maskmill.cli.answers import counts_text, show_outcome
from maskmill.cli.main import main
from maskmill.manifests.artifact.artifact import open_artifact
from maskmill.manifests.artifact.underway import Underway
from maskmill.manifests.errors import (
    ConfigError,
    CorruptArtifact,
    InputError,
    StaleArtifact,
    UnfinishedArtifact,
)
from maskmill.pipeline.answers.status import list_failed_rows, status
from maskmill.pipeline.answers.verify import verify
from maskmill.pipeline.running.run import Outcome, finish_parts, retry, run
from maskmill.pipeline.running.whole import run_whole
from maskmill.stages.command import Role
from maskmill.stages.stage import Findings, Inputs, WholeStage


@dataclass(frozen=True, slots=True, kw_only=True)
class CensusConfig:
    word: str = "pictures"
    warning: str = ""
    mistake: str = ""


CALLS: list[str] = []


def compute(config: CensusConfig, inputs: Inputs, underway: Underway) -> Findings:
    """How many pictures there are of each class, and how many pixels."""
    CALLS.append(config.word)
    if config.mistake:
        raise InputError(config.mistake)
    rows = [row for row in inputs["images"].rows().to_pylist() if row["status"] == "ok"]
    pixels = sum(row["height"] * row["width"] for row in rows)
    files = {"census.json": json.dumps({config.word: len(rows)}).encode(), "pixels/sum.txt": str(pixels).encode()}
    return Findings(files, {"kind": "census", "pixels": pixels, "ids": [row["id"] for row in rows]}, warned(config))


def warned(config: CensusConfig) -> Sequence[str]:
    return [config.warning] if config.warning else []


def reads(config: CensusConfig, inputs: Inputs) -> Mapping[str, Sequence[str]]:
    return {"images": ("picture", "labels")}


CENSUS = WholeStage(
    command=make_command("census", "counts", CensusConfig, {"images": "images"}),
    code_version=1,
    compute=compute,
    reads=reads,
    libraries=("Pillow",),
)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    index(write_dataset(tmp_path / "pictures", 4), tmp_path / "images")
    CALLS.clear()
    return tmp_path / "images"


def census(images: Path, out: Path, stage: WholeStage = CENSUS, **asked: str) -> Outcome:
    return run_whole(stage, CensusConfig(**asked), {"images": str(images)}, str(out))


def test_it_is_made_once_and_then_recognised(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    made = census(images, out)
    assert (made.units_run, made.units_skipped, made.finished, made.exit_code) == (1, 0, True, 0)
    artifact = open_artifact(str(out), "counts")
    assert json.loads(artifact.file("census.json")) == {"pictures": 4}
    assert artifact.file("pixels/sum.txt") == b"1376"
    assert (
        artifact.summary.counts
        == made.counts
        == {
            "kind": "census",
            "pixels": 1376,
            "ids": ["cat/0", "cat/2", "dog/1", "dog/3"],
        }
    )
    before = tree(out)
    again = census(images, out)
    assert (again.units_run, again.units_skipped, again.counts) == (0, 1, made.counts)
    assert tree(out) == before
    assert CALLS == ["pictures"]
    census(images, tmp_path / "elsewhere")
    assert tree(tmp_path / "elsewhere") == before


def test_a_file_that_it_does_not_hold_is_told(images: Path, tmp_path: Path) -> None:
    census(images, tmp_path / "out")
    with pytest.raises(ConfigError, match=r"weights.*census\.json.*pixels/sum\.txt"):
        open_artifact(str(tmp_path / "out")).file("weights")


def test_another_configuration_is_refused_by_the_name_of_the_field(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    census(images, out)
    before = tree(out)
    with pytest.raises(StaleArtifact, match=r"word\b.*pictures.*images"):
        census(images, out, word="images")
    with pytest.raises(StaleArtifact, match=r"code_version\b.*1.*2"):
        census(images, out, replace(CENSUS, code_version=2))
    with pytest.raises(StaleArtifact, match=r"libraries\.click"):
        census(images, out, replace(CENSUS, libraries=("Pillow", "click")))
    with pytest.raises(StaleArtifact, match=r"stage\b.*census.*other"):
        census(images, out, replace(CENSUS, command=replace(CENSUS.command, name="other")))
    assert tree(out) == before
    assert CALLS == ["pictures"]


def test_changed_inputs_are_counted_anew(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    census(images, out)
    write_picture(tmp_path / "pictures/cat/0.png", 50, (100, 10))
    index(tmp_path / "pictures", images)
    assert status(str(out)).inputs[0]["state"] == "changed since"
    made = census(images, out)
    assert (made.units_run, made.counts["pixels"]) == (1, 2056)
    assert status(str(out)).inputs[0]["state"] == "as read"
    assert verify(str(out)).exit_code == 0
    assert census(images, out).units_run == 0


def test_what_takes_long_is_not_lost_to_changed_inputs(images: Path, tmp_path: Path) -> None:
    slow = replace(CENSUS, takes_long=True)
    census(images, tmp_path / "out", slow)
    moved = tmp_path / "moved"
    images.rename(moved)
    assert census(moved, tmp_path / "out", slow).units_run == 0, "where they lie is no change"
    moved.rename(images)
    write_picture(tmp_path / "pictures/cat/0.png", 50, (100, 10))
    index(tmp_path / "pictures", images)
    before = tree(tmp_path / "out")
    with pytest.raises(StaleArtifact, match="other images"):
        census(images, tmp_path / "out", slow)
    assert tree(tmp_path / "out") == before


def test_a_field_that_is_added_to_an_input_changes_nothing(images: Path, tmp_path: Path) -> None:
    toys, out = str(tmp_path / "toys"), str(tmp_path / "out")
    slow = replace(
        CENSUS,
        takes_long=True,
        command=replace(CENSUS.command, roles={"toys": Role(kind="toys")}),
        reads=lambda config, inputs: {"toys": ("square",)},
        compute=lambda config, inputs, underway: compute(config, {"images": open_artifact(str(images))}, underway),
    )
    for field in ("square", "wide"):
        run(TOY, ToyConfig(fields=(field,)), {"images": str(images)}, toys)
        run_whole(slow, CensusConfig(), {"toys": toys}, out)
    assert CALLS == ["pictures"]
    write_picture(tmp_path / "pictures/cat/0.png", 50, (100, 10))
    index(tmp_path / "pictures", images)
    run(TOY, ToyConfig(), {"images": str(images)}, toys)
    with pytest.raises(StaleArtifact, match="other toys"):
        run_whole(slow, CensusConfig(), {"toys": toys}, out)


def test_a_warning_stays_with_what_it_is_of(images: Path, tmp_path: Path) -> None:
    for number in (1, 0):
        made = census(images, tmp_path / "out", warning="four pictures are few; add some")
        assert (made.units_run, made.exit_code) == (number, 6)
        assert made.warnings == ("four pictures are few; add some",)


@pytest.mark.parametrize("begun", [False, True])
def test_what_cannot_be_made_leaves_what_was_there(images: Path, tmp_path: Path, begun: bool) -> None:
    out = tmp_path / "out"
    if begun:
        census(images, out)
        (out / "census.json").write_bytes(b"{}")  # damaged, so that it has to be made again
    before = tree(out)
    mistaken = replace(CENSUS, compute=lambda config, *others: compute(replace(config, mistake="told"), *others))
    with pytest.raises(InputError, match="told"):
        census(images, out, mistaken)
    assert tree(out) == before
    assert out.exists() == begun
    unknown = replace(CENSUS, reads=lambda config, inputs: {"images": ("depth",)})
    with pytest.raises(ConfigError, match=r"'depth'.*'labels', 'picture'"):
        census(images, tmp_path / "new", unknown)
    assert not (tmp_path / "new").exists()


def test_inputs_of_another_kind_and_directories_of_others_are_refused(images: Path, tmp_path: Path) -> None:
    census(images, tmp_path / "out")
    with pytest.raises(ConfigError, match=r"counts\b.*images"):
        census(tmp_path / "out", tmp_path / "two")
    with pytest.raises(ConfigError, match=r"cat/0\.png"):
        census(images, tmp_path / "pictures")


# ---- faults


@pytest.mark.parametrize("act", [kill, no_space])
def test_killed_or_out_of_space_at_every_operation(images: Path, tmp_path: Path, act) -> None:
    """Between plan.json and artifact.json, too: the same command ends with the bytes of a quiet run."""
    out, quiet = tmp_path / "out", tmp_path / "quiet"
    census(images, quiet)

    def run() -> int:
        return census(images, out).units_run

    points = operations(run, out)
    assert len(points) > 8
    unfinished = 0
    for at, point in enumerate(points, 1):
        shutil.rmtree(out, ignore_errors=True)
        ended = in_child(as_command(run), Fault(out, at, act))
        if act is kill:
            assert ended.signal == signal.SIGKILL, point
        elif ended.code:
            assert (ended.code, f"{out}" in ended.stderr) == (7, True), (point, ended)
        if (out / "plan.json").exists() and not (out / "artifact.json").exists():
            unfinished += 1
            answer = in_child(
                lambda: [status(str(out)).state, verify(str(out)).exit_code, dict(status(str(out)).counts)]
            )
            assert answer.answer == ["unfinished", 2, {}], (point, answer)
        resumed = in_child(as_command(run))
        assert resumed.code == 0, (point, resumed)
        assert tree(out) == tree(quiet), point
    assert unfinished > 3 if act is kill else not unfinished, "without space for it, nothing of it stays"


@pytest.mark.parametrize("name", ["census.json", "pixels/sum.txt", "artifact.json", "plan.json"])
@pytest.mark.parametrize("fault", ["flipped", "cut", "gone"])
def test_a_damaged_file_is_found_and_mended(images: Path, tmp_path: Path, name: str, fault: str) -> None:
    out = tmp_path / "out"
    census(images, out)
    before = tree(out)
    data = (out / name).read_bytes()
    if fault == "gone":
        (out / name).unlink()
    else:
        (out / name).write_bytes(data[:-1] if fault == "cut" else data[:-2] + bytes([data[-2] ^ 1]) + data[-1:])
    if name == "plan.json":
        with pytest.raises(ConfigError if fault == "gone" else CorruptArtifact):  # what it was is known no longer
            census(images, out)
        return
    found = verify(str(out))
    if (name, fault) == ("artifact.json", "gone"):
        assert (found.exit_code, found.finished) == (2, False)
        with pytest.raises(UnfinishedArtifact):
            open_artifact(str(out))
    else:
        assert found.exit_code == 4
        assert str(out / name) in found.faults[0]
        assert in_child(as_command(lambda: read(out, name))).code == 4
    assert census(images, out).units_run == 1
    assert verify(str(out)).exit_code == 0
    assert tree(out) == before


def read(out: Path, name: str) -> None:
    artifact = open_artifact(str(out))
    artifact.file(name)


def test_files_that_nothing_vouches_for_are_told(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    census(images, out)
    (out / "stray.txt").write_text("stray")
    found = verify(str(out))
    assert (found.exit_code, found.strangers, found.files) == (0, ("stray.txt",), 4)


# ---- answers


def test_its_status_has_no_rows(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    census(images, out, warning="few")
    found = status(str(out))
    assert (found.state, found.kind, found.stage) == ("finished", "counts", "census")
    assert (found.rows, found.units, found.units_done, found.warnings) == (0, 0, 0, ("few",))
    assert found.counts["pixels"] == 1376
    assert list(list_failed_rows(str(out))) == []


def test_it_has_nothing_to_retry_or_to_finish(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    census(images, out)
    for again in (retry, finish_parts):
        with pytest.raises(ConfigError, match="`maskmill census`"):
            again(str(out))


def test_the_commands_answer_about_it(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert show_outcome(census(images, out), as_json=False) == 0
    said = capsys.readouterr().out
    assert said.startswith("counts: kind census, pixels 1376; done in ")
    assert said.endswith(f"→ {out}\n")
    assert show_outcome(census(images, out, warning=""), as_json=False) == 0
    assert capsys.readouterr().out.startswith("counts: kind census, pixels 1376; already done in ")
    assert main(["status", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [f"{out}: counts by census, finished", "  holds: kind census, pixels 1376"]
    assert lines[2] == f"  images: {images} (as read)"
    assert main(["status", str(out), "--failed", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["failed_rows"] == []
    assert main(["verify", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}: intact; 4 files right, 0 wrong\n"
    assert main(["retry", str(out)]) == 2
    assert_named(capsys.readouterr().err, f"{out} census")
    assert show_outcome(census(images, out), as_json=True) == 0
    assert json.loads(capsys.readouterr().out)["counts"]["pixels"] == 1376


def test_counts_of_rows_and_of_none() -> None:
    rows = {"rows": 20, "ok": 17, "failed": 2, "upstream": 1, "reasons": {"missing": 1, "truncated": 1}}
    assert counts_text(rows) == "20 rows, 17 ok, 2 failed (1 missing, 1 truncated), 1 failed upstream"
    assert counts_text({"kind": "classifier", "loss": 0.5, "ids": ["a"]}) == "kind classifier, loss 0.5"
    assert counts_text({}) == ""


def test_what_says_nothing_of_itself_is_still_told(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    silent = replace(CENSUS, compute=lambda *_: Findings({"a.txt": b"a"}))
    show_outcome(census(images, tmp_path / "out", silent), as_json=False)
    assert capsys.readouterr().out.startswith("counts: done in ")
    assert main(["status", str(tmp_path / "out")]) == 0
    assert "holds" not in capsys.readouterr().out
