"""Which threshold is taken where none is named, and what a run says of one that does not suit."""

import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest
from safetensors.torch import save_file

from builders.configs import make_config
from builders.mistakes import assert_named
from builders.small_tokens import BACKBONE, Bench
from maskmill.manifests.artifact.artifact import open_artifact
from maskmill.manifests.artifact.tokens import Tokens
from maskmill.stages.maps.threshold_rules import PAPER_THRESHOLD, Constant, Otsu
from maskmill.stages.mask.config import MaskConfig
from maskmill.stages.mask.verdict import warn_of_shares
from maskmill.stages.vision.weights import read_weights

PAPER = "dino_deitsmall8_300ep_pretrain"


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random tensors in files of two names."""
    folder = tmp_path_factory.mktemp("weights")
    state = read_weights(BACKBONE, "random:0")[1]
    for name in (PAPER, "dino_deitsmall8_pretrain"):
        save_file(state, folder / f"{name}.safetensors")
    return folder


def tokens_of(bench: Bench, weights: Path, name: str) -> Tokens:
    return bench.tokens(weights=str(weights / f"{name}.safetensors"))


def test_the_papers_threshold_goes_with_the_papers_weights_alone(bench: Bench, weights: Path) -> None:
    paper = tokens_of(bench, weights, PAPER).artifact
    assert make_config(MaskConfig, {"tokens": paper}).threshold == PAPER_THRESHOLD == Constant(0.4)
    assert make_config(MaskConfig, {"tokens": paper}, threshold="otsu").threshold == Otsu()
    assert (
        make_config(MaskConfig, {"tokens": tokens_of(bench, weights, "dino_deitsmall8_pretrain").artifact}).threshold
        == Otsu()
    )
    assert make_config(MaskConfig, {"tokens": bench.tokens().artifact}).threshold == Otsu()


def test_the_papers_threshold_with_other_weights_warns(bench: Bench, weights: Path) -> None:
    """At every run that asks, and in artifact.json."""
    out = bench.new_out()
    for units in (3, 0):
        outcome = bench.mask_into(out, bench.tokens(), threshold="0.4", supports="1")
        assert (outcome.units_run, outcome.exit_code) == (units, 6)
        sentence = outcome.warnings[0]
        assert_named(sentence, f"threshold 0.4 {PAPER}.pth random:0 --threshold otsu")
    assert json.loads((out / "artifact.json").read_bytes())["warnings"] == list(outcome.warnings)
    for tokens, threshold in [(tokens_of(bench, weights, PAPER), ""), (bench.tokens(), "0.41")]:
        told = bench.mask_into(bench.new_out(), tokens, threshold=threshold, supports="1").warnings
        assert not [sentence for sentence in told if f"{PAPER}.pth" in sentence]


@pytest.mark.parametrize("threshold", ["0.99", "0.01"])
def test_maps_that_are_nearly_nothing_or_everything_warn(bench: Bench, threshold: str) -> None:
    out = bench.new_out()
    outcome = bench.mask_into(out, bench.tokens(), threshold=threshold, supports="1")
    assert outcome.exit_code == 6
    (sentence,) = outcome.warnings
    assert_named(sentence, f"11 100% 95 1 {threshold} --threshold")
    shares = [row["foreground"] for row in open_artifact(str(out)).rows().to_pylist() if row["status"] == "ok"]
    assert set(shares) <= {0.0, 1.0}


def told_of(shares: Sequence[float], status: str = "ok", note: str = "") -> list[str]:
    config = MaskConfig(method="cst", supports="8", seed=0, threshold=Otsu())
    rows = [{"status": status, "note": note, "foreground": share} for share in shares]
    columns = {"status": pa.string(), "note": pa.string(), "foreground": pa.float64()}
    batch = pa.RecordBatch.from_pylist(rows, pa.schema(columns))
    return warn_of_shares(config, [batch.slice(0, 3), batch.slice(3)])


def test_a_fifth_of_odd_maps_is_not_yet_told() -> None:
    """Nor what lies on the limits."""
    assert told_of([0.5] * 8 + [0.951, 0.0099]) == []
    assert told_of([0.5] * 7 + [0.95, 0.01, 0.951, 0.0099]) == []
    assert "3 of 10 maps (30%)" in told_of([0.5] * 7 + [0.951, 0.0099, 0.0])[0]


def test_rows_without_a_map_are_not_counted() -> None:
    assert told_of([0.0] * 9, note="no_label") == []
    assert told_of([0.0] * 9, status="upstream") == []
    assert told_of([0.0] * 9, status="failed") == []
    assert told_of([0.0] * 9, note="no_structure"), "a map of one value is one of those that are told of"
    assert told_of([]) == []
