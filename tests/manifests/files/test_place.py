"""Directories by path and by URL: names come back as they were written, whatever characters they hold."""

import os
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from maskmill.manifests.errors import ConfigError, EnvironmentFault
from maskmill.manifests.files import atomic
from maskmill.manifests.files.place import Place, place, split

# What may stand in a file name on a disk: anything but a slash and NUL, and not one of the two dots' names.
names = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=20).filter(
    lambda name: name not in (".", "..") and len(name.encode()) < 200
)
paths = st.lists(names, min_size=1, max_size=3).map("/".join)


@given(st.dictionaries(paths, st.binary(max_size=20), max_size=6))
def test_names_are_what_was_written(tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]) -> None:
    at = place(tmp_path_factory.mktemp("names"))
    written: dict[str, bytes] = {}
    for name, data in files.items():
        try:
            atomic.write(at, name, data)
        except (EnvironmentFault, FileExistsError):  # a file stands where this one needs a directory, or the reverse
            continue
        written[name] = data
    assert set(at.names()) == set(written)
    assert list(at.names()) == list(at.names())
    for name, data in written.items():
        assert at.read(name) == data
        assert at.read_range(name, 1, 4) == data[1:4]
        found = at.stat(name)
        assert found is not None
        assert found.size == len(data)
        folder, last = split(at.path(name))
        assert (folder.read(last), folder.path(last)) == (data, at.path(name))
        head = name.partition("/")[0]
        if head != name:
            assert set(at.names(head)) == {each for each in written if each.startswith(f"{head}/")}


@given(paths)
def test_a_local_path_keeps_its_characters(path: str) -> None:
    assert place(f"/{path}").uri == str(Path(f"/{path}"))
    assert place(f"/{path}").is_local
    assert split(f"/{path}") == (place(os.path.dirname(f"/{path}")), os.path.basename(f"/{path}"))
    assert place(place(f"/{path}").uri) == place(f"/{path}")


@pytest.mark.parametrize(
    ("given", "uri"),
    [
        ("/a/b/", "/a/b"),
        ("/", "/"),
        ("file:///a/b%20c/%C3%A4", "/a/b c/ä"),
        ("/a/x://y", "/a/x:/y"),
        ("s3://bucket/a/", "s3://bucket/a"),
        ("s3://bucket", "s3://bucket"),
        ("memory://a", "memory://a"),
        ("s3://bucket/100%25", "s3://bucket/100%25"),  # a key is no percent-encoded path
    ],
)
def test_what_a_user_writes(given: str, uri: str) -> None:
    assert place(given).uri == uri


def test_relative_paths_and_homes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    assert place("a").uri == f"{tmp_path}/a"
    assert place("").uri == str(tmp_path)
    assert place("~/a").uri == "/home/somebody/a"
    assert place("~nobody-of-that-name/a").uri == f"{tmp_path}/~nobody-of-that-name/a"
    assert split("a") == (Place(str(tmp_path)), "a")


def test_the_root_directory_and_what_is_below() -> None:
    assert Place("/").path("a") == "/a"
    assert split("/a") == (Place("/"), "a")
    assert split("s3://bucket/a/b") == (Place("s3://bucket/a"), "b")


@pytest.mark.parametrize("url", ["s3://", "memory://", "s3:///"])
def test_a_url_without_a_bucket_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="bucket"):
        place(url)


def test_a_scheme_that_nobody_knows_is_refused() -> None:
    with pytest.raises(ConfigError, match="nonsense://a"):
        place("nonsense://a/b").read("c")


def test_missing_files(tmp_path: Path) -> None:
    at = place(tmp_path)
    atomic.write(at, "file", b"x")
    for name in ("none", "none/none", "file/none"):
        assert at.stat(name) is None
        assert list(at.names(name)) == []
        with pytest.raises((FileNotFoundError, NotADirectoryError)):
            at.read(name)


def test_names_neither_follows_links_nor_lists_directories(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "round").symlink_to(tmp_path)
    (tmp_path / "file").write_bytes(b"")
    assert list(place(tmp_path).names()) == ["file", "round"]
