"""A dataset of few pictures that has all an export can stumble over: names, sizes, holes, pieces, undecided pixels.

The masks are ground truth, so that they come out as they went in.
"""

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from builders.configs import make_config
from builders.small_labels import EXIF_ORIENTATION, MAPS, OPTIONS, SIX, MapsConfig, publish
from maskmill.manifests.datasets.layouts import TableSource
from maskmill.manifests.pictures.palette import encode_label_map
from maskmill.pipeline.running.run import run
from maskmill.stages.index.config import IndexConfig
from maskmill.stages.index.stage import STAGE as INDEX
from maskmill.stages.refine.config import RefineConfig
from maskmill.stages.refine.stage import STAGE as REFINE

CLASSES = ("sign.stop/left", "🐈\u200d⬛ cat", "a:b", "#hash", '<"&">')
# id → how its file is stored, and its split
PICTURES: Mapping[str, tuple[str, str]] = {
    "plain": ("jpg", "train"),
    "Plain": ("png", "train"),
    "cat/0.1": ("jpg", "val"),
    "🐈/é b": ("jpg", ""),
    "turned": ("jpg", "train"),
    "web": ("webp", "my split"),
    "nothing": ("png", "val"),
    "open": ("png", "train"),
    "crumbs": ("png", "train"),
}
TURNED, DROPPED, BROKEN = "turned", "dropped", "broken"
ANEW = ("turned", "web")  # what not every reader shows as it was labelled


def mask_of(identifier: str) -> np.ndarray:
    """Upright, of a size of its own."""
    number = list(PICTURES).index(identifier)
    label_HW = np.zeros((40 + number, 57), np.uint8)
    if identifier == "nothing":
        return label_HW
    if identifier == "open":
        label_HW[:, 20:] = 255
        return label_HW
    if identifier == "crumbs":
        drawn = np.random.default_rng(5).integers(0, 6, (24, 24))
        label_HW[10:34, 20:44] = np.where(drawn == 0, 255, drawn)
        return label_HW
    label_HW[3:20, 4:30] = 1  # with a hole, which holds another class and background
    label_HW[7:14, 8:20] = 0
    label_HW[9:12, 10:14] = 2
    label_HW[25:30, 5:9] = 1  # a second object
    label_HW[22:38, 30:50] = 3 + number % 3
    label_HW[22:38, 50:53] = 255
    label_HW[30:33, 35:40] = 255
    label_HW[39, 56] = 2  # a corner, and a piece of one pixel
    return label_HW


def write_pictures(root: Path) -> Path:
    """The pictures, with a table of them."""
    lines = ["path,labels,split,mask"]
    for number, (identifier, (extension, split)) in enumerate(PICTURES.items()):
        label_HW = mask_of(identifier)
        path = root / f"{identifier}.{extension}"
        path.parent.mkdir(parents=True, exist_ok=True)
        upright_HW3 = np.random.default_rng(number).integers(0, 256, (*label_HW.shape, 3), dtype=np.uint8)
        image, exif = Image.fromarray(upright_HW3), Image.Exif()
        if identifier == TURNED:
            image = image.transpose(Image.Transpose.ROTATE_90)
            exif[EXIF_ORIENTATION] = SIX
        image.save(path, exif=exif)
        (root / f"mask-{number}.png").write_bytes(encode_label_map(label_HW))
        names = [CLASSES[label - 1] for label in np.unique(label_HW) if 0 < label < 255]
        cell = "|".join(names).replace('"', '""')
        lines.append(f'{identifier}.{extension},"{cell}",{split},mask-{number}.png')
    Image.new("RGB", (30, 30)).save(root / f"{DROPPED}.png")
    (root / f"{BROKEN}.png").write_bytes(b"no picture")
    lines += [f'{DROPPED}.png,"{CLASSES[0]}",train,', f'{BROKEN}.png,"{CLASSES[0]}",train,']
    (root / "table.csv").write_text("\n".join(lines) + "\n")
    return root / "table.csv"


def make_dataset(home: Path) -> Path:
    """home/dataset, from home/pictures."""
    source = TableSource(file=str(write_pictures(home / "pictures")), classes=CLASSES)
    run(INDEX, IndexConfig(source=source), {}, str(home / "images"), OPTIONS)
    where = {"images": str(home / "images")}
    run(MAPS, MapsConfig(), where, str(home / "maps"), OPTIONS)
    run(REFINE, make_config(RefineConfig), {"maps": str(home / "maps"), **where}, str(home / "labels"), OPTIONS)
    publish(home, ground_truth=list(PICTURES), min_score="area>=1", licence="CC-BY-4.0", title="a | small set")
    return home / "dataset"


def pixels_of(identifier: str, home: Path) -> np.ndarray:
    """Of the picture, upright, as Pillow alone decodes it."""
    with Image.open(home / "pictures" / f"{identifier}.{PICTURES[identifier][0]}") as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def decoded(data: bytes) -> np.ndarray:
    """The indices of a PNG, by Pillow alone."""
    return np.asarray(Image.open(io.BytesIO(data)))


def stem_of(identifier: str) -> str:
    """The name that files of a picture have."""
    digest = hashlib.sha256(identifier.encode()).hexdigest()[:12]
    special = {"cat/0.1": f"cat-0-1-{digest}", "🐈/é b": f"--e--b-{digest}", "Plain": f"Plain-{digest}"}
    return special.get(identifier, identifier)
