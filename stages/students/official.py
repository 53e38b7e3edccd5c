"""The published learner's parameters under the names that they have here.

A checkpoint of the original training (Lightning) has them as `learner.corrtransformer.0…`, beside the `backbone.` that
was never trained, which is left out. The names of the learner alone are taken as well. `read_state` reads the file.
"""

import re
from collections.abc import Mapping

from torch import Tensor

from ...manifests.errors import ConfigError
from .learner import Learner

_BLOCKS = {"0": "first", "1": "second"}
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
_OTHERS = {
    "linear": "trunk",
    "decoder1_cls": "presence_patches",
    "decoder2_cls": "presence",
    "decoder1_seg": "segmentation_patches",
    "decoder2_seg": "segmentation",
}
_PREFIX, _FROZEN = "learner.", "backbone."
_CHANNELS = "first.query_key_value.weight"


def own_name(official: str) -> str | None:
    """`corrtransformer.1.ff.ff.0.weight` is `second.narrow.weight`; None for what is no name of the learner's."""
    module, _, kind = official.rpartition(".")
    if found := re.fullmatch(r"corrtransformer\.([01])\.(.+)", module):
        part = _OF_BLOCK.get(found[2])
        return None if part is None else f"{_BLOCKS[found[1]]}.{part}.{kind}"
    module, _, number = module.rpartition(".")
    return f"{_OTHERS[module]}.{number}.{kind}" if module in _OTHERS else None


def learner_of(state: Mapping[str, Tensor], where: str) -> Learner:
    """The published learner that a checkpoint holds, for as many channels as it was trained with."""
    named = {name.removeprefix(_PREFIX): tensor for name, tensor in state.items() if not name.startswith(_FROZEN)}
    own = {own_name(name): tensor for name, tensor in named.items()}
    unknown = [name for name in named if own_name(name) is None]
    if unknown or _CHANNELS not in own:
        held = f"holds {', '.join(unknown[:3])}" if unknown else "lacks corrtransformer.0.attn.qkv.weight"
        raise ConfigError(f"{where} {held}, so it is no checkpoint of CST's learner; give one that was trained as CST")
    learner = Learner(own[_CHANNELS].shape[1])
    expected = {name: tuple(tensor.shape) for name, tensor in learner.state_dict().items()}
    for name, shape in expected.items():
        if name not in own or tuple(own[name].shape) != shape:
            found = "is not there" if name not in own else f"is {tuple(own[name].shape)}"
            raise ConfigError(
                f"{where}: {name} {found} and should be {shape}; give a whole checkpoint of CST's learner"
            )
    foreign = sorted(str(name) for name in own.keys() - expected.keys())
    if foreign:
        raise ConfigError(f"{where} holds {', '.join(foreign[:3])}, which CST's learner does not have; give another")
    learner.load_state_dict({name: own[name] for name in expected})
    return learner


def official_state(learner: Learner) -> dict[str, Tensor]:
    """The parameters under the published names, which `learner_of` reads and so does the original."""
    return {official_name(name): value.detach().cpu().contiguous() for name, value in learner.state_dict().items()}


def official_name(own: str) -> str:
    """The other way: `second.narrow.weight` is `corrtransformer.1.ff.ff.0.weight`."""
    module, _, kind = own.rpartition(".")
    first, _, rest = module.partition(".")
    for number, block in _BLOCKS.items():
        if first == block:
            return f"corrtransformer.{number}.{next(name for name, part in _OF_BLOCK.items() if part == rest)}.{kind}"
    return f"{next(name for name, part in _OTHERS.items() if part == first)}.{rest}.{kind}"
