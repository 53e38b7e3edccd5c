"""What supervision and the test-time mask of supports are worth to CST's learner, on two small sets of real pictures.

Run: `MASKMILL_REFERENCE=… PYTHONPATH=tests .venv/bin/python tests/benchmarks/few_shot_worth.py WORK` with the options
below. What WORK holds already is not made again, so a study that was stopped goes on, and more seeds are added to it.

coco-mini    the 40 classes with 10 pictures or more, every fourth of them in one of four folds; for a fold the pictures
             are learned from that show none of its classes, and the classes that two of those show
mosaics      two outlined Caltech pictures side by side, of the four classes of one fold, so that a query shows one
             class or two, and of those that are asked for none, one or both
"""

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from maskmill.cli.main import main as maskmill
from maskmill.manifests.artifact.artifact import open_artifact
from maskmill.manifests.artifact.checkpoints import training_ids

REFERENCE = Path(os.environ["MASKMILL_REFERENCE"]) / "data"
FOLDS, LEAST = 4, 10
BUDGETS: Mapping[str, Sequence[str]] = {
    "1 a class": ("--gt-per-class", "1"),
    "5 a class": ("--gt-per-class", "5"),
    "10 %": ("--gt-fraction", "0.1"),
}
SUPPORTS = ("pseudo", "enhanced", "gt")
OWN = "5 a class"  # whose enhancer makes the supports' masks of learners that have none of their own
FEW, PLAIN = "the few masks alone", "mixed without enhancer"
SUPERVISIONS = (
    *(("pseudo", ""), ("published", ""), ("mask", "")),
    *((kind, budget) for budget in BUDGETS for kind in ("mixed", PLAIN, FEW)),
)


@dataclass(frozen=True, slots=True)
class Study:
    home: Path  # of one set
    name: str
    extract: Sequence[str]
    train: Sequence[str]
    episodes: int
    supports: Sequence[str]
    folds: Sequence[Sequence[str]]  # the classes that each judges
    learned: Sequence[Sequence[str]]  # and those that are learned for it

    def of_fold(self, fold: int) -> Path:
        return self.home / f"fold{fold}"

    def images(self, fold: int) -> Path:
        """What is known of the pictures to those that learn."""
        return (self.home if self.name == "mosaics" else self.of_fold(fold)) / "images"

    def base(self, fold: int) -> str:
        return ",".join(self.learned[fold])


def command(*arguments: object) -> None:
    """What commands say goes to standard error, so that standard output has the tables alone."""
    with redirect_stdout(sys.stderr):
        code = maskmill([str(argument) for argument in arguments])
    if code not in (0, 6):
        sys.exit(code)


# ---------------------------------------------------------------------------------------------------- the two sets


def coco_folds() -> tuple[list[list[str]], dict[str, Any]]:
    held: dict[str, Any] = json.loads((REFERENCE / "coco-mini/annotations/instances.json").read_text())
    names = {each["id"]: each["name"] for each in held["categories"]}
    shown = {(each["image_id"], each["category_id"]) for each in held["annotations"]}
    counts = Counter(category for _, category in shown)
    kept = [names[each["id"]] for each in held["categories"] if counts[each["id"]] >= LEAST]
    return [kept[fold::FOLDS] for fold in range(FOLDS)], held


def without_base(held: Mapping[str, Any], judged: Sequence[str]) -> dict[str, Any]:
    """Of pictures that show a class judged, no other class is known: none of them is learned from."""
    novel = {each["id"] for each in held["categories"] if each["name"] in judged}
    shows = {each["image_id"] for each in held["annotations"] if each["category_id"] in novel}
    kept = [each for each in held["annotations"] if each["image_id"] not in shows or each["category_id"] in novel]
    return {**held, "annotations": kept}


def learned_classes(held: Mapping[str, Any], folds: Sequence[Sequence[str]], fold: int) -> list[str]:
    """Of the other folds, those that two pictures to learn from show: where person is judged, most pictures show it."""
    names = {each["id"]: each["name"] for each in held["categories"]}
    known = without_base(held, folds[fold])["annotations"]
    counts = Counter(names[category] for _, category in {(each["image_id"], each["category_id"]) for each in known})
    return [name for other in range(FOLDS) if other != fold for name in folds[other] if counts[name] >= 2]


def made_coco(study: Study, held: Mapping[str, Any]) -> None:
    pictures = REFERENCE / "coco-mini/images"
    annotations = REFERENCE / "coco-mini/annotations/instances.json"
    command("index", "coco", pictures, annotations, "--out", study.home / "images")
    for fold, judged in enumerate(study.folds):
        listed = study.of_fold(fold) / "instances.json"
        listed.parent.mkdir(parents=True, exist_ok=True)
        listed.write_text(json.dumps(without_base(held, judged)))
        command("index", "coco", pictures, listed, "--out", study.of_fold(fold) / "images")


def made_mosaics(study: Study, side: int) -> None:
    """The pictures of a fold's classes in an order of their own, two by two, each half as wide as it is high."""
    folder, lines = study.home / "pictures", ["path,labels,mask"]
    classes = [name for names in study.folds for name in names]
    folder.mkdir(parents=True, exist_ok=True)
    for fold, names in enumerate(study.folds):
        own = [path for name in names for path in sorted((REFERENCE / "caltech-outlines/images" / name).iterdir())]
        order = np.random.default_rng(fold).permutation(len(own)).tolist()
        for number in range(0, len(own) - 1, 2):
            name, halves = f"{fold}-{number // 2:03d}", [own[order[number]], own[order[number + 1]]]
            picture, label = mosaic(halves, classes, side)
            picture.save(folder / f"{name}.png")
            label.save(folder / f"{name}-mask.png")
            lines.append(f"{name}.png,{'|'.join(sorted({each.parent.name for each in halves}))},{name}-mask.png")
    (folder / "table.csv").write_text("\n".join(lines) + "\n")
    command("index", "table", folder / "table.csv", "--classes", ",".join(classes), "--out", study.home / "images")


def mosaic(halves: Sequence[Path], classes: Sequence[str], side: int) -> tuple[Image.Image, Image.Image]:
    picture, label_HW = Image.new("RGB", (side, side)), np.zeros((side, side), np.uint8)
    size = (side // 2, side)
    for place, path in enumerate(halves):
        outlined = REFERENCE / "caltech-outlines/masks" / path.parent.name / f"{path.stem}.png"
        with Image.open(path) as half, Image.open(outlined) as outline:
            picture.paste(half.convert("RGB").resize(size, Image.Resampling.BILINEAR), (place * size[0], 0))
            object_HW = np.asarray(outline.convert("L").resize(size, Image.Resampling.NEAREST)) > 0
        label_HW[:, place * size[0] : (place + 1) * size[0]] = object_HW * (classes.index(path.parent.name) + 1)
    return picture, Image.fromarray(label_HW)


# ------------------------------------------------------------------------------------------- masks, and learners


def make_labels(study: Study) -> None:
    """Tokens of all pictures, once; of each fold the heads' maps, and label maps of them."""
    fields = "tokens:all,support_tokens:all,keys,cls_query"
    command(
        "extract", study.home / "images", *study.extract, "--fit", "squash", "--fields", fields, "--out",
        study.home / "tokens",
    )  # fmt: skip
    for fold in range(FOLDS):
        home = study.of_fold(fold)
        made = ["--images", study.images(fold), "--out", home / "maps"]
        command("mask", study.home / "tokens", "--supports", "8", "--per-head", *made)
        publish(study, fold, home / "maps", "plain")


def publish(study: Study, fold: int, maps: Path, name: str, *more: object) -> None:
    home, images = study.of_fold(fold), ["--images", study.images(fold)]
    command("refine", maps, *images, "--out", home / f"labels-{name}")
    command("manifest", home / f"labels-{name}", *images, *more, "--out", home / f"dataset-{name}")


def make_budget(study: Study, fold: int, budget: str, seed: int) -> str:
    """A few masks of the classes learned: an enhancer, and datasets that hold those masks; what they are called."""
    home, name = study.of_fold(fold), f"{budget.replace(' ', '-')}-{seed}"
    asked = [*BUDGETS[budget], "--classes", study.base(fold), "--seed", seed, "--images", study.images(fold)]
    enhancer = home / f"enhancer-{name}"
    command("enhance", "fit", home / "maps", *asked, "--out", enhancer)
    apply = ["--images", study.images(fold), "--out", home / f"enhanced-{name}"]
    command("enhance", "apply", home / "maps", enhancer, *apply)
    publish(study, fold, home / f"enhanced-{name}", f"enhanced-{name}", "--ground-truth", enhancer)
    told = ["--images", study.images(fold), "--ground-truth", enhancer, "--out", home / f"dataset-few-{name}"]
    command("manifest", home / "labels-plain", *told)
    return name


def trained(study: Study, fold: int, kind: str, budget: str, seed: int) -> tuple[Path, list[str]] | None:
    """The checkpoint, and the classes that it has not learned for want of masks; None where it cannot be trained."""
    home, learned = study.of_fold(fold), study.base(fold).split(",")
    name = make_budget(study, fold, budget, seed) if budget else ""
    data = {"mixed": f"enhanced-{name}", PLAIN: f"few-{name}", FEW: "plain"}.get(kind, "plain")
    images = study.images(fold)
    if kind == FEW:
        images, learned = few_images(study, fold, name)
        if len(learned) < 2:
            return None
    supervision = {PLAIN: "mixed", FEW: "mask"}.get(kind, kind)
    out = home / "-".join(["student", kind.replace(" ", "-"), *([name] if name else [str(seed)])])
    command(
        "train", home / f"dataset-{data}", "--student", "cst", "--supervision", supervision, "--classes",
        ",".join(learned), "--tokens", study.home / "tokens", "--images", images, "--seed", seed, *study.train,
        "--out", out,
    )  # fmt: skip
    return out, sorted(set(study.base(fold).split(",")) - set(learned))


def few_images(study: Study, fold: int, name: str) -> tuple[Path, list[str]]:
    """The same pictures with the masks of a budget alone, and the classes that two of them show: a class with one can
    be asked for of no other picture."""
    home = study.of_fold(fold)
    seen = training_ids(open_artifact(str(home / f"enhancer-{name}"), "checkpoint"), "masks")
    images = open_artifact(str(study.images(fold)), "images")
    names = {each["index"]: each["name"] for each in images.plan.facts["classes"]}
    lines, counts = ["path,id,labels,mask"], Counter[str]()
    folder = home / f"few-{name}"
    folder.mkdir(parents=True, exist_ok=True)
    rows, root = images.rows(["id", "uri", "labels"]).to_pylist(), images.plan.facts["root"].strip("/")
    cells = images.cells("mask", range(len(rows)))
    for number, (row, png) in enumerate(zip(rows, cells, strict=True)):
        shown = [names[each] for each in row["labels"]]
        mask = ""
        if row["id"] in seen and png is not None:
            mask = str(folder.resolve() / f"{number}.png").lstrip("/")
            Path("/", mask).write_bytes(png)
            counts.update(shown)
        lines.append(f"{root}/{row['uri']},{row['id']},{'|'.join(shown)},{mask}")
    (folder / "table.csv").write_text("\n".join(lines) + "\n")
    classes = ",".join(names[index] for index in sorted(names))
    command("index", "table", folder / "table.csv", "--root", "/", "--classes", classes, "--out", folder / "images")
    return folder / "images", [each for each in study.base(fold).split(",") if counts[each] >= 2]


# ------------------------------------------------------------------------------------------------------ the tables


def judged(study: Study, students: Sequence[Path], budget: str, support: str, way: int, seed: int) -> Mapping[str, Any]:
    own = budget or OWN
    out = study.home / "-".join(["metrics", students[0].name, support, f"{way}-way"])
    asked: list[object] = ["--tokens", study.home / "tokens", "--images", study.home / "images"]
    for fold, names in enumerate(study.folds):
        asked += ["--classes", ",".join(names)]
        if support == "enhanced":
            name = make_budget(study, fold, own, seed)
            asked += ["--labels", study.of_fold(fold) / f"labels-enhanced-{name}"]
    asked += ["--support-mask", support, "--way", way, "--episodes", study.episodes, "--save-predictions"]
    command("evaluate", "fscs", *students, *asked, "--out", out)
    found: Mapping[str, Any] = json.loads(open_artifact(str(out), "metrics").file("metrics.json"))
    return {**found, "present": shares(out, way)}


def shares(metrics: Path, way: int) -> list[float]:
    """Of episodes, how many show none of their classes, one, and so on."""
    present = pq.read_table(metrics / "episodes.parquet", columns=["present"]).column("present").to_pylist()
    counts = Counter(sum(each) for each in present)
    return [counts[number] / len(present) for number in range(way + 1)]


def lines_of(study: Study, way: int, seed: int, floors: dict[str, Any]) -> Iterator[str]:
    for kind, budget in SUPERVISIONS:
        made = [trained(study, fold, kind, budget, seed) for fold in range(FOLDS)]
        title = f"{kind}, {budget}" if budget else kind
        students = [each[0] for each in made if each is not None]
        if len(students) < FOLDS:
            yield f"| {title} | {seed} | fewer than two classes have two masks {'| ' * (len(study.supports) - 1)}|"
            continue
        cells = []
        for support in study.supports:
            metrics = judged(study, students, budget, support, way, seed)
            floors |= {"mean": metrics["mean"][1:], "present": metrics["present"]}
            cells.append(cell(metrics["mean"][0]))
        left = mean(len(each[1]) for each in made if each is not None)
        title += f" ({left:g} classes of a fold have one mask and are not learned)" if left else ""
        yield f"| {title} | {seed} | {' | '.join(cells)} |"


def cell(line: Mapping[str, Any]) -> str:
    return ", ".join(shown(line[name]) for name in ("exact_ratio", "miou"))


def shown(found: Mapping[str, Any]) -> str:
    if found["estimate"] is None:
        return "–"
    return f"{found['estimate']:.3f} ({found['low']:.3f}–{found['high']:.3f})"


def report(study: Study, seeds: Sequence[int], ways: Sequence[int]) -> None:
    judged, learned = ([len(each) for each in some] for some in (study.folds, study.learned))
    print(f"\n{study.name}: classes judged in each fold {judged}, learned {learned}")
    for way in ways:
        floors: dict[str, Any] = {}
        lines = [line for seed in seeds for line in lines_of(study, way, seed, floors)]
        present = ", ".join(f"{number}: {share:.1%}" for number, share in enumerate(floors["present"]))
        print(f"\n{study.name}, {way}-way: exact ratio, mIoU; classes present in an episode {present}\n")
        print("| supervision | seed | " + " | ".join(f"support {each}" for each in study.supports) + " |")
        print("|---|---|" + "---|" * len(study.supports))
        print("\n".join(lines))
        for line in floors["mean"]:
            print(f"| floor: {line['name']} | – | {cell(line)} {'| ' * (len(study.supports) - 1)}|")


def main() -> None:
    parser = argparse.ArgumentParser(description="The study of supervision and support masks.")
    parser.add_argument("work", type=Path)
    parser.add_argument("--backbone", default="vit_small_patch16_224")
    parser.add_argument("--weights", default="", help="as extract takes them")
    parser.add_argument("--size", type=int, default=160, help="pixels")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--episodes", type=int, default=1000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--ways", type=int, nargs="+", choices=[1, 2], default=[1, 2])
    parser.add_argument("--supports", nargs="+", choices=SUPPORTS, default=SUPPORTS, help="their masks at test time")
    parser.add_argument("--sets", nargs="+", choices=["coco-mini", "mosaics"], default=["coco-mini", "mosaics"])
    asked = parser.parse_args()
    weights = ["--weights", asked.weights] if asked.weights else []
    extract = ["--backbone", asked.backbone, *weights, "--image-size", str(asked.size)]
    train = ["--steps", str(asked.steps), "--batch", str(asked.batch)]
    print(f"{asked.backbone}, weights {asked.weights or 'of its own'}, {asked.size} pixels, {asked.steps} steps of")
    print(f"{asked.batch} pairs, {asked.episodes} episodes a fold; intervals over query pictures")
    for name in asked.sets:
        home = asked.work / name
        if name == "coco-mini":
            folds, held = coco_folds()
            learned = [learned_classes(held, folds, fold) for fold in range(FOLDS)]
            study = Study(home, name, extract, train, asked.episodes, asked.supports, folds, learned)
            made_coco(study, held)
        else:
            classes = sorted(each.name for each in (REFERENCE / "caltech-outlines/images").iterdir())
            folds = [classes[fold::FOLDS] for fold in range(FOLDS)]
            learned = [[each for each in classes if each not in judged] for judged in folds]
            study = Study(home, name, extract, train, asked.episodes, asked.supports, folds, learned)
            made_mosaics(study, asked.size)
        make_labels(study)
        report(study, asked.seeds, asked.ways)


if __name__ == "__main__":
    main()
