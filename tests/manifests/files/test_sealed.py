"""JSON in which every changed byte shows."""

import hashlib
import json

import pytest
from hypothesis import given, strategies as st

from maskmill.manifests.errors import CorruptArtifact
from maskmill.manifests.files import sealed
from maskmill.manifests.files.place import Place

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
scalars = (
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | text
)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3))
objects = st.dictionaries(text.filter(lambda key: key != "sha256"), values, max_size=4)


@given(objects)
def test_a_sealed_value_comes_back(value: dict[str, object]) -> None:
    data = sealed.seal(value)
    assert sealed.unseal(data, "here") == value
    assert sealed.seal(sealed.unseal(data, "here")) == data
    body = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    assert json.loads(data)["sha256"] == hashlib.sha256(body).hexdigest()


@given(objects, st.data())
def test_any_flipped_bit_is_refused(value: dict[str, object], data: st.DataObject) -> None:
    whole = bytearray(sealed.seal(value))
    bit = data.draw(st.integers(0, len(whole) * 8 - 1))
    whole[bit // 8] ^= 1 << bit % 8
    with pytest.raises(CorruptArtifact, match=r"^here "):
        sealed.unseal(bytes(whole), "here")


def test_every_flipped_bit_and_every_cut_of_one_file_is_refused() -> None:
    whole = sealed.seal({"ids": ["ä", "b"], "n": 10.5, "none": None})
    damaged = [whole[:length] for length in range(len(whole))]
    for bit in range(len(whole) * 8):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        damaged.append(bytes(flipped))
    damaged += [
        whole + b"\n",
        b" " + whole,
        whole.replace(b",", b", "),
        b"\xef\xbb\xbf" + whole,
        b"[1]",
        b"[" * 100_000,
    ]
    for data in damaged:
        with pytest.raises(CorruptArtifact):
            sealed.unseal(data, "here")


def test_absent_and_none_are_different() -> None:
    assert sealed.digest_of({"a": None}) != sealed.digest_of({})
    assert sealed.digest_of({"a": 1, "b": 2}) == sealed.digest_of({"b": 2, "a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        sealed.canonical(float("nan"))


def test_files(tmp_path: object) -> None:
    at = Place(str(tmp_path))
    sealed.write(at, "x.json", {"a": 1})
    assert sealed.read(at, "x.json") == {"a": 1}
    with pytest.raises(FileNotFoundError):
        sealed.read(at, "y.json")
