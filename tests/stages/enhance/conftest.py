"""Pictures, maps with heads, and enhancers of them, once for all tests that only read them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from builders.small_heads import fit, make_maps, write_images
from maskmill.stages.enhance import enhancer_fit as fitting

QUICK = 60  # steps


@pytest.fixture(scope="session", autouse=True)
def quick() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fitting, "STEPS", QUICK)
        yield


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory, quick: None) -> Path:
    """images, maps, and the checkpoints `plain` and `crossed`."""
    home = tmp_path_factory.mktemp("enhance")
    write_images(home)
    make_maps(home)
    fit(home, "plain", gt_per_class=2)
    fit(home, "crossed", gt_fraction=0.5, cross_fit=3)
    return home
