"""The table of methods: one that is fitted first, by the same commands as all others, and ones that give odd maps."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save

from builders.configs import make_config
from builders.small_tokens import PICTURES, Bench
from maskmill.manifests.artifact.artifact import Artifact, open_artifact
from maskmill.manifests.artifact.checkpoints import SEEN, WEIGHTS, training_ids, training_ids_json
from maskmill.manifests.artifact.tokens import Tokens
from maskmill.manifests.artifact.underway import Underway
from maskmill.manifests.errors import ConfigError, MissingArtifact, StaleArtifact
from maskmill.pipeline.answers.status import list_failed_rows, status
from maskmill.pipeline.answers.verify import verify
from maskmill.pipeline.running.options import RunOptions
from maskmill.pipeline.running.run import Outcome, retry
from maskmill.pipeline.running.whole import run_whole
from maskmill.stages.mask.config import FitConfig
from maskmill.stages.mask.method_fit import FIT
from maskmill.stages.mask.methods import METHODS, Method, MethodInput, methods_by_name
from maskmill.stages.stage import Findings, Inputs


def fit_class_keys(config: FitConfig, inputs: Inputs, underway: Underway) -> Findings:
    """The mean key of each class's pictures, and a little of the seed: what a linear classifier would begin with."""
    tokens, labels = Tokens(inputs["tokens"]), inputs["images"].rows(["id", "labels"]).to_pylist()
    whole = {row["id"] for row in tokens.rows.to_pylist() if row["status"] == "ok"}
    directions = np.random.default_rng(config.seed).normal(0, 0.01, (4, 64)).astype(np.float32)
    used = [row for row in labels if row["id"] in whole and row["labels"]]
    for row in used:
        directions[row["labels"]] += tokens.read("keys", row["id"]).mean(axis=0)
    files = {
        WEIGHTS: save({"directions": directions}),
        SEEN: training_ids_json([row["id"] for row in used], [], [], []),
    }
    return Findings(files, {"kind": "classifier"})


def load_directions(checkpoint: Artifact) -> np.ndarray:
    return load(checkpoint.file(WEIGHTS))["directions"]


def class_key_maps(given: MethodInput) -> np.ndarray:
    assert given.queries is None
    wanted_RD = given.model[[index or 0 for index in given.classes]]
    scores_RT = np.einsum("rtd,rd->rt", given.fields["keys"].astype(np.float32), wanted_RD)
    return (1 / (1 + np.exp(-scores_RT))).astype(np.float32)


CLASS_KEYS = Method(
    name="class-keys",
    source="tokens",
    reads=("keys",),
    apply=class_key_maps,
    score_kind="probability",
    align_corners=False,
    threshold="0.5",
    by_class=True,
    fit=fit_class_keys,
    fit_reads_images=("labels",),
    load=load_directions,
)


@pytest.fixture
def method(monkeypatch: pytest.MonkeyPatch) -> Method:
    monkeypatch.setitem(METHODS, CLASS_KEYS.name, CLASS_KEYS)
    return CLASS_KEYS


def fit(bench: Bench, tokens: Tokens, out: Path, seed: int = 0, method: str = "class-keys") -> Outcome:
    inputs = {"tokens": tokens.artifact.place.uri, "images": str(bench.images)}
    return run_whole(FIT, make_config(FitConfig, method=method, seed=seed), inputs, str(out))


def test_a_method_is_fitted_and_then_applied(bench: Bench, method: Method) -> None:
    tokens, model, out = bench.tokens(), bench.new_out(), bench.new_out()
    made = fit(bench, tokens, model)
    assert (made.kind, made.units_run, made.finished) == ("checkpoint", 1, True)
    assert (made.counts["kind"], made.counts["method"]) == ("classifier", "class-keys")
    checkpoint = open_artifact(str(model), "checkpoint")
    whole = {row["id"] for row in tokens.rows.to_pylist() if row["status"] == "ok"}
    assert training_ids(checkpoint, "labels") == {name for name in whole if PICTURES[name][0]}
    assert training_ids(checkpoint, "masks") == frozenset()

    bench.mask_into(out, tokens, model=model, method="class-keys")
    maps, directions = open_artifact(str(out)), load_directions(checkpoint)
    assert maps.plan.facts["score_kind"] == "probability"
    wanted = [(name, index) for name in PICTURES for index in classes_of(name)]
    rows = maps.rows().to_pylist()
    assert [(row["id"], row["class"]) for row in rows if row["class"]] == wanted
    assert {row["id"]: row["note"] for row in rows if row["class"] is None} == {"none/7": "no_label"}
    for row, map_RC in zip(rows, maps.read("map", range(len(rows))), strict=True):
        if row["status"] == "ok" and row["class"]:
            scores_T = tokens.read("keys", row["id"]) @ directions[row["class"]]
            np.testing.assert_allclose(map_RC.ravel(), 1 / (1 + np.exp(-scores_T)), rtol=1e-5)
            assert row["threshold"] == 0.5
    assert verify(str(out)).exit_code == 0
    assert bench.mask_into(out, tokens, model=model, method="class-keys").units_run == 0
    assert retry(str(out), RunOptions(max_bad=0.5)).units_run == 0
    (input_,) = [each for each in status(str(out)).inputs if each["role"] == "model"]
    assert input_["state"] == "as read"


def classes_of(name: str) -> list[int]:
    return [["bird", "cat", "dog"].index(label) + 1 for label in PICTURES[name][0].split("|") if label]


def test_another_checkpoint_is_another_configuration(bench: Bench, method: Method) -> None:
    """As other weights of a backbone are: what was made with the first one is not what is asked for."""
    tokens, out = bench.tokens(), bench.new_out()
    models = [bench.new_out(), bench.new_out()]
    for seed, model in enumerate(models):
        fit(bench, tokens, model, seed)
    bench.mask_into(out, tokens, model=models[0], method="class-keys")
    with pytest.raises(StaleArtifact, match=r"inputs\.model\.weights\.safetensors"):
        bench.mask_into(out, tokens, model=models[1], method="class-keys")
    with pytest.raises(StaleArtifact, match=r"seed.*0.*1"):
        fit(bench, tokens, models[0], seed=1)


def test_a_checkpoint_is_for_its_method_and_its_weights(
    bench: Bench, method: Method, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens, model, out = bench.tokens(), bench.new_out(), bench.new_out()
    fit(bench, tokens, model)
    with pytest.raises(ConfigError, match=r"class-keys.*`maskmill fit "):
        bench.mask_into(out, tokens, method="class-keys")
    with pytest.raises(ConfigError, match=r"cst.*--model"):
        bench.mask_into(out, tokens, model=model)
    with pytest.raises(ConfigError, match=r"cst.*`maskmill mask`"):
        make_config(FitConfig, method="cst")
    twin = Method(**{**{name: getattr(method, name) for name in method.__slots__}, "name": "twin"})
    monkeypatch.setitem(METHODS, "twin", twin)
    with pytest.raises(ConfigError, match=r"method.*class-keys.*twin.*--model"):
        bench.mask_into(out, tokens, model=model, method="twin")
    with pytest.raises(ConfigError, match=r"weights.*random:0.*random:1"):
        bench.mask_into(out, bench.tokens(weights="random:1"), model=model, method="class-keys")
    with pytest.raises(ConfigError, match=r"tokens.*checkpoint"):
        bench.mask_into(out, tokens, model=Path(tokens.artifact.place.uri), method="class-keys")
    with pytest.raises(MissingArtifact):
        bench.mask_into(out, tokens, model=bench.new_out(), method="class-keys")
    assert not out.exists()


def test_a_damaged_checkpoint_is_never_used(bench: Bench, method: Method) -> None:
    tokens, model, out = bench.tokens(), bench.new_out(), bench.new_out()
    fit(bench, tokens, model)
    data = bytearray((model / WEIGHTS).read_bytes())
    data[-3] ^= 4
    (model / WEIGHTS).write_bytes(data)
    assert verify(str(model)).exit_code == 4
    assert fit(bench, tokens, model).units_run == 1, "made again"
    assert verify(str(model)).exit_code == 0
    assert bench.mask_into(out, tokens, model=model, method="class-keys").counts["ok"] == 12


# ---- maps that no method should give


def odd_method(maps: Callable[[MethodInput], np.ndarray]) -> Method:
    return Method(
        name="odd",
        source="tokens",
        reads=("keys", "cls_query"),
        apply=maps,
        score_kind="minmax",
        align_corners=False,
        threshold="otsu",
        takes_supports=True,
    )


def ramps(given: MethodInput) -> np.ndarray:
    return np.tile(np.linspace(0, 1, 24, dtype=np.float32), (len(given.classes), 1))


def nan_at_birds(given: MethodInput, value: float) -> np.ndarray:
    maps_RT = ramps(given)
    maps_RT[[index == 1 for index in given.classes], 5] = value
    return maps_RT


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_map_that_is_not_finite_fails_its_row_alone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    monkeypatch.setitem(METHODS, "odd", odd_method(partial(nan_at_birds, value=value)))
    out = bench.new_out()
    outcome = bench.mask_into(out, bench.tokens(), method="odd", supports="1")
    assert outcome.counts["reasons"] == {"not_finite": 1}
    assert [row.id for row in list_failed_rows(str(out)) if row.reason == "not_finite"] == ["bird/6"]
    maps = open_artifact(str(out))
    rows = maps.rows().to_pylist()
    (place,) = [place for place, row in enumerate(rows) if row["reason"] == "not_finite"]
    assert (rows[place]["class"], rows[place]["instance"]) == (1, 0), "a row says what it is even where it failed"
    values = maps.read("map", range(len(rows)))
    assert not values[place].any()
    assert all(values[other].any() for other, row in enumerate(rows) if row["status"] == "ok" and row["class"])
    assert outcome.counts["ok"] == 11


@pytest.mark.parametrize("rule", ["otsu", "0.3", "kept-mass:0.6"])
def test_a_map_of_one_value_is_noted(bench: Bench, monkeypatch: pytest.MonkeyPatch, rule: str) -> None:
    """Of the patches that are picture: what padding holds makes no structure."""

    def flat_where_picture(given: MethodInput) -> np.ndarray:
        return np.where(given.valid, np.float32(0.5), np.float32(0.9))

    monkeypatch.setitem(METHODS, "odd", odd_method(flat_where_picture))
    maps = bench.mask(bench.tokens(), method="odd", supports="0", threshold=rule)
    found = [row for row in maps.rows().to_pylist() if row["status"] == "ok"]
    assert {row["note"] for row in found} == {"no_structure"}
    assert {row["foreground"] for row in found} == {1.0 if rule == "0.3" else 0.0}


def test_a_method_that_raises_gives_up_its_units(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what was planned of a row is known even so."""

    def broken(given: MethodInput) -> Any:
        raise ValueError("told to raise")

    monkeypatch.setitem(METHODS, "odd", odd_method(broken))
    out = bench.new_out()
    outcome = bench.mask_into(out, bench.tokens(), RunOptions(max_bad=1.0), method="odd", supports="1")
    assert outcome.counts["reasons"] == {"error": 12}
    rows = open_artifact(str(out)).rows(["id", "class", "instance"]).to_pylist()
    assert {(row["id"], row["class"], row["instance"]) for row in rows} >= {("both/3", 2, 0), ("both/3", 3, 0)}


def test_two_methods_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigError, match="two mask methods called cst"):
        methods_by_name(METHODS["cst"], METHODS["ncut"], METHODS["cst"])
