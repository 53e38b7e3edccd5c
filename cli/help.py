"""Help in sections: a command's own options, then its run options; commands by purpose."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click
from click.shell_completion import CompletionItem


class SectionedCommand(click.Command):
    """A command whose run options have a section of their own."""

    def __init__(
        self,
        name: str | None,
        *,
        params: Sequence[click.Parameter] | None = None,
        running: Sequence[click.Parameter] = (),
        **more: Any,
    ) -> None:
        super().__init__(name, params=[*(params or ()), *running], **more)
        self._running = running

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows: dict[str, list[tuple[str, str]]] = {"Options": [], "Running": []}
        for option in self.get_params(ctx):
            if isinstance(option, click.Option) and (record := option.get_help_record(ctx)):
                rows["Running" if option in self._running else "Options"].append(record)
        for title, records in rows.items():
            _write_section(formatter, title, records)


@dataclass(frozen=True, slots=True)
class Lazy:
    """A command that is imported when it is called: its help line, and the function that loads it."""

    line: str
    load: Callable[[], click.Command]


class Group(click.Group):
    """A group that imports a command when it is called, and lists all in sections with their whole lines."""

    def __init__(
        self,
        *arguments: Any,
        lazy: Callable[[], Mapping[str, Lazy]],
        sections: Callable[[], Mapping[str, Sequence[str]]] | None = None,
        **more: Any,
    ) -> None:
        super().__init__(*arguments, **more)
        self._lazy, self._own_sections = lazy, sections

    @property
    def lazy(self) -> Mapping[str, Lazy]:
        """Computed on each access, because a command may have been registered since."""
        return self._lazy()

    @property
    def _sections(self) -> Mapping[str, Sequence[str]]:
        return self._own_sections() if self._own_sections else {"Commands": list(self.lazy)}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for names in self._sections.values() for name in names]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return self.lazy[cmd_name].load() if cmd_name in self.lazy else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.lazy and not args[0].startswith("-"):
            from difflib import get_close_matches

            near = get_close_matches(args[0], self.list_commands(ctx), n=1)
            meant = f" Did you mean {near[0]!r}?" if near else ""
            raise click.UsageError(f"No such command {args[0]!r}.{meant}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, names in self._sections.items():
            shown = [(name, self.lazy[name].line) for name in names]
            _write_section(formatter, title, shown)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        names = [CompletionItem(name) for name in self.list_commands(ctx) if name.startswith(incomplete)]
        return names + click.Command.shell_complete(self, ctx, incomplete)


def _write_section(formatter: click.HelpFormatter, title: str, rows: Sequence[tuple[str, str]]) -> None:
    if rows:
        with formatter.section(title):
            formatter.write_dl(rows)
