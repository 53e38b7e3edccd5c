"""VOC 2012 with the lists of Pascal-5i, so small that a learner is trained and judged on it in a test."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from maskmill.manifests.datasets.benchmark_classes import VOC_CLASSES

PICTURES = 3  # of each class, in each part


def write_voc(home: Path) -> None:
    """VOC2012 with masks in SegmentationClassAug, and splits/{trn,val}; a picture of each part shows two classes."""
    for folder in ("VOC2012/JPEGImages", "VOC2012/SegmentationClassAug", "splits/trn", "splits/val"):
        (home / folder).mkdir(parents=True)
    for part, year in (("trn", 2007), ("val", 2008)):
        lines: dict[int, list[str]] = {fold: [] for fold in range(4)}
        for label in range(1, len(VOC_CLASSES) + 1):
            for number in range(PICTURES):
                name = f"{year}_{label:02d}{number:04d}"
                shown = [label, label % 20 + 1] if number == 0 else [label]
                _write(home / "VOC2012", name, shown)
                for each in shown:
                    lines[(each - 1) // 5].append(f"{name}__{each:02d}")
        for fold, of_fold in lines.items():
            (home / f"splits/{part}/fold{fold}.txt").write_text("\n".join(of_fold) + "\n")


def _write(root: Path, name: str, shown: Sequence[int]) -> None:
    generator = np.random.default_rng(int(name[:4]) + int(name[5:]))
    label_HW = np.zeros((18 + shown[0] % 5, 20), np.uint8)
    label_HW[-1] = 255
    for place, label in enumerate(shown):
        label_HW[3:13, 2 + 9 * place : 9 + 9 * place] = label
    colour_HW3 = np.random.default_rng(0).integers(40, 200, (256, 3))[label_HW]
    noise_HW3 = generator.integers(0, 50, colour_HW3.shape)
    Image.fromarray((colour_HW3 + noise_HW3).astype(np.uint8)).save(root / f"JPEGImages/{name}.jpg", quality=95)
    Image.fromarray(label_HW).save(root / f"SegmentationClassAug/{name}.png")


def settings(home: Path, work: str) -> Mapping[str, str]:
    """What the script of the reproduction is told of it, in the environment."""
    return {
        "VOC": str(home / "VOC2012"),
        "FOLDS": str(home / "splits"),
        "WORK": work,
        "BACKBONE": "test_vit.r160_in1k",
        "WEIGHTS": "random:0",
        "SIZE": "64",
        "STEPS": "2",
        "EPISODES": "6",
        "DEVICE": "cpu",
    }
