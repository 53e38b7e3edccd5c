"""Units and slots from first principles: every row in one unit and one slot, and growth moves nothing."""

from itertools import pairwise

import pytest
from hypothesis import given, strategies as st

from maskmill.manifests.artifact.layout import MAX_UNIT_BYTES, Layout, default_unit_rows

sizes = st.integers(1, 40)
segments = st.lists(st.integers(0, 100), max_size=6).map(tuple)


@given(sizes, segments)
def test_units_partition_the_rows(unit_rows: int, segments: tuple[int, ...]) -> None:
    layout = Layout(unit_rows, segments)
    units = list(layout.units())
    assert [row for unit in units for row in range(unit.start, unit.stop)] == list(range(sum(segments)))
    assert [unit.index for unit in units] == list(range(layout.num_units))
    assert all(1 <= unit.num_rows <= unit_rows for unit in units)
    assert [layout.unit(unit.index) for unit in units] == units
    ends = {sum(segments[: count + 1]) for count in range(len(segments))}
    assert all(left.num_rows == unit_rows or left.stop in ends for left, _ in pairwise(units))
    for outside in (-1, layout.num_units):
        with pytest.raises(IndexError):
            layout.unit(outside) if outside >= 0 else layout.slot(outside)


@given(sizes, segments)
def test_every_row_has_a_slot_of_its_own_in_its_unit(unit_rows: int, segments: tuple[int, ...]) -> None:
    layout = Layout(unit_rows, segments)
    slots = [layout.slot(position) for position in range(layout.num_rows)]
    assert all(left < right for left, right in pairwise(slots))
    assert layout.num_slots == (slots[-1] + 1 if slots else 0)
    for unit in layout.units():
        assert [layout.unit_of(row) for row in range(unit.start, unit.stop)] == [unit.index] * unit.num_rows
        assert slots[unit.start : unit.stop] == [unit.index * unit_rows + n for n in range(unit.num_rows)]


@given(sizes, segments, st.integers(1, 100))
def test_growth_moves_no_row(unit_rows: int, segments: tuple[int, ...], added: int) -> None:
    before, after = Layout(unit_rows, segments), Layout(unit_rows, (*segments, added))
    assert list(after.units())[: before.num_units] == list(before.units())
    assert [after.slot(row) for row in range(before.num_rows)] == [before.slot(row) for row in range(before.num_rows)]
    assert after.slot(before.num_rows) == before.num_units * unit_rows  # the next shard boundary


@given(st.integers(0, 2**33), st.integers(1, 4096))
def test_a_default_unit_is_within_both_limits(bytes_per_row: int, limit: int) -> None:
    rows = default_unit_rows(bytes_per_row, limit)
    assert 1 <= rows <= limit
    assert rows == 1 or rows * bytes_per_row <= MAX_UNIT_BYTES
    assert rows == limit or (rows + 1) * bytes_per_row > MAX_UNIT_BYTES
