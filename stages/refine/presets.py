"""Dense CRF parameters as the literature's code has them, each with the background rule that its authors put before it.

How the background scores were found there, for who sweeps them: WeakTr .40 to .59 by .01, up to the first decrease;
CLIP-ES .05 to .60 by .05, or exponents 1 to 10; ToCo .5 in training, .25 and .7 for its labels.

Not taken over: CLIP-ES subtracts a mean colour from the picture, which wraps around below 0; the sources that refine
a network's predictions leave out classes which it nowhere predicts, here a method decides which maps it writes.
"""

from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

from ...manifests.errors import ConfigError
from ..maps.backgrounds import Background, ConstantScore, OwnRow, PowerOfRest, TwoScores


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
    background: Background
    source: str


PRESETS: tuple[CrfPreset, ...] = (
    CrfPreset(
        name="irn",
        # `crf_inference_label` in each one's utils/dcrf.py; they call it with background scores of their own.
        aliases=("afa", "toco", "weclip", "weclip+", "dupl", "seco", "more", "excel"),
        unary="labels",
        gaussian_sxy=3.0,
        gaussian_compat=3.0,
        bilateral_sxy=50.0,
        bilateral_srgb=5.0,
        bilateral_compat=10.0,
        background=TwoScores(0.05, 0.3),
        source="irn, misc/imutils.py:156-166 and step/cam_to_ir_label.py:26-40",
    ),
    CrfPreset(
        name="psa",
        aliases=("mctformer-psa",),
        unary="softmax",
        gaussian_sxy=3.0,
        gaussian_compat=3.0,
        bilateral_sxy=80.0,
        bilateral_srgb=13.0,
        bilateral_compat=10.0,
        background=PowerOfRest(4.0),  # its low alpha; the high one is 32
        source="MCTformer, psa/tool/imutils.py:209-214; psa, infer_cls.py",
    ),
    CrfPreset(
        name="mctformer-seg",
        unary="softmax",
        gaussian_sxy=4.0,
        gaussian_compat=3.0,
        bilateral_sxy=83.0,
        bilateral_srgb=5.0,
        bilateral_compat=3.0,
        background=OwnRow(),
        source="MCTformer, seg/tool/imutils.py:12-19",
    ),
    CrfPreset(
        name="afa-seg",
        aliases=("weclip-seg", "weclip+-seg"),
        unary="softmax",
        gaussian_sxy=3.0,
        gaussian_compat=3.0,
        bilateral_sxy=64.0,
        bilateral_srgb=5.0,
        bilateral_compat=4.0,
        background=OwnRow(),
        source="afa, scripts/test_msc_flip.py:107-112; WeCLIP, test_msc_flip_voc.py",
    ),
    CrfPreset(
        name="toco-cam",
        unary="softmax",
        softens=True,
        gaussian_sxy=3.0,
        gaussian_compat=3.0,
        bilateral_sxy=36.0,
        bilateral_srgb=3.0,
        bilateral_compat=4.0,
        background=TwoScores(0.25, 0.7),
        source="ToCo, tools/infer_cam_crf_label.py:48-53 and what follows",
    ),
    CrfPreset(
        name="toco-seg",
        aliases=("dupl-seg", "seco-seg"),
        unary="softmax",
        gaussian_sxy=1.0,
        gaussian_compat=1.0,
        bilateral_sxy=121.0,
        bilateral_srgb=5.0,
        bilateral_compat=4.0,
        background=OwnRow(),
        source="ToCo, tools/infer_seg_voc.py:93; DuPL and SeCo, eval_seg_voc.py",
    ),
    CrfPreset(
        name="clip-es",
        unary="softmax",  # of scores that do not sum to 1, as it feeds them; but for the clipping that changes nothing
        gaussian_sxy=1.0,
        gaussian_compat=3.0,
        bilateral_sxy=67.0,
        bilateral_srgb=3.0,
        bilateral_compat=4.0,
        ignore_below=0.95,
        background=PowerOfRest(1.0),
        source="CLIP-ES, eval_cam_with_crf.py:87 and 110-124",
    ),
    CrfPreset(
        name="more-lam",
        unary="softmax",
        gaussian_sxy=1.0,
        gaussian_compat=3.0,
        bilateral_sxy=67.0,
        bilateral_srgb=3.0,
        bilateral_compat=4.0,
        background=PowerOfRest(1.0),
        source="MoRe, tools/infer_lam.py:216",
    ),
    CrfPreset(
        name="weaktr-cam-voc",
        unary="labels",
        gaussian_sxy=4.0,
        gaussian_compat=3.0,
        bilateral_sxy=83.0,
        bilateral_srgb=5.0,
        bilateral_compat=3.0,
        background=ConstantScore(0.43),
        source="WeakTr, tool/imutils.py:4-38 and docs/Training.md:45",
    ),
    CrfPreset(
        name="weaktr-cam-coco",
        unary="labels",
        gaussian_sxy=3.0,
        gaussian_compat=3.0,
        bilateral_sxy=50.0,
        bilateral_srgb=5.0,
        bilateral_compat=10.0,
        background=ConstantScore(0.42),
        source="WeakTr, tool/imutils.py:4-38 and docs/Training.md:82",
    ),
    CrfPreset(
        name="weaktr-seg-voc",
        unary="softmax",
        gaussian_sxy=3.0,
        gaussian_compat=3.0,
        bilateral_sxy=83.0,
        bilateral_srgb=5.0,
        bilateral_compat=3.0,
        background=OwnRow(),
        source="WeakTr, segm/eval/densecrf.py:4-70",
    ),
    CrfPreset(
        name="weaktr-seg-coco",
        aliases=("vit-pcm", "excel-lam"),  # whose scores include the background's too
        unary="softmax",
        gaussian_sxy=1.0,
        gaussian_compat=3.0,
        bilateral_sxy=67.0,
        bilateral_srgb=3.0,
        bilateral_compat=4.0,
        background=OwnRow(),
        source="WeakTr, segm/eval/densecrf.py:4-70; ViT-PCM, configs/voc12.yaml:66-72; ExCEL, tools/infer_lam.py",
    ),
)

_BY_NAME = {name: preset for preset in PRESETS for name in (preset.name, *preset.aliases)}


def find_preset(name: str) -> CrfPreset:
    """The preset of this name or alias."""
    preset = _BY_NAME.get(name.strip().lower())
    if preset is None:
        near = get_close_matches(name.strip().lower(), _BY_NAME, n=3, cutoff=0.4)
        choice = f"did you mean {' or '.join(near)}" if near else f"choose one of {', '.join(sorted(_BY_NAME))}"
        raise ConfigError(f"there is no CRF preset called {name!r}; {choice}")
    return preset
