"""The parameters of the published learner, renamed to this project's names and back.

A checkpoint of the original training (Lightning) calls them `learner.corrtransformer.0…`; the prefix is optional. Its
`backbone.` was never trained and is left out. `read_state` reads the file.
"""

from collections.abc import Mapping

from torch import Tensor

from ...manifests.errors import ConfigError
from .learner import Learner

_OF_BLOCK = {
    "attn.short_cut.0": "shortcut",
    "attn.short_cut.2": "shortcut_norm",
    "attn.qkv": "query_key_value",
    "attn.agg.0": "attended_norm",
    "attn.agg.2": "projection",
    "attn.agg.3": "projection_norm",
    "attn.out_norm": "joined_norm",
    "ff.ff.0": "narrow",
    "ff.ff.1": "narrow_norm",
    "ff.ff.3": "wide",
    "ff.out_norm": "norm",
}
_OWN_NAMES = {
    **{
        f"corrtransformer.{number}.{theirs}": f"{block}.{ours}"
        for number, block in enumerate(("first", "second"))
        for theirs, ours in _OF_BLOCK.items()
    },
    "linear": "trunk",
    "decoder1_cls": "presence_patches",
    "decoder2_cls": "presence",
    "decoder1_seg": "segmentation_patches",
    "decoder2_seg": "segmentation",
}
_PREFIX, _FROZEN = "learner.", "backbone."
_CHANNELS = "first.query_key_value.weight"


def own_name(official: str) -> str | None:
    """`corrtransformer.1.ff.ff.0.weight` is `second.narrow.weight`; None if the learner has no such parameter."""
    return _rename(official, _OWN_NAMES)


def official_name(own: str) -> str:
    """The other way: `second.narrow.weight` is `corrtransformer.1.ff.ff.0.weight`."""
    official = _rename(own, {ours: theirs for theirs, ours in _OWN_NAMES.items()})
    assert official is not None, own
    return official


def _rename(name: str, modules: Mapping[str, str]) -> str | None:
    return next((new + name[len(old) :] for old, new in modules.items() if name.startswith(f"{old}.")), None)


def learner_of(state: Mapping[str, Tensor], where: str) -> Learner:
    """The published learner in a checkpoint, with the number of channels that it was trained with."""
    named = {name.removeprefix(_PREFIX): tensor for name, tensor in state.items() if not name.startswith(_FROZEN)}
    own = {own_name(name): tensor for name, tensor in named.items()}
    unknown = [name for name in named if own_name(name) is None]
    if unknown or _CHANNELS not in own:
        why = f"holds {', '.join(unknown[:3])}" if unknown else "lacks corrtransformer.0.attn.qkv.weight"
        raise ConfigError(f"{where} is not a checkpoint of CST's learner: it {why}; give one that was trained as CST")
    learner = Learner(own[_CHANNELS].shape[1])
    expected = {name: tuple(tensor.shape) for name, tensor in learner.state_dict().items()}
    for name, shape in expected.items():
        if name not in own or tuple(own[name].shape) != shape:
            actual = "nothing" if name not in own else f"{tuple(own[name].shape)}"
            raise ConfigError(
                f"{where} does not fit CST's learner: {name} has shape {actual}, expected {shape}; give a whole "
                "checkpoint"
            )
    foreign = sorted(str(name) for name in own.keys() - expected.keys())
    if foreign:
        raise ConfigError(f"{where} holds {', '.join(foreign[:3])}, which CST's learner does not have; give another")
    learner.load_state_dict({name: own[name] for name in expected})
    return learner


def official_state(learner: Learner) -> dict[str, Tensor]:
    """The parameters under the published names, as `learner_of` and the original read them."""
    return {official_name(name): value.detach().cpu().contiguous() for name, value in learner.state_dict().items()}
