"""Draws the picture at the top of the README out of what `maskmill demo` made: scenes whose masks nothing has seen,
each through the layers that the report shows. The scenes are the first of those that the dataset keeps and that show
most classes, whatever came out of them.

Run: `maskmill demo --out DIR`, then
`.venv/bin/python tests/benchmarks/demo_picture.py DIR/maskmill-work tests/benchmarks/demo.png`
"""

import base64
import sys
from io import BytesIO
from itertools import islice
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from maskmill.manifests.artifact.checkpoints import training_ids
from maskmill.pipeline.report.figures import figures
from maskmill.pipeline.report.layers import HEAD, TRUTH, Layers

SCENES, SIDE_PX, GAP_PX, TITLE_PX = 6, 150, 6, 24
COLUMNS = {"": "picture", "heat0": "mask", "heat1": "enhance", HEAD: "published", TRUTH: "truth"}


def layer(url: str) -> Image.Image:
    with Image.open(BytesIO(base64.b64decode(url.partition(",")[2]))) as image:
        return image.convert("RGBA").resize((SIDE_PX, SIDE_PX), Image.Resampling.BICUBIC)


def drawn(work: str) -> Image.Image:
    found = figures([work], 400)
    assert found.head is not None
    assert found.sample is not None
    artifacts = [step.artifact for step in found.steps if step.artifact is not None]
    seen = set[str]().union(*(training_ids(each, "masks") for each in artifacts if each.plan.kind == "checkpoint"))
    rows = [row for row in found.sample.rows if row.id not in seen and row.status == "kept"]
    rows = sorted(rows, key=lambda row: (-len(row.classes), row.id))
    layers = Layers(found.head, artifacts, rows, "")
    shown = list(islice(map(layers.of, rows), SCENES))
    step_px = SIDE_PX + GAP_PX
    page = Image.new("RGB", (TITLE_PX * 4 + step_px * SCENES, step_px * len(COLUMNS)), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(17)
    for line, (key, name) in enumerate(COLUMNS.items()):
        pen.text((4, line * step_px + SIDE_PX // 2), name, fill="black", font=font, anchor="lm")
        for place, each in enumerate(shown):
            image = layer(each.picture)
            if key:
                grey = Image.blend(image.convert("L").convert("RGBA"), Image.new("RGBA", image.size, "black"), 0.35)
                image = Image.alpha_composite(grey, layer(each.layers[key]))
            page.paste(image.convert("RGB"), (TITLE_PX * 4 + place * step_px, line * step_px))
    return page


if __name__ == "__main__":
    drawn(sys.argv[1]).quantize(200, dither=Image.Dither.NONE).save(Path(sys.argv[2]), optimize=True)
