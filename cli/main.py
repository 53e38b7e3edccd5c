"""The command `maskmill`: finds the subcommand, and turns whatever ends it into one line and an exit code.

A subcommand is a click command that returns its exit code, or nothing for 0. It is imported only when it is called, so
`--help` does not load torch.
"""

import errno
import logging
import os
import select
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from types import FrameType

import click

from .. import __version__
from ..manifests.errors import ConfigError, EnvironmentFault, MaskmillError, Terminated
from ..manifests.files import torchrun
from ..stages.registry import COMMANDS, GROUPS
from .help import Group, Lazy

STDOUT, STDERR = 1, 2
BUG, USAGE, INTERRUPTED, READER_LEFT, TERMINATED = 1, 2, 130, 141, 143

# Operator command → its module and its line in `maskmill --help`. Commands that make artifacts are in the registry.
OPERATORS = {
    "run": ("run:run", "Run every stage of a recipe, from pictures to a dataset."),
    "sweep": ("sweep:sweep", "Run a recipe with every combination of some settings and compare them."),
    "recipe": ("recipe:recipe", "List, show and copy the recipes that ship."),
    "demo": ("demo:demo", "Run everything on generated pictures, or on your own."),
    "report": ("report:report", "Write an HTML report of a work folder or some artifacts."),
    "compare": ("compare:compare", "Compare two maps, labels or datasets of the same pictures."),
    "diff": ("diff:diff", "List the rows that differ between two versions of a dataset."),
    "export": ("export:export", "Write a dataset in the format of another tool (COCO, VOC, YOLO, …)."),
    "push": ("push:push", "Upload a dataset as a version; only missing files are sent."),
    "pull": ("pull:pull", "Download a version of a dataset and verify every file."),
    "weights": ("weights:weights", "Convert a training checkpoint into a file of weights."),
    "plan": ("plan:plan", "Show what a stage would make: rows, files, bytes, memory."),
    "status": ("status:status", "Show how far an artifact is and what failed."),
    "verify": ("verify:verify", "Check every byte of an artifact against its records."),
    "retry": ("retry:retry", "Rerun the units that have failed rows."),
    "finish": ("finish:finish", "Check and complete an artifact whose parts have run."),
    "gc": ("gc:gc", "List the artifacts of a work folder that are no longer needed; delete them with --yes."),
    "doctor": ("doctor:doctor", "Check this machine: versions, CRF, GPU, threads, disk."),
}
# Commands that resume nothing.
ANEW = {"compare", "diff", "export", "weights", "plan", "status", "report", "verify", "doctor", "recipe"}


def _sections() -> dict[str, Sequence[str]]:
    stages = dict.fromkeys(entry.words[0] for entry in COMMANDS.values())
    return {
        "Pipeline": ("run", "sweep", "recipe", "demo", *stages),
        "Look and judge": ("report", "compare", "diff", "status"),
        "Share": ("export", "push", "pull", "weights"),
        "Operate": ("plan", "verify", "retry", "finish", "gc", "doctor"),
    }


def load(name: str) -> click.Command:
    module, _, attribute = OPERATORS[name][0].partition(":")
    command: click.Command = getattr(import_module(f".{module}", __package__), attribute)
    return command


def _load(name: str) -> click.Command:
    return load(name)  # a lookup at call time, so that tests can replace `load`


def _commands() -> dict[str, Lazy]:
    """All commands; what is behind one is imported when it is called."""

    def load_stage(word: str) -> click.Command:
        from .stage_commands import stage_commands

        return stage_commands(COMMANDS.values())[word].load()

    lines = {entry.words[0]: entry.line for entry in COMMANDS.values()} | GROUPS
    stages = {word: Lazy(line, partial(load_stage, word)) for word, line in lines.items()}
    return stages | {name: Lazy(line, partial(_load, name)) for name, (_, line) in OPERATORS.items()}


class MainGroup(Group):
    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and torchrun.num_processes() > 1 and not _runs_together(args[0]):
            raise ConfigError(f"`maskmill {args[0]}` runs in one process; start it without torchrun")
        return super().resolve_command(ctx, args)


def _runs_together(word: str) -> bool:
    return any(entry.words[0] == word and entry.command.runs_together for entry in COMMANDS.values())


@click.group(
    cls=MainGroup,
    lazy=_commands,
    sections=_sections,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    epilog="Exit codes: 0 done, 1 bug, 2 usage, input or unfinished, 3 stale, 4 corrupt, 5 too many failed images, "
    "6 done with a warning, 7 environment, 8 training diverged, 75 held by another run, 130/143 stopped by a signal.",
)
@click.version_option(__version__, prog_name="maskmill", message="%(prog)s %(version)s")
def cli() -> None:
    """Turn images with image-level labels into a dataset of pseudo-masks."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command line and returns its exit code. Only a bug prints a traceback."""
    typed = list(sys.argv[1:] if arguments is None else arguments)
    _print_notices()
    try:
        with _raise_signals(), torchrun.exit_with_first():
            code = _run(typed)
        sys.stdout.flush()
        return code
    except MaskmillError as error:
        _say(str(error))
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return USAGE
    except (KeyboardInterrupt, click.Abort):
        _say(f"stopped by Ctrl-C; {_resume_hint(typed)}")
        return INTERRUPTED
    except Terminated:
        _say(f"stopped by SIGTERM; {_resume_hint(typed)}")
        return TERMINATED
    except OSError as error:
        if isinstance(error, BrokenPipeError) and (left := _streams_without_reader()):
            _silence(left)
            return READER_LEFT
        if error.errno in (errno.ENOSPC, errno.EDQUOT):  # only printing raises a bare OSError
            _silence([STDOUT])
            _say(f"cannot print: {error.strerror}; free space where the output goes")
            return EnvironmentFault.exit_code
        return _bug(error)
    except Exception as error:
        return _bug(error)
    finally:
        torchrun.end()


def _run(arguments: list[str]) -> int:
    if instruction := os.environ.get("_MASKMILL_COMPLETE"):
        from click.shell_completion import shell_complete

        return shell_complete(cli, {}, "maskmill", "_MASKMILL_COMPLETE", instruction)
    try:
        # Not `cli.main`: it handles KeyboardInterrupt, EOFError and a broken pipe in its own way.
        with cli.make_context("maskmill", arguments) as context:
            return cli.invoke(context) or 0
    except click.exceptions.Exit as exit_:
        return exit_.exit_code


@contextmanager
def _raise_signals() -> Iterator[None]:
    """Raises SIGINT and SIGTERM as exceptions in the main thread. A second Ctrl-C ends at once, without clean-up."""
    asked_to_stop = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal asked_to_stop
        if asked_to_stop and number == signal.SIGINT:
            os._exit(INTERRUPTED)
        if asked_to_stop:  # batch systems send SIGTERM to a process and to its group
            return
        asked_to_stop = True
        raise KeyboardInterrupt if number == signal.SIGINT else Terminated

    # What the caller ignores stays ignored: a shell starts background jobs with SIGINT off.
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    heard = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}
    for number in heard:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in heard.items():
            signal.signal(number, handler)


def _resume_hint(typed: Sequence[str]) -> str:
    anew = [entry.words for entry in COMMANDS.values() if not entry.command.resumes]
    if not ANEW.isdisjoint(typed[:1]) or any(tuple(typed[: len(words)]) == words for words in anew):
        return "nothing was changed; run the same command to start again"
    return "finished work is kept; run the same command to resume"


def _print_notices() -> None:
    """Prints each notice of the library as a line on standard error."""
    logger = logging.getLogger("maskmill")
    if not any(isinstance(each, _Notices) for each in logger.handlers):
        logger.addHandler(_Notices())
    logger.setLevel(logging.INFO)
    logger.propagate = False


class _Notices(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        _say(record.getMessage())


def _say(sentence: str) -> None:
    print(f"maskmill: {sentence}", file=sys.stderr)


def _bug(error: Exception) -> int:
    traceback.print_exception(error)
    _say(f"{type(error).__name__} is a bug in maskmill; please report it with the lines above")
    return BUG


def _streams_without_reader() -> list[int]:
    """Which of stdout and stderr have lost their reader, as behind `| head`."""
    poll = select.poll()
    for descriptor in (STDOUT, STDERR):
        poll.register(descriptor, 0)
    return [descriptor for descriptor, flags in poll.poll(0) if flags & (select.POLLERR | select.POLLHUP)]


def _silence(descriptors: list[int]) -> None:
    """Discards what is still in Python's buffers; otherwise exiting would fail on it again."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in descriptors:
        os.dup2(nowhere, descriptor)
    os.close(nowhere)
