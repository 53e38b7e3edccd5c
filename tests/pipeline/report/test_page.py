"""The page in a browser: it opens from a file, loads nothing, filters, slides, and has its own mask on each picture."""

import base64
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from builders.chromium import complaints, headless, requested, width
from builders.small_report import of_kind, reported
from maskmill.manifests.artifact.artifact import open_artifact
from maskmill.manifests.published.dataset import open_dataset

# Of an image in the page, its pixels as they are drawn.
PIXELS = """
const image = arguments[0], canvas = document.createElement('canvas');
canvas.width = image.naturalWidth; canvas.height = image.naturalHeight;
const context = canvas.getContext('2d');
context.drawImage(image, 0, 0);
return [canvas.height, canvas.width, Array.from(context.getImageData(0, 0, canvas.width, canvas.height).data)];
"""
BOX = "const b = arguments[0].getBoundingClientRect(); return [b.x, b.y, b.width, b.height];"


@pytest.fixture(scope="module")
def page(work: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("page") / "a report & more.html"
    reported(out, work)
    return out


@pytest.fixture(scope="module")
def opened(page: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with headless(tmp_path_factory.mktemp("profile")) as browser:
        browser.get(page.as_uri())
        yield browser


@pytest.fixture
def browser(opened: Any, page: Path) -> Any:
    """As it is after opening."""
    requested(opened)
    complaints(opened)
    width(opened, 1200)
    opened.get(page.as_uri())
    return opened


def all_of(within: Any, selector: str) -> list[Any]:
    found: list[Any] = within.find_elements("css selector", selector)
    return found


def one(within: Any, selector: str) -> Any:
    (found,) = all_of(within, selector)
    return found


def shown(browser: Any) -> list[str]:
    return [each.get_attribute("data-id") for each in all_of(browser, "#tiles > li")]


def choose(browser: Any, name: str, value: str) -> None:
    script = """
    const field = document.querySelector(`#filters [name=${arguments[0]}]`);
    field.value = arguments[1];
    field.dispatchEvent(new Event('input', {bubbles: true}));
    return field.value;
    """
    assert browser.execute_script(script, name, value) == value


def pixels(browser: Any, image: Any) -> np.ndarray:
    height, wide, values = browser.execute_script(PIXELS, image)
    return np.array(values, np.uint8).reshape(height, wide, 4)


def test_it_opens_without_a_complaint_and_without_asking_for_anything(browser: Any, page: Path) -> None:
    all_of(browser, "#tiles button")[0].click()
    assert requested(browser) == [page.as_uri()]
    assert complaints(browser) == []
    assert browser.title.startswith("Small <b>& bold</b> run"), "no name of a user was run as a script"


def test_nothing_is_wider_than_the_window(browser: Any) -> None:
    for pixels_wide in (320, 400, 900, 1600):
        width(browser, pixels_wide, "dark")
        found = browser.execute_script(
            "return [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
        )
        assert found[0] <= found[1], pixels_wide


def test_every_picture_has_its_own_mask_over_it(browser: Any, work: Path) -> None:
    labels = open_dataset(str(of_kind(work, "dataset")), keep="all")
    by_id = {labels.row(index)["id"]: index for index in range(len(labels))}
    tiles = {each.get_attribute("data-id"): each for each in all_of(browser, "#tiles > li")}
    assert len(tiles) == 9
    for identifier, index in by_id.items():
        picture, over = all_of(tiles[identifier], "img")
        mask_HW = labels.mask(index).numpy()
        assert np.array_equal(pixels(browser, over)[..., 3] > 0, mask_HW > 0), identifier
        drawn_HW3 = pixels(browser, picture)[..., :3].astype(int)
        differences = {
            name: np.abs(drawn_HW3 - other.permute(1, 2, 0).numpy()).mean()
            for name, at in by_id.items()
            if (other := labels.image(at)).shape[1:] == mask_HW.shape
        }
        assert min(differences, key=lambda name: differences[name]) == identifier
        assert browser.execute_script(BOX, picture) == browser.execute_script(BOX, over), "one exactly over the other"


def test_what_is_seen_is_the_picture_with_the_mask_blended_in(browser: Any, work: Path) -> None:
    choose(browser, "layer", "truth")
    images = open_artifact(str(of_kind(work, "images")))
    (png,) = images.cells("mask", images.positions(["cat/plain"]))
    assert png is not None
    truth_HW = np.asarray(Image.open(io.BytesIO(png)))
    original_HW3 = np.asarray(Image.open(work.parent / "pictures/cat/plain.png").convert("RGB")).astype(float)
    tile = next(each for each in all_of(browser, "#tiles > li") if each.get_attribute("data-id") == "cat/plain")
    stack = one(tile, ".stack")
    seen = np.asarray(Image.open(io.BytesIO(base64.b64decode(stack.screenshot_as_base64))).convert("RGB")).astype(float)
    over_HW4 = pixels(browser, all_of(tile, "img")[1]).astype(float)
    height, wide = truth_HW.shape
    # Beside outlines and borders, where the page's scaling mixes neighbours.
    for row, column in ((12, 22), (4, 50), (20, 60), (13, 16), (13, 28), (20, 5)):
        at = seen[int((row + 0.5) * seen.shape[0] / height), int((column + 0.5) * seen.shape[1] / wide)]
        share = over_HW4[row, column, 3] / 255
        expected = original_HW3[row, column] * (1 - share) + over_HW4[row, column, :3] * share
        assert (share > 0) == (truth_HW[row, column] > 0)
        assert np.abs(at - expected).max() < 16, (row, column)


def test_filters_leave_what_they_name(browser: Any) -> None:
    everything = shown(browser)
    choose(browser, "status", "failed")
    assert shown(browser) == ["cat/broken"]
    assert "1 of 9" in one(browser, "#tally").text
    choose(browser, "status", "")
    label = next(value for value, text in _pairs(browser, "label") if text.endswith(" dog"))
    choose(browser, "label", label)
    assert {each.rpartition("/")[0] for each in shown(browser)} == {"🐕 dog"}
    choose(browser, "label", "")
    choose(browser, "text", "QUOTED")
    assert shown(browser) == ["cat/ü 🐈 \"quoted\" 'single'"]
    choose(browser, "text", "")
    assert shown(browser) == everything
    choose(browser, "source", "enhanced")
    assert set(shown(browser)) == set(everything) - {"cat/broken"}
    choose(browser, "status", "dropped")
    assert shown(browser)
    assert all("dropped" in each.text for each in all_of(browser, "#tiles .state"))


def test_pictures_are_sorted_by_a_measure(browser: Any) -> None:
    for sort, sign in (("-area", -1), ("+area", 1)):
        choose(browser, "sort", sort)
        areas = browser.execute_script(
            """
            const of = new Map([...document.querySelectorAll('script.picture')]
              .map((each) => JSON.parse(each.textContent)).map((each) => [each.id, each.measures.area]));
            return [...document.querySelectorAll('#tiles > li')].map((each) => of.get(each.dataset.id) ?? null);
            """
        )
        known = [each for each in areas if each is not None]
        assert known == sorted(known, key=lambda value: sign * value)
        assert areas[len(known) :] == [None] * (len(areas) - len(known)), "what has none comes last"


def test_the_slider_moves_the_edge_by_key_and_by_pointer(browser: Any) -> None:
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys

    card = all_of(browser, "#comparers > .card")[0]
    before, after = all_of(card, ".stack .over")
    slider, edge = one(card, "input[type=range]"), one(card, ".edge")
    assert (before.value_of_css_property("clip-path"), edge.get_attribute("style")) == (
        "inset(0px 50% 0px 0px)",
        "left: 50%;",
    )
    slider.send_keys(Keys.HOME)
    assert before.value_of_css_property("clip-path") == "inset(0px 100% 0px 0px)"
    assert after.value_of_css_property("clip-path") in ("inset(0px)", "inset(0px 0px 0px 0%)")
    slider.send_keys(Keys.ARROW_RIGHT)
    assert edge.get_attribute("style") == "left: 1%;"
    stack = one(card, ".stack")
    ActionChains(browser).move_to_element_with_offset(stack, stack.size["width"] // 4, 0).click().perform()
    assert abs(float(slider.get_attribute("value")) - 75) <= 2
    first = one(card, ".row .soft").text
    all_of(card, "button")[1].click()
    assert one(card, ".row .soft").text != first


def test_a_picture_opens_by_key_and_shows_what_is_asked_for(browser: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    tile = next(each for each in all_of(browser, "#tiles > li") if each.get_attribute("data-id") == "cat/plain")
    one(tile, "button").send_keys(Keys.ENTER)
    viewer = one(browser, "#viewer")
    assert viewer.get_attribute("open") is not None
    assert one(browser, "#viewer-h").text == "cat/plain"
    names = [text for _, text in _pairs_of(all_of(viewer, "select")[0])]
    assert names == [
        "picture alone",
        "ground truth",
        "mask, soft map",
        "mask, cut",
        "enhance, soft map",
        "enhance, cut",
        "labels",
    ]
    assert "border touch" in one(viewer, ".measures").text
    all_of(viewer, "[data-go]")[1].click()
    assert one(browser, "#viewer-h").text != "cat/plain"
    viewer.send_keys(Keys.ESCAPE)
    assert viewer.get_attribute("open") is None


def test_everything_that_can_be_pressed_has_a_name(browser: Any) -> None:
    unnamed = browser.execute_script(
        """
        return [...document.querySelectorAll('button, input, select')].filter((each) =>
          !each.textContent.trim() && !each.getAttribute('aria-label') && !each.closest('label')
        ).map((each) => each.outerHTML);
        """
    )
    assert unnamed == []
    images = all_of(browser, "img")
    assert images
    assert all(each.get_attribute("alt") == "" for each in images), "the button around each says what it is"


def test_a_picture_that_is_missing_is_said_to_be(browser: Any, work: Path, tmp_path: Path) -> None:
    reported(tmp_path / "a.html", work, images_root=str(tmp_path))
    browser.get((tmp_path / "a.html").as_uri())
    tile = next(each for each in all_of(browser, "#tiles > li") if each.get_attribute("data-id") == "🐕 dog/two")
    assert [each.get_attribute("class") for each in all_of(tile, "img")] == ["over"]
    assert "the picture is missing" in one(tile, ".note").text


def _pairs(browser: Any, name: str) -> Sequence[tuple[str, str]]:
    return _pairs_of(one(browser, f"#filters [name={name}]"))


def _pairs_of(select: Any) -> Sequence[tuple[str, str]]:
    return [(each.get_attribute("value"), each.text) for each in all_of(select, "option")]
