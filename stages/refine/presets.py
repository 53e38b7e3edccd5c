"""Dense CRF parameters as the literature's code has them, each with the background rule that its authors put before it.

How the background scores were found there, for who sweeps them: WeakTr .40 to .59 by .01, up to the first decrease;
CLIP-ES .05 to .60 by .05, or exponents 1 to 10; ToCo .5 in training, .25 and .7 for its labels.

Not taken over: CLIP-ES subtracts a mean colour from the picture, which wraps around below 0; the sources that refine
a network's predictions leave out classes which it nowhere predicts, here a method decides which maps it writes.
"""

import math
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal, get_args

from ...manifests.errors import ConfigError
from ..maps.background_rules import BackgroundRule, ConstantScore, OwnRow, PowerOfRest, TwoScores

Refiner = Literal["none", "crf", "par", "guided"]
REFINERS: tuple[Refiner, ...] = get_args(Refiner)
SMOOTHERS: tuple[Refiner, ...] = ("par", "guided")  # which torch computes, on a GPU if wanted
_FIRST_CRF = "irn"


@dataclass(frozen=True, slots=True, kw_only=True)
class CrfPreset:
    """Deviations are in pixels (sxy) and grey levels (srgb); compat is the weight of a kernel."""

    name: str
    aliases: tuple[str, ...] = ()
    unary: Literal["labels", "softmax"]  # pydensecrf's unary_from_labels or unary_from_softmax
    gt_prob: float = 0.7  # of labels: the probability that a label is right
    softens: bool = False  # of softmax: the scores are no probabilities, and go through a softmax first
    gaussian_sxy: float
    gaussian_compat: float
    bilateral_sxy: float
    bilateral_srgb: float
    bilateral_compat: float
    iterations: int = 10
    ignore_below: float | None = None  # 255 where no label is as probable as this after the last iteration
    background: BackgroundRule
    source: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class ParPreset:
    name: str
    iterations: int = 10
    dilations: tuple[int, ...] = (1, 2, 4, 8, 12, 24)
    scale: int = 2  # how many times smaller picture and scores are while they are refined
    background: BackgroundRule
    source: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class GuidedPreset:
    radius: int  # pixels
    eps: float  # of squared colours: a variance far above it is an edge and is kept

    def __post_init__(self) -> None:
        if self.radius < 1 or not 0 < self.eps < math.inf:
            raise ConfigError(
                f"the guided filter is given {self}, and needs a radius from 1 and an eps above 0, as in {MEASURED}"
            )

    def __str__(self) -> str:
        return f"{self.radius},{self.eps!r}"


Smoother = ParPreset | GuidedPreset
Preset = CrfPreset | Smoother


def _crf(gaussian: tuple[float, float], bilateral: tuple[float, float, float], **more: Any) -> CrfPreset:
    """`gaussian` is (sxy, compat), `bilateral` (sxy, srgb, compat)."""
    return CrfPreset(
        gaussian_sxy=gaussian[0],
        gaussian_compat=gaussian[1],
        bilateral_sxy=bilateral[0],
        bilateral_srgb=bilateral[1],
        bilateral_compat=bilateral[2],
        **more,
    )


PRESETS: tuple[CrfPreset, ...] = (
    _crf(
        name="irn",
        # `crf_inference_label` in each one's utils/dcrf.py; they call it with background scores of their own.
        aliases=("afa", "toco", "weclip", "weclip+", "dupl", "seco", "more", "excel"),
        unary="labels",
        gaussian=(3.0, 3.0),
        bilateral=(50.0, 5.0, 10.0),
        background=TwoScores(0.05, 0.3),
        source="irn, misc/imutils.py:156-166 and step/cam_to_ir_label.py:26-40",
    ),
    _crf(
        name="psa",
        aliases=("mctformer-psa",),
        unary="softmax",
        gaussian=(3.0, 3.0),
        bilateral=(80.0, 13.0, 10.0),
        background=PowerOfRest(4.0),  # its low alpha; the high one is 32
        source="MCTformer, psa/tool/imutils.py:209-214; psa, infer_cls.py",
    ),
    _crf(
        name="mctformer-seg",
        unary="softmax",
        gaussian=(4.0, 3.0),
        bilateral=(83.0, 5.0, 3.0),
        background=OwnRow(),
        source="MCTformer, seg/tool/imutils.py:12-19",
    ),
    _crf(
        name="afa-seg",
        aliases=("weclip-seg", "weclip+-seg"),
        unary="softmax",
        gaussian=(3.0, 3.0),
        bilateral=(64.0, 5.0, 4.0),
        background=OwnRow(),
        source="afa, scripts/test_msc_flip.py:107-112; WeCLIP, test_msc_flip_voc.py",
    ),
    _crf(
        name="toco-cam",
        unary="softmax",
        softens=True,
        gaussian=(3.0, 3.0),
        bilateral=(36.0, 3.0, 4.0),
        background=TwoScores(0.25, 0.7),
        source="ToCo, tools/infer_cam_crf_label.py:48-53 and what follows",
    ),
    _crf(
        name="toco-seg",
        aliases=("dupl-seg", "seco-seg"),
        unary="softmax",
        gaussian=(1.0, 1.0),
        bilateral=(121.0, 5.0, 4.0),
        background=OwnRow(),
        source="ToCo, tools/infer_seg_voc.py:93; DuPL and SeCo, eval_seg_voc.py",
    ),
    _crf(
        name="clip-es",
        unary="softmax",  # of scores that do not sum to 1, as it feeds them; but for the clipping that changes nothing
        gaussian=(1.0, 3.0),
        bilateral=(67.0, 3.0, 4.0),
        ignore_below=0.95,
        background=PowerOfRest(1.0),
        source="CLIP-ES, eval_cam_with_crf.py:87 and 110-124",
    ),
    _crf(
        name="more-lam",
        unary="softmax",
        gaussian=(1.0, 3.0),
        bilateral=(67.0, 3.0, 4.0),
        background=PowerOfRest(1.0),
        source="MoRe, tools/infer_lam.py:216",
    ),
    _crf(
        name="weaktr-cam-voc",
        unary="labels",
        gaussian=(4.0, 3.0),
        bilateral=(83.0, 5.0, 3.0),
        background=ConstantScore(0.43),
        source="WeakTr, tool/imutils.py:4-38 and docs/Training.md:45",
    ),
    _crf(
        name="weaktr-cam-coco",
        unary="labels",
        gaussian=(3.0, 3.0),
        bilateral=(50.0, 5.0, 10.0),
        background=ConstantScore(0.42),
        source="WeakTr, tool/imutils.py:4-38 and docs/Training.md:82",
    ),
    _crf(
        name="weaktr-seg-voc",
        unary="softmax",
        gaussian=(3.0, 3.0),
        bilateral=(83.0, 5.0, 3.0),
        background=OwnRow(),
        source="WeakTr, segm/eval/densecrf.py:4-70",
    ),
    _crf(
        name="weaktr-seg-coco",
        aliases=("vit-pcm", "excel-lam"),  # whose scores include the background's too
        unary="softmax",
        gaussian=(1.0, 3.0),
        bilateral=(67.0, 3.0, 4.0),
        background=OwnRow(),
        source="WeakTr, segm/eval/densecrf.py:4-70; ViT-PCM, configs/voc12.yaml:66-72; ExCEL, tools/infer_lam.py",
    ),
)

_BY_NAME = {name: preset for preset in PRESETS for name in (preset.name, *preset.aliases)}


PAR_PRESETS = (
    ParPreset(name="toco", background=TwoScores(0.25, 0.7), source="ToCo, scripts/dist_train_voc_seg_neg.py"),
    ParPreset(name="afa", background=TwoScores(0.35, 0.55), source="AFA, scripts/dist_train_voc.py and its config"),
    ParPreset(
        name="afa-coco",
        iterations=15,
        background=TwoScores(0.35, 0.55),
        source="AFA, scripts/dist_train_coco.py and its config",
    ),
)


# A window of 31 pixels: of the radii 15, 31, 60 the best on VOC's masks that were shrunk to 14×14 and 28×28 patches.
MEASURED = GuidedPreset(15, 1e-3)


def find_crf_preset(name: str) -> CrfPreset:
    """The preset of this name or alias."""
    preset = _BY_NAME.get(name.strip().lower())
    if preset is None:
        near = get_close_matches(name.strip().lower(), _BY_NAME, n=3, cutoff=0.4)
        choice = f"did you mean {' or '.join(near)}" if near else f"choose one of {', '.join(sorted(_BY_NAME))}"
        raise ConfigError(f"there is no CRF preset called {name!r}; {choice}")
    return preset


def find_par_preset(name: str) -> ParPreset:
    """The preset of this name; the first where none is named."""
    by_name = {preset.name: preset for preset in PAR_PRESETS}
    found = by_name.get(name.strip().lower() or PAR_PRESETS[0].name)
    if found is None:
        near = get_close_matches(name, by_name, n=1)
        choice = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(by_name)}"
        raise ConfigError(f"there is no PAR preset called {name!r}; {choice}")
    return found


def parse_guided(text: str) -> GuidedPreset:
    """What a user wrote as RADIUS,EPS; `str` of a preset is such a text."""
    if not text.strip():
        return MEASURED
    radius, _, eps = text.partition(",")
    try:
        return GuidedPreset(int(radius), float(eps))
    except ValueError as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(
            f"the preset of the guided filter is {text!r} and must be RADIUS,EPS, such as {MEASURED}"
        ) from error


def find_preset(refiner: Refiner, text: str) -> Preset | None:
    """The preset that a user named, or the refiner's first; raises ConfigError for what cannot work."""
    match refiner:
        case "none":
            return None
        case "crf":
            return find_crf_preset(text or _FIRST_CRF)
        case "par":
            return find_par_preset(text)
        case "guided":
            return parse_guided(text)


def preset_background(preset: Preset | None) -> BackgroundRule:
    """The background rule that the preset's authors use."""
    if preset is None or isinstance(preset, GuidedPreset):
        raise ConfigError("--background is preset, and none belongs to this refiner; name a rule, such as rows")
    return preset.background
