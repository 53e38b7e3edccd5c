"""Where students get their inputs: what was stored, the same numbers from the backbone itself, and what is refused."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch

from builders.biased_weights import write_biased_weights
from builders.small_tokens import BACKBONE, PICTURES, SIZE, Bench, bench_of
from maskmill.cli.main import main
from maskmill.manifests.artifact.artifact import open_artifact
from maskmill.manifests.artifact.tokens import Tokens, open_tokens
from maskmill.manifests.errors import ConfigError, InputError, StaleArtifact
from maskmill.stages.students.backbone_config import BackboneConfig
from maskmill.stages.students.feature_names import ONE_BLOCK, PAIR_FIELDS
from maskmill.stages.students.features import Cached, Online, pictures_of_images, resolve_backbone
from maskmill.stages.students.same_pictures import refuse_other_pictures

ALL = ("keys", "cls_query", "tokens:all", "support_tokens:all")
IDS = ["dog/4", "cat/0", "cat/0", "dog/10"]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return bench_of(tmp_path_factory.mktemp("features"))


def squashed(bench: Bench, **asked: Any) -> Tokens:
    return bench.tokens(**{"fields": ALL, "fit": "squash", "dtype": "float16", **asked})


def online(
    bench: Bench,
    fields: Any = PAIR_FIELDS,
    fit: Any = "squash",
    blocks: Any = (),
    weights: str = "random:0",
    block: int | None = None,
) -> Online:
    images = open_artifact(str(bench.images), "images")
    return Online(
        resolve_backbone(BackboneConfig(backbone=BACKBONE, weights=weights, image_size=SIZE, fit=fit), "cpu"),
        fields,
        pictures_of_images(images),
        blocks,
        block,
    )


def test_both_give_the_same_numbers(bench: Bench) -> None:
    fields = (*PAIR_FIELDS, ONE_BLOCK)
    cached, now = Cached(squashed(bench), fields), online(bench, fields)
    assert cached.sight == now.sight
    one, other = cached.read(IDS, fields), now.read(IDS, fields)
    assert one.boxes == other.boxes == ((0, 0, *SIZE),) * 4
    for name in fields:
        assert one.fields[name].dtype == torch.float16
        assert torch.equal(one.fields[name], other.fields[name]), name
    depth, patches, width = len(cached.sight.blocks), 24, cached.sight.width
    assert cached.sight.channels == depth * cached.sight.heads
    assert one.fields["tokens"].shape == (4, depth, 1 + patches, width)
    assert one.fields["support_tokens"].shape == (4, depth, 145, width)
    assert torch.equal(one.fields[ONE_BLOCK], one.fields["tokens"][:, -1])
    assert torch.equal(one.fields["keys"][1], one.fields["keys"][2])


def test_both_compare_keys_as_the_family_of_the_backbone_does(bench: Bench, tmp_path: Path) -> None:
    for name, is_raw in (("dinov2_tiny", False), ("dino_tiny", True)):
        weights = str(write_biased_weights(tmp_path / f"{name}.safetensors"))
        tokens = squashed(bench, weights=weights)
        raw = torch.from_numpy(tokens.read("keys", IDS))
        expected = raw if is_raw else raw.float() - torch.tensor(tokens.facts.key_bias)
        for features in (Cached(tokens, ["keys"]), online(bench, ["keys"], weights=weights)):
            assert torch.equal(features.read(IDS, ["keys"]).fields["keys"], expected)


def test_what_is_read_is_what_is_stored_of_that_picture(bench: Bench) -> None:
    tokens = squashed(bench)
    read = Cached(tokens, PAIR_FIELDS).read(IDS, ["keys"])
    for place, identifier in enumerate(IDS):
        assert torch.equal(read.fields["keys"][place], torch.from_numpy(tokens.read("keys", identifier)))


def test_some_blocks_are_those_of_the_tokens(bench: Bench) -> None:
    asked = ("keys", "cls_query", "tokens:1+3", "support_tokens:1+3")
    some = Cached(squashed(bench, fields=asked), PAIR_FIELDS)
    now = online(bench, (*PAIR_FIELDS, ONE_BLOCK), blocks=(1, 3))
    assert some.sight == now.sight
    one, other = some.read(IDS, ["tokens", "support_tokens"]), now.read(IDS, ["tokens", "support_tokens", ONE_BLOCK])
    assert torch.equal(one.fields["tokens"], other.fields["tokens"])
    assert torch.equal(one.fields["support_tokens"], other.fields["support_tokens"])
    assert torch.equal(other.fields[ONE_BLOCK], online(bench).read(IDS, ["tokens"]).fields["tokens"][:, -1])


def test_one_block_may_be_another_than_the_last(bench: Bench) -> None:
    stored = squashed(bench, fields=("tokens:1+3",))
    one, now = Cached(stored, [ONE_BLOCK], 1), online(bench, [ONE_BLOCK], block=1)
    assert one.sight == now.sight
    assert one.sight.blocks == (1,)
    read = one.read(IDS, [ONE_BLOCK]).fields[ONE_BLOCK]
    assert torch.equal(read, now.read(IDS, [ONE_BLOCK]).fields[ONE_BLOCK])
    assert torch.equal(read, torch.from_numpy(stored.read("tokens", IDS))[:, 0])
    with pytest.raises(ConfigError, match=r"tokens:2 .*--block"):
        Cached(stored, [ONE_BLOCK], 2)
    with pytest.raises(ConfigError, match=r"--block is 12"):
        online(bench, [ONE_BLOCK], block=12)


def test_padded_views_are_for_the_patches_of_one_picture(bench: Bench) -> None:
    padded = bench.tokens(fields=("tokens",), dtype="float16")
    one, now = Cached(padded, [ONE_BLOCK]), online(bench, [ONE_BLOCK], "pad")
    assert one.sight == now.sight
    read, other = one.read(IDS, [ONE_BLOCK]), now.read(IDS, [ONE_BLOCK])
    assert torch.equal(read.fields[ONE_BLOCK], other.fields[ONE_BLOCK])
    assert read.boxes == other.boxes != ((0, 0, *SIZE),) * 4
    with pytest.raises(ConfigError, match=r"padded.*--fit squash"):
        online(bench, PAIR_FIELDS, "pad")
    with pytest.raises(ConfigError, match=r"padded.*`.* --fit squash ") as raised:
        Cached(squashed(bench, fit="pad"), PAIR_FIELDS)
    assert Cached(as_told(raised.value), PAIR_FIELDS).sight == online(bench).sight


def as_told(error: ConfigError) -> Tokens:
    """What the last command of a sentence makes."""
    command = shlex.split(str(error).split("`")[-2].removeprefix("maskmill "))
    assert main([*command, "--max-bad", "0.5"]) in (0, 6)
    return open_tokens(command[command.index("--out") + 1])


@pytest.mark.parametrize("held", [("keys",), ("tokens:2+3",), ("support_tokens:all", "keys", "cls_query")])
def test_what_is_missing_comes_with_the_command_that_adds_it(held: tuple[str, ...], tmp_path: Path) -> None:
    bench = bench_of(tmp_path)
    tokens = bench.tokens(fields=held, fit="squash")
    with pytest.raises(ConfigError, match="`maskmill extract") as raised:
        Cached(tokens, PAIR_FIELDS)
    command = shlex.split(str(raised.value).partition("`maskmill ")[2].partition("`")[0])
    main([*command, "--max-bad", "0.5"])
    features = Cached(open_tokens(tokens.artifact.place), PAIR_FIELDS)
    assert features.sight.blocks == ((2, 3) if held == ("tokens:2+3",) else tuple(range(len(features.sight.blocks))))
    if held == ("tokens:2+3",):
        assert re.search(r"` for blocks 2\+3 .*, or .* all blocks with `maskmill extract ", str(raised.value))
        assert len(Cached(as_told(raised.value), PAIR_FIELDS).sight.blocks) == tokens.backbone["depth"]


def test_what_cannot_be_read_is_said(bench: Bench) -> None:
    with pytest.raises(ConfigError, match=r"mirrored.*`maskmill") as raised:
        Cached(squashed(bench, flip=True), PAIR_FIELDS)
    assert Cached(as_told(raised.value), PAIR_FIELDS).sight == online(bench).sight
    uneven = squashed(bench, fields=("keys", "cls_query", "tokens:1", "support_tokens:1+2"))
    with pytest.raises(ConfigError, match=r"tokens.*\[1\].*support_tokens.*\[1, 2\]") as raised:
        Cached(uneven, PAIR_FIELDS)
    assert Cached(as_told(raised.value), PAIR_FIELDS).sight == online(bench).sight
    with pytest.raises(ConfigError, match=r"tokens.*\[1\].*last") as raised:
        Cached(uneven, [ONE_BLOCK])
    assert as_told(raised.value).blocks("tokens") == (Cached(squashed(bench), [ONE_BLOCK]).sight.blocks)
    cached, now = Cached(squashed(bench), PAIR_FIELDS), online(bench)
    for wrong, sentence in {"broken": "which failed", "nobody": "nobody"}.items():
        for read in (cached.require, lambda ids: cached.read(ids, ["keys"]), lambda ids: now.read(ids, ["keys"])):
            with pytest.raises(InputError, match=sentence if wrong == "nobody" or read == cached.require else "broken"):
                read(["cat/0", wrong])
    cached.require(["cat/0"])
    with pytest.raises(InputError, match=r"'changed'.*changed"):
        now.read(["changed"], ["keys"])


def test_a_checkpoint_of_another_sight_is_refused(bench: Bench) -> None:
    sight, other = online(bench).sight, online(bench, blocks=(1,)).sight
    sight.refuse_other(sight, "these")
    with pytest.raises(ConfigError, match=r"\[1\].*tokens.*\[0, 1,"):
        sight.refuse_other(other, "tokens of x")


def test_other_pictures_are_refused(tmp_path: Path) -> None:
    bench = bench_of(tmp_path / "one", changed=False)
    tokens = bench.tokens().artifact
    images = open_artifact(str(bench.images))
    refuse_other_pictures(tokens, images)
    again = tmp_path / "again"
    bench.images.rename(tmp_path / "kept")
    bench.index({name: labels for name, labels in PICTURES.items() if name != "none/7"})
    bench.images.rename(again)
    (tmp_path / "kept").rename(bench.images)
    refuse_other_pictures(tokens, open_artifact(str(again)))
    other = bench_of(tmp_path / "two")  # of which one picture has another sha256, since its own was changed
    other.index(update=True)
    with pytest.raises(InputError, match=r"other pictures.*'changed'.*sha256"):
        refuse_other_pictures(tokens, open_artifact(str(other.images)))
    bench.index({"cat/0": ("cat", "train"), "dog/4": ("cat", "train")}, update=True)
    with pytest.raises(StaleArtifact, match="same"):
        refuse_other_pictures(tokens, open_artifact(str(other.images)))
