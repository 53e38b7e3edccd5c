"""Arrays in shards: what is written comes back, bytes depend on nothing else, and damage or absence is an error."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as npst

from maskmill.manifests.artifact import store
from maskmill.manifests.artifact.fields import FILLS, Field
from maskmill.manifests.files import atomic
from maskmill.manifests.files.place import Place, place
from zarr_oracle import read_slots

FIELD = Field(name="x", kind="array", shape=(2, 3), dtype="float32", chunk=(1, 3))


def stored(at: Place, field: Field, unit_rows: int, units: list[np.ndarray]) -> None:
    slots = (len(units) - 1) * unit_rows + len(units[-1])
    atomic.write(at, f"{field.name}.zarr/zarr.json", store.metadata(field, unit_rows, slots))
    for unit, values in enumerate(units):
        atomic.write(at, field.shard(unit), store.encode_shard(field, unit_rows, values))


@given(st.data())
def test_rows_come_back_bit_for_bit(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(sorted(FILLS)))
    shape = tuple(data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=3)))
    field = Field(name="x", kind="array", shape=shape, dtype=dtype)
    unit_rows = data.draw(st.integers(1, 4))
    sizes = [*data.draw(st.lists(st.integers(1, unit_rows), max_size=2)), data.draw(st.integers(1, unit_rows))]
    units = [data.draw(npst.arrays(dtype, (rows, *shape))) for rows in sizes]
    at = place(tmp_path_factory.mktemp("store"))
    stored(at, field, unit_rows, units)
    slots = [unit * unit_rows + row for unit, rows in enumerate(sizes) for row in range(rows)]
    read = read_slots(at, field, slots)
    assert (read.dtype, read.tobytes()) == (np.dtype(dtype), b"".join(values.tobytes() for values in units))
    order = data.draw(st.permutations(slots))
    for slot, row in zip(order, read_slots(at, field, order), strict=True):
        unit, index = divmod(slot, unit_rows)
        assert row.tobytes() == units[unit][index].tobytes()
    assert all(len(at.read(field.shard(unit))) <= store.max_shard_bytes(field, unit_rows) for unit in range(len(units)))


def test_the_bytes_of_a_shard_do_not_depend_on_the_others_and_zeros_are_stored(tmp_path: Path) -> None:
    values = np.zeros((2, 2, 3), np.float32)
    stored(place(tmp_path / "a"), FIELD, 2, [values])
    stored(place(tmp_path / "b"), FIELD, 2, [values + 1, values, values[:1]])
    assert place(tmp_path / "a").read(FIELD.shard(0)) == place(tmp_path / "b").read(FIELD.shard(1))
    assert len(place(tmp_path / "a").read(FIELD.shard(0))) == store.max_shard_bytes(FIELD, 2)


def test_a_slot_that_no_row_points_at_is_the_fill(tmp_path: Path) -> None:
    at = place(tmp_path)
    stored(at, FIELD, 4, [np.ones((2, 2, 3), np.float32), np.ones((1, 2, 3), np.float32)])
    assert np.isnan(read_slots(at, FIELD, [2, 3])).all()
    assert (read_slots(at, FIELD, [4]) == 1).all()


def test_every_flipped_bit_of_a_shard_is_found_by_its_checksums(tmp_path: Path) -> None:
    at = place(tmp_path)
    values = np.random.default_rng(0).random((2, 2, 3), np.float32)
    stored(at, FIELD, 2, [values])
    whole = at.read(FIELD.shard(0))
    for bit in range(0, len(whole) * 8, 5):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        atomic.write(at, FIELD.shard(0), damaged)
        with pytest.raises(ValueError):  # noqa: PT011 it is Zarr's
            read_slots(at, FIELD, [0, 1])


@pytest.mark.parametrize(
    "values",
    [np.zeros((3, 2, 3), np.float32), np.zeros((2, 3, 2), np.float32), np.zeros((2, 2, 3), np.float64)],
    ids=["too many rows", "other shape", "other dtype"],
)
def test_what_does_not_fit_the_field_is_refused(values: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"\bx\b.*float32 \(2, 3\).*2 rows"):
        store.encode_shard(FIELD, 2, values)


def test_metadata_that_the_plan_did_not_write_is_named() -> None:
    data = store.metadata(FIELD, 2, 6)
    assert store.metadata_fault(data, FIELD, 2, 6) is None
    assert "shape" in str(store.metadata_fault(data, FIELD, 2, 5))
    for old, new, what in [
        (b'"float32"', b'"float64"', "data_type"),
        (b'"crc32c"', b'"pickle"', "codecs"),
        (b'"regular"', b'"other"', "chunk_grid"),
    ]:
        assert old in data
        assert str(store.metadata_fault(data.replace(old, new), FIELD, 2, 6)).startswith(f"zarr.json has {what} ")
    for broken in (b"", b"{", b"[]", b"[" * 100_000):
        assert store.metadata_fault(broken, FIELD, 2, 6) == "zarr.json cannot be read"


def test_a_place_is_tried_with_a_small_shard(tmp_path: Path) -> None:
    assert store.check_shard_writes(place(tmp_path)) is None
    assert list(place(tmp_path).names()) == []
