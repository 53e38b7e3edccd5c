"""Parameters of the refiners from the literature's code, each with the background rule of its authors.

Background scores that the authors swept: WeakTr .40 to .59 by .01, up to the first decrease; CLIP-ES .05 to .60 by .05,
or exponents 1 to 10; ToCo .5 in training, .25 and .7 for its labels.

Two details are not adopted. CLIP-ES subtracts a mean colour from the picture, which wraps around below 0. Sources that
refine a network's predictions leave out classes that it predicts nowhere; here the method decides which maps it writes.
"""

import math
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal, get_args

from ...manifests.artifact.values import nearest
from ...manifests.errors import ConfigError
from ..maps.background_rules import BackgroundRule, ConstantScore, OwnRow, PowerOfRest, TwoScores

Refiner = Literal["none", "crf", "par", "guided", "jbu"]
REFINERS: tuple[Refiner, ...] = get_args(Refiner)
SMOOTHERS: tuple[Refiner, ...] = ("par", "guided")
TORCH_REFINERS: tuple[Refiner, ...] = (*SMOOTHERS, "jbu")  # on any device
_FIRST_CRF = "irn"


@dataclass(frozen=True, slots=True, kw_only=True)
class CrfPreset:
    """Deviations are in pixels (sxy) and grey levels (srgb); compat is the weight of a kernel."""

    name: str
    aliases: tuple[str, ...] = ()
    unary: Literal["labels", "softmax"]  # pydensecrf's unary_from_labels or unary_from_softmax
    gt_prob: float = 0.7  # for labels: the probability that a label is right
    softens: bool = False  # for softmax: the scores are not probabilities, and go through a softmax first
    gaussian_sxy: float
    gaussian_compat: float
    bilateral_sxy: float
    bilateral_srgb: float
    bilateral_compat: float
    iterations: int = 10
    ignore_below: float | None = None  # a pixel becomes 255 if its best label is less probable at the end
    background: BackgroundRule
    source: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class ParPreset:
    name: str
    iterations: int = 10
    dilations: tuple[int, ...] = (1, 2, 4, 8, 12, 24)
    scale: int = 2  # factor by which picture and scores are shrunk while they are refined
    background: BackgroundRule
    source: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class GuidedPreset:
    radius: int  # pixels
    eps: float  # in squared colours: a far larger variance is an edge and is kept

    def __post_init__(self) -> None:
        if self.radius < 1 or not 0 < self.eps < math.inf:
            raise ConfigError(
                f"the preset of guided is {self}, expected a radius from 1 and an eps above 0, such as {MEASURED}"
            )

    def __str__(self) -> str:
        return f"{self.radius},{self.eps!r}"


@dataclass(frozen=True, slots=True)
class JointBilateralPreset:
    spatial: float  # deviation in patches
    range: float  # deviation of colours from 0 to 1
    radius: int = 0  # patches on every side of the nearest; 0: two deviations

    def __post_init__(self) -> None:
        if not (0 < self.spatial < math.inf and 0 < self.range < math.inf and self.radius >= 0):
            raise ConfigError(
                f"--preset is {self}, expected for jbu two deviations above 0 and, if you like, a radius from 1, such "
                f"as {MEASURED_JBU}"
            )
        if not self.radius:
            object.__setattr__(self, "radius", math.ceil(2 * self.spatial))

    def __str__(self) -> str:
        return f"{self.spatial!r},{self.range!r},{self.radius}"


Smoother = ParPreset | GuidedPreset
Preset = CrfPreset | Smoother | JointBilateralPreset


def _crf(
    name: str,
    unary: Literal["labels", "softmax"],
    gaussian: tuple[float, float],
    bilateral: tuple[float, float, float],
    background: BackgroundRule,
    **more: Any,
) -> CrfPreset:
    """A line of the table below: `gaussian` is (sxy, compat), `bilateral` (sxy, srgb, compat)."""
    return CrfPreset(
        name=name,
        unary=unary,
        gaussian_sxy=gaussian[0],
        gaussian_compat=gaussian[1],
        bilateral_sxy=bilateral[0],
        bilateral_srgb=bilateral[1],
        bilateral_compat=bilateral[2],
        background=background,
        **more,
    )


# fmt: off
PRESETS: tuple[CrfPreset, ...] = (
    # `crf_inference_label` in the utils/dcrf.py of each; they call it with background scores of their own.
    _crf("irn", "labels", (3.0, 3.0), (50.0, 5.0, 10.0), TwoScores(0.05, 0.3),
         aliases=("afa", "toco", "weclip", "weclip+", "dupl", "seco", "more", "excel"),
         source="irn, misc/imutils.py:156-166 and step/cam_to_ir_label.py:26-40"),
    _crf("psa", "softmax", (3.0, 3.0), (80.0, 13.0, 10.0), PowerOfRest(4.0),  # its low alpha; the high one is 32
         aliases=("mctformer-psa",), source="MCTformer, psa/tool/imutils.py:209-214; psa, infer_cls.py"),
    _crf("mctformer-seg", "softmax", (4.0, 3.0), (83.0, 5.0, 3.0), OwnRow(),
         source="MCTformer, seg/tool/imutils.py:12-19"),
    _crf("afa-seg", "softmax", (3.0, 3.0), (64.0, 5.0, 4.0), OwnRow(), aliases=("weclip-seg", "weclip+-seg"),
         source="afa, scripts/test_msc_flip.py:107-112; WeCLIP, test_msc_flip_voc.py"),
    _crf("toco-cam", "softmax", (3.0, 3.0), (36.0, 3.0, 4.0), TwoScores(0.25, 0.7), softens=True,
         source="ToCo, tools/infer_cam_crf_label.py:48-53 and what follows"),
    _crf("toco-seg", "softmax", (1.0, 1.0), (121.0, 5.0, 4.0), OwnRow(), aliases=("dupl-seg", "seco-seg"),
         source="ToCo, tools/infer_seg_voc.py:93; DuPL and SeCo, eval_seg_voc.py"),
    # CLIP-ES feeds scores that do not sum to 1; except for the clipping, that changes nothing.
    _crf("clip-es", "softmax", (1.0, 3.0), (67.0, 3.0, 4.0), PowerOfRest(1.0), ignore_below=0.95,
         source="CLIP-ES, eval_cam_with_crf.py:87 and 110-124"),
    _crf("more-lam", "softmax", (1.0, 3.0), (67.0, 3.0, 4.0), PowerOfRest(1.0),
         source="MoRe, tools/infer_lam.py:216"),
    _crf("weaktr-cam-voc", "labels", (4.0, 3.0), (83.0, 5.0, 3.0), ConstantScore(0.43),
         source="WeakTr, tool/imutils.py:4-38 and docs/Training.md:45"),
    _crf("weaktr-cam-coco", "labels", (3.0, 3.0), (50.0, 5.0, 10.0), ConstantScore(0.42),
         source="WeakTr, tool/imutils.py:4-38 and docs/Training.md:82"),
    _crf("weaktr-seg-voc", "softmax", (3.0, 3.0), (83.0, 5.0, 3.0), OwnRow(),
         source="WeakTr, segm/eval/densecrf.py:4-70"),
    # The scores of ViT-PCM and ExCEL include the background's.
    _crf("weaktr-seg-coco", "softmax", (1.0, 3.0), (67.0, 3.0, 4.0), OwnRow(), aliases=("vit-pcm", "excel-lam"),
         source="WeakTr, segm/eval/densecrf.py:4-70; ViT-PCM, configs/voc12.yaml:66-72; ExCEL, tools/infer_lam.py"),
)
# fmt: on

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

# A window of 31 pixels: the best of the radii 15, 31 and 60 on VOC's masks shrunk to 14×14 and 28×28 patches.
MEASURED = GuidedPreset(15, 1e-3)

# Of spatial 0.5 to 1.5 and range 0.1 to 0.3, all within 0.006 mIoU on 72 pictures of VOC, the best with the paper's
# window of 5 × 5.
MEASURED_JBU = JointBilateralPreset(1.0, 0.2)


def find_crf_preset(name: str) -> CrfPreset:
    """The preset of this name or alias."""
    key = name.strip().lower()
    if key not in _BY_NAME:
        near = get_close_matches(key, _BY_NAME, n=3, cutoff=0.4)
        choice = f"did you mean {' or '.join(near)}?" if near else f"choose one of {', '.join(sorted(_BY_NAME))}"
        raise ConfigError(f"unknown CRF preset {name!r}; {choice}")
    return _BY_NAME[key]


def find_par_preset(name: str) -> ParPreset:
    """The preset of this name; the first if the name is empty."""
    by_name = {preset.name: preset for preset in PAR_PRESETS}
    key = name.strip().lower() or PAR_PRESETS[0].name
    if key not in by_name:
        raise ConfigError(f"unknown PAR preset {name!r}; {nearest(name, by_name)}")
    return by_name[key]


def parse_guided(text: str) -> GuidedPreset:
    """The preset of a text RADIUS,EPS, such as `str` of a preset."""
    if not text.strip():
        return MEASURED
    radius, _, eps = text.partition(",")
    try:
        numbers = int(radius), float(eps)
    except ValueError as error:
        raise ConfigError(f"the preset of guided is {text!r}, expected RADIUS,EPS, such as {MEASURED}") from error
    return GuidedPreset(*numbers)


def parse_jbu(text: str) -> JointBilateralPreset:
    """The preset of a text SIGMA_SPATIAL,SIGMA_RANGE[,RADIUS], such as `str` of a preset."""
    if not text.strip():
        return MEASURED_JBU
    spatial, _, rest = text.partition(",")
    sigma_range, comma, radius = rest.partition(",")
    try:
        numbers = float(spatial), float(sigma_range), int(radius) if comma else 0
    except ValueError as error:
        raise ConfigError(
            f"--preset is {text!r}, expected for jbu SIGMA_SPATIAL,SIGMA_RANGE[,RADIUS], such as {MEASURED_JBU}"
        ) from error
    return JointBilateralPreset(*numbers)


def find_preset(refiner: Refiner, text: str) -> Preset | None:
    """The preset that the text names, or the refiner's default."""
    match refiner:
        case "none":
            return None
        case "crf":
            return find_crf_preset(text or _FIRST_CRF)
        case "par":
            return find_par_preset(text)
        case "guided":
            return parse_guided(text)
        case "jbu":
            return parse_jbu(text)


def preset_background(preset: Preset | None) -> BackgroundRule:
    """The background rule that the preset's authors use."""
    if preset is None or isinstance(preset, GuidedPreset | JointBilateralPreset):
        raise ConfigError("--background is preset, but this refiner has no rule of its own; name one, such as rows")
    return preset.background
