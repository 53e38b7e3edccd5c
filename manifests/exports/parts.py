"""Numbered files of bounded size, one series per split."""

from contextlib import ExitStack

from ..files.atomic import HashingWriter
from .folder import Folder


class Parts:
    """A piece is never divided; a new file starts if the next piece would make this one too large."""

    def __init__(
        self, folder: Folder, pattern: str, max_bytes: int, begin: bytes = b"", between: bytes = b"", end: bytes = b""
    ) -> None:
        self._folder, self._pattern, self._max_bytes = folder, pattern, max_bytes
        self._begin, self._between, self._end = begin, between, end
        self._open: dict[str, tuple[ExitStack, HashingWriter]] = {}
        self._count: dict[str, int] = {}

    def write(self, split: str, piece: bytes) -> None:
        if split in self._open and self._open[split][1].size + len(piece) > self._max_bytes:
            self._close(split)
        is_first = split not in self._open
        stream = self._begin_part(split) if is_first else self._open[split][1]
        stream.write(piece if is_first else self._between + piece)

    def _begin_part(self, split: str) -> HashingWriter:
        number = self._count.get(split, 0)
        self._count[split] = number + 1
        stack = ExitStack()
        stream = stack.enter_context(self._folder.stream(self._pattern.format(split=split, number=number)))
        self._open[split] = stack, stream
        stream.write(self._begin)
        return stream

    def _close(self, split: str) -> None:
        stack, stream = self._open.pop(split)
        with stack:
            stream.write(self._end)

    def __enter__(self) -> "Parts":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """After an error, files are closed unfinished; the folder is removed."""
        for split in list(self._open):
            if kind is None:
                self._close(split)
            else:
                self._open.pop(split)[0].close()
