"""The learner against the published outputs, and against a plain one in float64: values and gradients."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from builders.plain_learner import plain_logits
from maskmill.manifests.errors import ConfigError
from maskmill.stages.students import learner as module
from maskmill.stages.students.correlation import correlation
from maskmill.stages.students.learner import Learner
from maskmill.stages.students.official import learner_of, own_name
from maskmill.stages.vision.checkpoints import read_checkpoint, read_state

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def golden(reference):
    with np.load(reference / "golden/cst_learner.npz") as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


@pytest.fixture(scope="module")
def published(golden):
    return {name.removeprefix("param."): value for name, value in golden.items() if name.startswith("param.")}


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def made_learner(channels, seed=0):
    """Norms begin with 1 and 0, which would hide one that is applied twice or not at all."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        learner = Learner(channels)
        for name, parameter in learner.named_parameters():
            if "norm" in name or parameter.ndim == 1:
                torch.nn.init.normal_(parameter, mean=0.5, std=0.5)
    return learner


def official_names(learner):
    """Our parameters under the published names, by asking for every name there could be."""
    names = [f"corrtransformer.{n}.attn.{m}" for n in "01" for m in ("short_cut.0", "short_cut.2", "qkv", "agg.0")]
    names += [f"corrtransformer.{n}.attn.{m}" for n in "01" for m in ("agg.2", "agg.3", "out_norm")]
    names += [f"corrtransformer.{n}.ff.{m}" for n in "01" for m in ("ff.0", "ff.1", "ff.3", "out_norm")]
    names += [f"linear.{n}" for n in "0134"]
    names += [f"decoder{n}_{task}.{m}" for n in "12" for task in ("cls", "seg") for m in "02"]
    own = dict(learner.named_parameters())
    mapped = {f"{name}.{kind}": own_name(f"{name}.{kind}") for name in names for kind in ("weight", "bias")}
    return {official: own[name] for official, name in mapped.items() if name in own}


def rectangle(size, rows, columns):
    mask = torch.zeros(1, *size)
    mask[:, rows[0] : rows[1], columns[0] : columns[1]] = 1
    return mask


@pytest.mark.parametrize("masked", [True, False])
def test_logits_are_the_published_ones(golden, published, masked):
    learner = learner_of({f"learner.{name}": value for name, value in published.items()}, "golden")
    with torch.no_grad():
        found = learner(golden["correlation"].float(), golden["support_mask"] if masked else None, (10, 10))
    suffix = "" if masked else "_nomask"
    assert (found.presence - golden[f"logits_cls{suffix}"]).abs().max() < TOLERANCE
    assert (found.segmentation - golden[f"logits_seg{suffix}"]).abs().max() < TOLERANCE


def test_the_published_logits_tell_masks_apart(golden, published):
    """So they would not pass with the mask forgotten, exchanged between the two pairs, or resized without corners."""
    learner = learner_of(published, "golden")
    for wrong in (None, golden["support_mask"].flip(0), torch.ones(2, 400, 400)):
        with torch.no_grad():
            found = learner(golden["correlation"].float(), wrong, (10, 10))
        assert (found.segmentation - golden["logits_seg"]).abs().max() > 10 * TOLERANCE


def test_there_are_366_004_parameters(published):
    assert sum(value.numel() for value in Learner(72).parameters()) == 366_004
    assert sum(value.numel() for value in published.values()) == 366_004
    learner = learner_of(published, "golden")
    assert {name: value.shape for name, value in official_names(learner).items()} == {
        name: value.shape for name, value in published.items()
    }
    assert all(torch.equal(official_names(learner)[name], value) for name, value in published.items())


shapes = st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 5), st.integers(1, 6), st.integers(1, 6))
masks = st.sampled_from(["none", "zero", "corner", "middle", "between", "all"])
MASKS = {
    "zero": rectangle((30, 40), (0, 0), (0, 0)),
    "corner": rectangle((30, 40), (0, 5), (0, 3)),
    "middle": rectangle((30, 40), (12, 20), (15, 30)),
    "between": rectangle((30, 40), (5, 11), (5, 11)),  # none of the nine points of the second block
    "all": rectangle((30, 40), (0, 30), (0, 40)),
}


def random_pairs(batch, blocks, heads, head_width, grid, seed):
    query = normal(batch, blocks, 1 + grid[0] * grid[1], heads * head_width, seed=seed).half()
    return query, normal(batch, blocks, 145, heads * head_width, seed=seed + 1).half()


def weighed(values, weights):
    return torch.stack([(value * weight).sum() for value, weight in zip(values, weights, strict=True)]).sum()


@settings(max_examples=20)
@given(shapes, masks, st.integers(1, 4), st.sampled_from([1, 300, 2**20]))
def test_values_and_gradients_are_the_plain_ones(shape, mask_name, head_width, at_once):
    batch, blocks, heads, *grid = shape
    query, support = random_pairs(batch, blocks, heads, head_width, grid, seed=head_width)
    mask = None if mask_name == "none" else MASKS[mask_name].expand(batch, -1, -1)
    learner = made_learner(blocks * heads)
    state = {name: value.detach().double().requires_grad_() for name, value in official_names(learner).items()}
    x = correlation(query, support, heads)
    expected = plain_logits(state, x.double(), mask, tuple(grid))
    weights = [normal(*each.shape, seed=seed) for seed, each in enumerate(expected)]
    wanted = torch.autograd.grad(weighed(expected, weights), list(state.values()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(module._AT_ONCE, "cpu", at_once * blocks * heads)
        for found in (
            learner(x, mask, tuple(grid)),
            learner.forward_tokens(query, support, mask, tuple(grid), heads),
        ):
            pair = (found.presence, found.segmentation)
            for one, exact in zip(pair, expected, strict=True):
                assert (one - exact).abs().max() < 2e-4 * (1 + exact.abs().max())
            ours = official_names(learner)
            gradients = torch.autograd.grad(weighed(pair, weights), [ours[name] for name in state])
            for name, one, exact in zip(state, gradients, wanted, strict=True):
                assert (one - exact).norm() < 2e-3 * (1 + exact.norm()), name


def test_a_mask_between_the_nine_points_hides_the_second_block_alone():
    """As published: an object that covers none of the 3×3 points is seen at 12×12 and lost at 3×3."""
    learner = made_learner(4)
    assert learner.first.is_seen(MASKS["between"]).sum() > 1
    assert learner.second.is_seen(MASKS["between"]).tolist() == [[True] + [False] * 9]
    assert learner.second.is_seen(MASKS["middle"]).tolist() == [[True] + [False] * 4 + [True] + [False] * 4]


def test_what_a_mask_hides_changes_attention_and_not_what_is_pooled():
    learner = made_learner(4)
    query, support = random_pairs(1, 2, 2, 8, (3, 3), seed=5)
    with torch.no_grad():
        hidden, seen, none = (
            learner.forward_tokens(query, support, mask, (3, 3), heads=2)
            for mask in (MASKS["zero"], MASKS["all"], None)
        )
    assert torch.equal(seen.segmentation, none.segmentation)
    assert (hidden.segmentation - none.segmentation).abs().max() > 1e-4
    assert hidden.segmentation.isfinite().all()


def test_pairs_know_nothing_of_each_other():
    learner = made_learner(6)
    query, support = random_pairs(3, 2, 3, 8, (4, 5), seed=7)
    mask = torch.cat([MASKS["corner"], MASKS["zero"], MASKS["all"]])
    with torch.no_grad():
        together = learner.forward_tokens(query, support, mask, (4, 5), heads=3)
        for pair in range(3):
            one = slice(pair, pair + 1)
            alone = learner.forward_tokens(query[one], support[one], mask[one], (4, 5), heads=3)
            assert (together.presence[one] - alone.presence).abs().max() < 1e-5
            assert (together.segmentation[one] - alone.segmentation).abs().max() < 1e-5


def test_a_grid_of_another_size_is_refused():
    with pytest.raises(AssertionError, match=r"6 patches.*2×2"):
        Learner(4)(normal(1, 4, 6, 145), None, (2, 2))


def test_an_official_checkpoint_loads_with_its_prefixes(published):
    state = {f"learner.{name}": value for name, value in published.items()}
    state |= {"backbone.blocks.0.attn.qkv.weight": torch.zeros(3, 3), "backbone.cls_token": torch.zeros(1)}
    loaded, bare = learner_of(state, "best_model.ckpt"), learner_of(published, "best_model.ckpt")
    for name, value in bare.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learner.classifier.weight": torch.zeros(1)}, "x.ckpt.*classifier.weight"),
        ({"linear.0.weight": None}, r"x.ckpt.*trunk.0.weight.*\(128, 128, 1, 1\)"),
        ({"linear.0.weight": torch.zeros(2)}, r"trunk.0.weight.*\(2,\).*\(128, 128, 1, 1\)"),
        ({"corrtransformer.0.attn.qkv.weight": None}, "x.ckpt.*corrtransformer.0.attn.qkv.weight"),
        ({"corrtransformer.2.attn.qkv.weight": torch.zeros(1)}, "corrtransformer.2.attn.qkv.weight"),
        ({"linear.6.weight": torch.zeros(1)}, "x.ckpt.*trunk.6.weight"),
        ({"linear.0.weights": torch.zeros(1)}, "x.ckpt.*trunk.0.weights"),
    ],
)
def test_another_checkpoint_is_refused_by_name(published, change, message):
    state = {name: value for name, value in {**published, **change}.items() if value is not None}
    with pytest.raises(ConfigError, match=message):
        learner_of(state, "x.ckpt")


def test_a_lightning_file_is_read_with_its_learner(published, tmp_path):
    file = tmp_path / "best_model.ckpt"
    state = {f"learner.{name}": value for name, value in published.items()}
    torch.save({"epoch": 3, "state_dict": state | {"backbone.norm.weight": torch.ones(3)}}, file)
    read, _ = read_state(file)
    assert torch.equal(official_names(learner_of(read, str(file)))["linear.1.weight"], published["linear.1.weight"])
    assert list(read_checkpoint(file)[0]) == ["norm.weight"]
