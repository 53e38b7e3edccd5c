"""The scores of a student: at the end of its step in `run`, and in the report of its checkpoint."""

import json
from html import unescape
from pathlib import Path

import pytest

from builders.small_recipe import SMALL, write_recipe
from builders.small_report import reported
from maskmill.cli.main import main
from maskmill.manifests.artifact.artifact import open_artifact
from maskmill.stages.scores.verdict import FEWEST_PICTURES

TRAINED = SMALL + '[manifest]\n[train]\nstudent = "linear"\nsteps = 2\n'


def test_a_student_stands_beside_its_floors_and_its_number_of_pictures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(tmp_path, TRAINED)
    main(["run", str(recipe)])
    shown = capsys.readouterr().out
    main(["run", str(recipe), "--json"])
    at = json.loads(capsys.readouterr().out)[-1]["at"]
    judged = open_artifact(at).summary.counts["judged"]
    assert judged["pictures"] < FEWEST_PICTURES
    page = reported(tmp_path / "report.html", Path(at))
    for text in (shown, unescape(page)):
        assert all(line["name"] in text for line in judged["lines"])
        assert f"{judged['lines'][0]['miou']['estimate']:.3f}" in text
        assert f"ewer than {FEWEST_PICTURES} pictures" in text
