"""Students of a dataset whose masks an enhancer has made better: what it was fitted on is not judged, and is told."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from builders.configs import make_config
from builders.small_heads import OPTIONS, apply, fit
from builders.small_students import extract, publish, train, write_pictures
from maskmill.manifests.artifact.artifact import open_artifact
from maskmill.manifests.artifact.checkpoints import network_by_held_out_id, training_ids
from maskmill.manifests.errors import InputError
from maskmill.pipeline.running.run import run
from maskmill.stages.enhance import enhancer_fit as fitting
from maskmill.stages.manifest.config import ManifestConfig
from maskmill.stages.manifest.stage import STAGE as MANIFEST
from maskmill.stages.refine.config import RefineConfig
from maskmill.stages.refine.stage import STAGE as REFINE


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fitting, "STEPS", 4)
        yield


@pytest.fixture(scope="module")
def enhanced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset by an enhancer of two networks, each of which has seen half of the pictures drawn."""
    home = tmp_path_factory.mktemp("enhanced")
    write_pictures(home)
    extract(home)
    publish(home, "plain")
    fit(home, "model", maps="maps of plain", gt_fraction=0.5, cross_fit=2)
    publish_enhanced(home)
    return home


def publish_enhanced(home: Path, model: str = "model") -> None:
    apply(home, model, "maps", maps="maps of plain")
    at = {"images": str(home / "images"), "maps": str(home / "maps")}
    run(REFINE, make_config(RefineConfig, background="rows"), at, str(home / "labels"), OPTIONS)
    run(MANIFEST, make_config(ManifestConfig), {**at, "labels": str(home / "labels")}, str(home / "dataset"), OPTIONS)


def test_what_any_network_has_seen_is_not_judged(enhanced: Path) -> None:
    """Each picture's mask was hidden from the network that made its label, and shown to those that made the others'."""
    seen = training_ids(open_artifact(str(enhanced / "model")), "masks")
    assert seen == network_by_held_out_id(open_artifact(str(enhanced / "model"))).keys()
    made = train(enhanced, "linear")
    judged = {f"p{number:02d}" for number in range(24)} - training_ids(made, "labels")
    assert judged
    assert not judged & seen


def test_learning_from_its_masks_is_having_seen_what_it_was_fitted_on(enhanced: Path) -> None:
    """Also those of pictures that show none of the classes learned, which may be asked about later."""
    seen = training_ids(open_artifact(str(enhanced / "model")), "masks")
    asked = {"student": "cst", "steps": 1, "batch": 1, "classes": ["1", "2"]}
    by_masks = train(enhanced, "by-masks", **asked)
    assert training_ids(by_masks, "masks") == seen
    assert seen - training_ids(by_masks, "labels")
    by_keys = train(enhanced, "by-keys", **asked, supervision="pseudo")
    assert not training_ids(by_keys, "masks")


def test_pictures_of_a_models_own_dataset_are_others(enhanced: Path, tmp_path: Path) -> None:
    """They are in the provenance of whatever it was applied to, and ids may be equal."""
    write_pictures(tmp_path, noise=100)
    publish(tmp_path, "plain")
    publish_enhanced(tmp_path, str(enhanced / "model"))
    with pytest.raises(InputError, match=r"other pictures.*'p"):
        train(tmp_path, "linear", tokens=str(enhanced / "tokens"))
