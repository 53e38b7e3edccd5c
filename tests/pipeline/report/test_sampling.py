"""Which rows are shown, and how rows are counted: against plain sorting and counting."""

from collections import Counter

import numpy as np
from hypothesis import given, strategies as st

from maskmill.pipeline.report.artifact_rows import Object, ReportRow
from maskmill.pipeline.report.sampling import sample
from maskmill.pipeline.report.survey import survey

STATES = ("kept", "dropped", "failed", "upstream")
described = st.lists(st.tuples(st.sampled_from(STATES), st.integers(1, 4), st.floats(0, 1)), min_size=0, max_size=80)


def rows(given_: list[tuple[str, int, float]]) -> list[ReportRow]:
    return [
        ReportRow(
            f"picture {place}", place, state, "area 0.1 < 0.2" if state == "dropped" else "", (label,), _objects(*each)
        )
        for place, each in enumerate(given_)
        for state, label, _ in [each]
    ]


def _objects(state: str, label: int, score: float) -> list[Object]:
    return [] if state in ("failed", "upstream") else [Object(label, "pseudo", {"score": score, "area": score / 2})]


@given(described, st.integers(1, 60))
def test_a_sample_holds_the_extremes_and_every_class(given_: list[tuple[str, int, float]], count: int) -> None:
    everything = rows(given_)
    found = sample(iter(everything), count, "score")
    assert found.of == len(everything)
    assert len(found.rows) == min(count, len(everything))
    assert [row.position for row in found.rows] == sorted({row.position for row in found.rows})
    scored = [row for row in everything if row.objects]
    if scored and count >= 10:
        assert found.worst[0] == min(scored, key=lambda row: (row.measure("score"), row.position)).id
        assert found.best[0] == min(scored, key=lambda row: (-(row.measure("score") or 0), row.position)).id
    if count >= 60:
        assert {label for row in everything for label in row.labels} == {c for row in found.rows for c in row.classes}
    again = sample(reversed(everything), count, "score")
    assert {row.id for row in again.rows} == {row.id for row in found.rows}, "whatever their order"


@given(described)
def test_a_survey_counts_every_row_and_every_value_once(given_: list[tuple[str, int, float]]) -> None:
    everything = rows(given_)
    found = survey(iter(everything), ["score", "area"])
    assert found.pictures == len(everything)
    assert dict(found.statuses) == Counter(row.status for row in everything)
    assert {label: each.pictures for label, each in found.classes.items()} == Counter(
        row.labels[0] for row in everything
    )
    scores = [each.measures["score"] for row in everything for each in row.objects]
    for histogram in found.histograms:
        assert histogram.count == len(scores) == sum(map(sum, histogram.bars))
        assert histogram.low <= histogram.median <= histogram.high
    if scores:
        drawn = next(each for each in found.histograms if each.name == "score")
        assert abs(drawn.median - float(np.quantile(scores, 0.5, method="inverted_cdf"))) <= 0.001
        assert drawn.low <= min(scores)
        assert drawn.high >= max(scores) - 1e-9
    assert dict(found.dropped) == ({"area < 0.2": n} if (n := found.statuses.get("dropped", 0)) else {})
