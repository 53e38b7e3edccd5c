"""Resume files of a computation without units, such as a training's state.

Each file's name holds the sha256 of its bytes; a damaged file counts as missing.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping

from ..files import atomic
from ..files.place import Place

FOLDER = "underway"
Show = Callable[[int, Mapping[str, object]], None]


def no_progress(step: int, values: Mapping[str, object]) -> None: ...


class Underway:
    """Resume files in one folder of an unfinished artifact; finishing removes them."""

    keeps = True  # whether `keep` writes, so that its data is worth making

    def __init__(
        self,
        at: Place,
        begin: Callable[[], None] = lambda: None,
        log: Callable[[dict[str, object]], None] = lambda event: None,
        say: Callable[[str], None] = lambda text: None,
        show: Show = no_progress,
    ) -> None:
        self._at, self._begin = at, begin
        self.log = log  # writes a line to the artifact's log
        self.say = say  # tells the user
        self.show = show  # reports a step and its values, for plots

    def keep(self, name: str, data: bytes) -> None:
        """Writes a file, then removes all but it and the one before; later ones were damaged and not used."""
        before = self.names()
        self._begin()
        file = f"{FOLDER}/{name}.{hashlib.sha256(data).hexdigest()}"
        atomic.write(self._at, file, data)
        earlier = [other for other in before if other < file]
        for outdated in set(before) - {file, *earlier[-1:]}:
            atomic.remove(self._at, outdated)

    def latest(self) -> Iterator[tuple[str, bytes]]:
        """Name and bytes of every undamaged file, the last by name first."""
        for file in reversed(self.names()):
            data = self._at.read(file)
            name, _, digest = file.removeprefix(f"{FOLDER}/").rpartition(".")
            if hashlib.sha256(data).hexdigest() == digest:
                yield name, data
            else:
                self.log({"event": "damaged, not used", "file": file})

    def clear(self) -> None:
        for file in self.names():
            atomic.remove(self._at, file)
        if self._at.is_local:
            atomic.remove_directory(self._at.join(FOLDER))

    def names(self) -> list[str]:
        return sorted(name for name in self._at.names(FOLDER) if not name.endswith(atomic.TEMPORARY_SUFFIX))


class SilentUnderway(Underway):
    """For a process that is not the writing one: keeps and reports nothing."""

    keeps = False

    def __init__(self) -> None:
        self.log = lambda event: None
        self.say = lambda text: None
        self.show = no_progress

    def keep(self, name: str, data: bytes) -> None: ...

    def names(self) -> list[str]:
        return []
