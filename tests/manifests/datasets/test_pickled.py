"""Pickles of plain lists are read, and nothing in a pickle is run."""

import os
import pickle
import pickletools
from collections import OrderedDict
from contextlib import suppress

import pytest
from hypothesis import given, strategies as st

from maskmill.manifests.datasets.pickled import plain_values
from maskmill.manifests.errors import InputError

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
numbers = st.integers(-(2**70), 2**70)
values = st.recursive(
    st.one_of(texts, numbers), lambda inner: st.one_of(st.lists(inner), st.dictionaries(numbers, inner)), max_leaves=12
)


@given(values, st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_plain_values_come_back_under_every_protocol(value, protocol):
    assert plain_values(pickle.dumps([value, value], protocol), "a.pkl") == [value, value]
    assert plain_values(pickletools.optimize(pickle.dumps(value, protocol)), "a.pkl") == value


def test_a_list_in_several_classes_is_one():
    names = ["a"]
    found = plain_values(pickle.dumps({0: names, 1: names}), "a.pkl")
    assert isinstance(found, dict)
    assert found[0] is found[1]


class Opens:
    """What unpickling would do: make a folder."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (self.folder,)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_what_a_pickle_would_run_does_not_run(tmp_path, protocol):
    data = pickle.dumps({0: ["a"], 1: Opens(str(tmp_path / "made"))}, protocol)
    with pytest.raises(InputError, match=r"a\.pkl"):
        plain_values(data, "a.pkl")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (OrderedDict(a=1), "GLOBAL collections OrderedDict"),
        ([1.5], "BINFLOAT"),
        ({1, 2}, "EMPTY_SET|GLOBAL"),
        ((1, 2), "TUPLE"),
    ],
)
def test_other_values_are_refused(value, said):
    with pytest.raises(InputError, match=said):
        plain_values(pickle.dumps(value, 2), "a.pkl")


def test_what_is_cut_off_is_refused():
    data = pickle.dumps({0: ["train2014/a.jpg", "train2014/b.jpg"], 1: []})
    for stop in range(len(data)):
        with pytest.raises(InputError, match=r"a\.pkl"):
            plain_values(data[:stop], "a.pkl")


@given(st.binary(max_size=60))
def test_whatever_bytes_come_give_a_value_or_a_sentence(data):
    with suppress(InputError):
        plain_values(data, "a.pkl")
