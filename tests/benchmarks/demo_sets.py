"""The demo's recipe on three small sets of real pictures: what each of its steps gained, as the demo says it.

Run: `MASKMILL_REFERENCE=… PYTHONPATH=tests .venv/bin/python tests/benchmarks/demo_sets.py WORK`
What WORK holds already is not made again.
"""

import json
import os
import re
import sys
from contextlib import redirect_stdout
from pathlib import Path

from maskmill.cli.main import main as maskmill
from maskmill.manifests.files.place import place
from maskmill.pipeline.recipes import read_shipped_recipe
from maskmill.pipeline.recipes.demo import JUDGED, artifacts, gains

REFERENCE = Path(os.environ["MASKMILL_REFERENCE"]) / "data"
CALTECH, VOC, COCO = (REFERENCE / name for name in ("caltech-outlines", "voc-mini", "coco-mini"))
SETS = {
    CALTECH.name: {"layout": "folder", "root": CALTECH / "images", "masks": CALTECH / "masks"},
    VOC.name: {"layout": "voc", "root": VOC, "split": "train", "masks": "SegmentationClass", "labels_from": "masks"},
    COCO.name: {"layout": "coco", "images": COCO / "images", "annotations": COCO / "annotations/instances.json"},
}


def recipe_of(name: str) -> str:
    table = "\n".join(f"{key} = {json.dumps(str(value))}" for key, value in SETS[name].items())
    return re.sub(
        r"\[index\].*?(?=\n\[)", lambda _: f"[index]\n{table}\n", read_shipped_recipe("demo").decode(), flags=re.S
    )


def run(*arguments: str) -> None:
    with redirect_stdout(sys.stderr):
        code = maskmill(list(arguments))
    if code not in (0, 6):
        sys.exit(code)


def main(work: Path) -> None:
    print("| set | step | pictures | mIoU (95 %) |\n|---|---|---|---|")
    for name in SETS:
        home = work / name
        home.mkdir(parents=True, exist_ok=True)
        (home / "demo.toml").write_text(recipe_of(name))
        run("run", str(home / "demo.toml"))
        made = artifacts(str(home / "demo.toml"), place(str(home / "maskmill-work")))
        for step in JUDGED:
            out = str(home / "maskmill-work" / f"worth-{step}")
            run("evaluate", "masks", made[step], "--resamples", "200", "--out", out)
        for each in gains(place(str(home))):
            print(f"| {name} | {each.what} | {each.pictures} | {each.miou:.3f} ({each.low:.3f}–{each.high:.3f}) |")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
