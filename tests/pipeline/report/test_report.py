"""What a report says of small runs: whole, unfinished, stale, damaged, without pictures; and how its names are told."""

import base64
import io
import json
import shutil
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from builders.small_dataset import tree
from builders.small_report import NAMES, copied, of_kind, pictures_in, reported
from maskmill.cli.main import main
from maskmill.manifests.artifact.artifact import open_artifact
from maskmill.manifests.counts import count_of
from maskmill.manifests.published.dataset import open_dataset
from maskmill.pipeline.answers.verify import verify
from maskmill.stages.scores.verdict import FEWEST_PICTURES

Capture = pytest.CaptureFixture[str]
STAGES = ["index", "extract", "mask", "enhancer", "enhance", "refine", "manifest", "evaluate"]


class Text(HTMLParser):
    """The text of a page and its tags, without scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.parts: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inside = ""
        self.feed(page)
        self.text = " ".join(" ".join(self.parts).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.inside = tag

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside not in ("script", "style"):
            self.parts.append(data)


@pytest.fixture(scope="module")
def page(work: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return reported(tmp_path_factory.mktemp("out") / "report.html", work)


def pixels(url: str) -> np.ndarray:
    kind, _, data = url.partition(";base64,")
    assert kind in ("data:image/png", "data:image/jpeg")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGBA"))


def test_every_step_is_there_in_order_with_its_rows_bytes_and_failures(page: str, work: Path) -> None:
    text = Text(page).text
    places = [text.index(f"{number} {stage} →") for number, stage in enumerate(STAGES, 1)]
    assert places == sorted(places)
    assert "Small <b>& bold</b> run" in text
    assert "9 rows 8 ok 1 failed" in text[places[0] : places[1]]
    assert "undecodable : 1 cat/broken".replace(" :", ":") in text[places[0] : places[1]].replace(" :", ":")
    assert "1 failed upstream" in text[places[2] : places[3]]
    assert "time not recorded" not in text
    assert "guided" in text[places[5] : places[6]]
    assert "unfinished" not in text
    assert ">stale<" not in page


def test_names_of_users_are_text_and_nothing_else(page: str) -> None:
    found = Text(page)
    assert "onerror" not in {name for _, attributes in found.tags for name in attributes}
    assert [tag for tag, _ in found.tags].count("script") == page.count("<script")
    assert "<img" not in page.replace("<img src", "").replace("\\u003cimg", "") or "<img src=x" not in page
    assert "<script>document" not in page
    ids = set(pictures_in(page))
    assert ids == {f"{name}/script>" if name.endswith("<") else name for name in NAMES} | {"cat/broken"}
    assert "&lt;img src=x onerror" in page
    assert "49" not in {each.rpartition("/")[2] for each in ids}


def test_nothing_is_loaded_from_elsewhere(page: str) -> None:
    for tag, attributes in Text(page).tags:
        for name in ("src", "href", "action", "srcset", "poster"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:")), (tag, value)
    assert "default-src 'none'" in page
    assert "@import" not in page
    assert "url(" not in page


def test_each_label_map_is_that_of_its_own_picture(page: str, work: Path) -> None:
    labels = open_dataset(work / of_kind(work, "dataset").name, keep="all")
    pictures = pictures_in(page)
    differing = 0
    for index in range(len(labels)):
        row, mask_HW = labels.row(index), labels.mask(index).numpy()
        shown_HW4 = pixels(pictures[row["id"]]["layers"]["head"])
        assert np.array_equal(shown_HW4[..., 3] > 0, mask_HW > 0)
        for label in set(np.unique(mask_HW).tolist()) - {0}:
            assert len(np.unique(shown_HW4[mask_HW == label][:, :3], axis=0)) == 1
        picture_HW3 = labels.image(index).permute(1, 2, 0).numpy()
        drawn_HW3 = pixels(pictures[row["id"]]["picture"])[..., :3]
        assert np.abs(drawn_HW3.astype(int) - picture_HW3).mean() < 8
        differing += not np.array_equal(mask_HW, labels.mask(0).numpy())
    assert differing > 2, "one label map for all would pass as well"


def test_the_truth_lies_where_it_was_drawn(page: str, work: Path) -> None:
    images = open_artifact(str(of_kind(work, "images")))
    for row in images.rows(["id", "status"]).to_pylist():
        if row["status"] == "ok":
            (png,) = images.cells("mask", images.positions([row["id"]]))
            assert png is not None
            truth_HW = np.asarray(Image.open(io.BytesIO(png)))
            assert np.array_equal(pixels(pictures_in(page)[row["id"]]["layers"]["truth"])[..., 3] > 0, truth_HW > 0)


def test_figures_are_those_of_the_artifacts(page: str, work: Path) -> None:
    text = Text(page).text
    metrics = json.loads(open_artifact(str(of_kind(work, "metrics"))).file("metrics.json"))
    for line in metrics["results"]:
        assert line["name"] in text
        assert f"{line['miou']['estimate']:.3f}" in text
    assert "best fixed ellipse, fitted on other classes floor" in text
    holding = [
        row for _, _, row in open_dataset(of_kind(work, "dataset")) if any(one["area"] for one in row["objects"])
    ]
    assert f"{len(holding)} with a mask that holds something" in text
    assert f"on {count_of(metrics['coverage']['rows'], 'picture')}, too few to tell" in text
    assert "separation" in text
    assert "stopping loss" in text


def test_few_pictures_are_marked_beside_the_scores_of_masks(page: str, work: Path) -> None:
    metrics = json.loads(open_artifact(str(of_kind(work, "metrics"))).file("metrics.json"))
    section = Text(page).text.partition("Scores on ground truth")[2]
    assert f"Fewer than {FEWEST_PICTURES} pictures" in section
    assert f"{metrics['results'][0]['name']} {metrics['results'][0]['pictures']} " in section


def test_a_report_is_the_same_every_time(work: Path, tmp_path: Path) -> None:
    assert reported(tmp_path / "a.html", work) == reported(tmp_path / "b.html", work)


def test_a_report_changes_nothing_in_what_it_reads(work: Path, tmp_path: Path) -> None:
    before = tree(work)
    reported(tmp_path / "a.html", work)
    assert tree(work) == before
    assert verify(str(of_kind(work, "dataset"))).exit_code == 0


def test_one_artifact_leads_to_what_it_was_made_from(work: Path, tmp_path: Path) -> None:
    text = Text(reported(tmp_path / "a.html", of_kind(work, "labels"))).text
    assert "6 refine → labels" in text
    assert "manifest" not in text
    page = reported(tmp_path / "b.html", of_kind(work, "labels"), of_kind(work, "metrics"))
    assert "8 evaluate → metrics" in Text(page).text


def test_what_is_of_another_run_is_told_apart(work: Path, tmp_path: Path) -> None:
    mine = copied(work, tmp_path / "mine")
    shutil.copytree(of_kind(mine, "labels"), mine / "labels-older")
    text = Text(reported(tmp_path / "a.html", mine)).text
    assert "1 other artifact in the same folder, not part of the last complete run" in text
    assert text.count("→ labels") == 2


def test_failures_are_told_where_they_came_first(page: str) -> None:
    text = Text(page).text
    section = text[text.index("Failures step reason") : text.index("Quality without")]
    assert "index undecodable 1 cat/broken A row" in section
    assert "upstream" not in section.partition("A row")[0]


def test_images_alone_are_shown_with_their_truth(work: Path, tmp_path: Path) -> None:
    pictures = pictures_in(reported(tmp_path / "a.html", of_kind(work, "images")))
    assert len(pictures) == 9
    assert set(pictures["cat/plain"]["layers"]) == {"truth"}
    assert pictures["cat/broken"]["status"] == "failed"
    assert pictures["cat/broken"]["picture"] == ""


def test_an_unfinished_run_shows_what_is_there_and_says_so(work: Path, tmp_path: Path) -> None:
    mine = copied(work, tmp_path / "mine")
    (mine / "last-run.json").unlink()
    for kind in ("dataset", "metrics"):
        shutil.rmtree(of_kind(mine, kind))
    (of_kind(mine, "labels") / "artifact.json").unlink()
    next((of_kind(mine, "labels") / "ledger").rglob("*.json")).unlink()
    page = reported(tmp_path / "a.html", mine)
    text = Text(page).text
    assert "was completed" in text
    assert "refine → labels unfinished 0 of 1 unit done, 9 rows planned" in text
    assert set(pictures_in(page)["cat/plain"]["layers"]) == {"truth", "heat0", "cut0", "heat1", "cut1"}


def test_stale_steps_and_changed_pictures_are_said_to_be_so(work: Path, tmp_path: Path) -> None:
    mine = copied(work, tmp_path / "mine")
    Image.new("RGB", (64, 40)).save(tmp_path / "mine/pictures/cat/plain.png")
    page = reported(tmp_path / "a.html", mine, images_root=str(tmp_path / "mine/pictures"))
    assert pictures_in(page)["cat/plain"]["picture"] == ""
    assert pictures_in(page)["cat/plain"]["missing"] == "the picture has changed since"
    assert pictures_in(page)["cat/{{ 7 * 7 }}"]["picture"]
    assert ">stale<" not in page
    images = of_kind(mine, "images")
    shutil.rmtree(images)
    command = ["index", "folder", str(work.parent / "pictures"), "--out", str(images), "--max-bad", "0.5"]
    assert main(command) == 0
    page = reported(tmp_path / "a.html", mine)
    assert f"Input images ({images}) has changed since" in Text(page).text
    assert set(pictures_in(page)["cat/plain"]["layers"]) == {"head", "heat0", "cut0", "heat1", "cut1"}, "no truth"


def test_a_damaged_step_is_said_to_be_so_and_the_rest_is_shown(work: Path, tmp_path: Path) -> None:
    mine = copied(work, tmp_path / "mine")
    rows = of_kind(mine, "dataset") / "rows.parquet"
    rows.write_bytes(rows.read_bytes()[:-1] + b"?")
    page = reported(tmp_path / "a.html", mine)
    assert "7 manifest → dataset cannot be read" in Text(page).text
    assert "rows.parquet" in Text(page).text
    assert len(pictures_in(page)) == 9, "of the labels"


def test_a_dataset_without_its_pictures_shows_its_masks(work: Path, tmp_path: Path, capsys: Capture) -> None:
    shutil.copytree(of_kind(work, "dataset"), tmp_path / "shared")
    out = str(tmp_path / "a.html")
    assert main(["report", str(tmp_path / "shared"), "--out", out]) == 0
    assert "9 shown, 9 of those without their picture" in capsys.readouterr().out
    page = Path(out).read_text()
    found = pictures_in(page)["cat/plain"]
    assert found["picture"] == ""
    assert "missing" in found["missing"]
    assert any(pixels(each["layers"]["head"])[..., 3].any() for each in pictures_in(page).values() if each["layers"])
    assert "No longer here" in Text(page).text
    assert "the dataset records how it was made" in Text(page).text
    root = str(work.parent / "pictures")
    assert main(["report", str(tmp_path / "shared"), "--out", out, "--images-root", root]) == 0
    assert pictures_in(Path(out).read_text())["cat/plain"]["picture"].startswith("data:image/jpeg")


def test_a_sample_is_said_to_be_one_and_stays_the_same(work: Path, tmp_path: Path) -> None:
    page = reported(tmp_path / "a.html", work, count=4)
    assert "4 of 9 pictures are shown" in Text(page).text
    assert len(pictures_in(page)) == 4
    assert "cat/broken" in pictures_in(page), "failed rows have their share"
    assert unescape(page).count('class="picture"') == 4


def test_what_cannot_be_is_refused_in_one_sentence(work: Path, tmp_path: Path, capsys: Capture) -> None:
    def refused(*arguments: str) -> str:
        assert main(["report", *arguments]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        return said

    assert "/nowhere" in refused(str(tmp_path / "nowhere"))
    assert "labels" in refused(str(work), "--out", str(of_kind(work, "labels") / "report.html"))
    other = tmp_path / "mine.html"
    other.write_text("<p>my own page")
    assert "/mine.html" in refused(str(work), "--out", str(other))
    assert other.read_text() == "<p>my own page"
    assert "folder" in refused(str(work), "--out", str(work))


def test_the_command_says_what_it_made_and_may_make_it_again(work: Path, tmp_path: Path, capsys: Capture) -> None:
    out = str(tmp_path / "report.html")
    assert main(["report", str(work), "--out", out]) == 0
    said = capsys.readouterr().out
    assert said.startswith("report: 9 pictures, 9 shown, 1 of those without their picture; ")
    assert said.endswith(f"→ {out}\n")
    assert main(["report", str(work), "--out", out, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["bytes"] == Path(out).stat().st_size
