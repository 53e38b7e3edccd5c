"""What a computation without units keeps while it is at it, to go on from there after it was stopped.

Each file's name holds the sha256 of its bytes, so that a file that was damaged counts as not there.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping

from ..files import atomic
from ..files.place import Place

FOLDER = "underway"


Show = Callable[[int, Mapping[str, object]], None]


def no_progress(step: int, values: Mapping[str, object]) -> None: ...


class Underway:
    """Files under one folder of an artifact that is not finished; none are left when it is."""

    keeps = True  # whether what is kept is written, and so worth making

    def __init__(
        self,
        at: Place,
        begin: Callable[[], None] = lambda: None,
        log: Callable[[dict[str, object]], None] = lambda event: None,
        say: Callable[[str], None] = lambda text: None,
        show: Show = no_progress,
    ) -> None:
        self._at, self._begin = at, begin
        self.log = log  # a line in the artifact's log
        self.say = say  # to whoever watches
        self.show = show  # a step and its values, to whoever draws them

    def keep(self, name: str, data: bytes) -> None:
        """Writes a file, and then removes all but it and the one that came before: of later ones, which were damaged,
        nothing was gone on from."""
        before = self.names()
        self._begin()
        kept = f"{FOLDER}/{name}.{hashlib.sha256(data).hexdigest()}"
        atomic.write(self._at, kept, data)
        earlier = [each for each in before if each < kept]
        for old in set(before) - {kept, *earlier[-1:]}:
            atomic.remove(self._at, old)

    def latest(self) -> Iterator[tuple[str, bytes]]:
        """Names and bytes of what is whole, the last in order of names first."""
        for kept in reversed(self.names()):
            data = self._at.read(kept)
            name, _, digest = kept.removeprefix(f"{FOLDER}/").rpartition(".")
            if hashlib.sha256(data).hexdigest() == digest:
                yield name, data
            else:
                self.log({"event": "damaged, not used", "file": kept})

    def clear(self) -> None:
        for kept in self.names():
            atomic.remove(self._at, kept)
        if self._at.is_local:
            atomic.remove_directory(self._at.join(FOLDER))

    def names(self) -> list[str]:
        return sorted(name for name in self._at.names(FOLDER) if not name.endswith(atomic.TEMPORARY_SUFFIX))


class SilentUnderway(Underway):
    """Of a process that computes beside the one that writes: it has nothing, keeps nothing and says nothing."""

    keeps = False

    def __init__(self) -> None:
        self.log = lambda event: None
        self.say = lambda text: None
        self.show = no_progress

    def keep(self, name: str, data: bytes) -> None: ...

    def names(self) -> list[str]:
        return []
