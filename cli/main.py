"""The command `maskmill`: finds the subcommand, and turns whatever ends it into one line and an exit code.

A subcommand is a click command that returns its exit code, or nothing for 0. It is imported when it is called, never
for `--help`, so that asking costs no torch.
"""

import errno
import os
import select
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from types import FrameType

import click

from .. import __version__
from ..manifests.errors import ConfigError, EnvironmentFault, MaskmillError, Terminated
from ..manifests.files import torchrun

STDOUT, STDERR = 1, 2
TOGETHER = {"pretrain"}  # commands that several processes may run as one
# Commands of which nothing stays until they have ended.
ANEW = {"compare", "diff", "export", "weights", "plan", "status", "report", "verify", "doctor", "recipe"}
ANEW_OF_SEVERAL = {("evaluate", "masks")}
BUG, USAGE, INTERRUPTED, READER_LEFT, TERMINATED = 1, 2, 130, 141, 143

# Name → where its click command is, and its line in `maskmill --help`.
COMMANDS = {
    "run": ("run:run", "Run every stage of a recipe, from pictures to labels."),
    "sweep": ("sweep:sweep", "Run a recipe with every combination of some settings, and say what each is worth."),
    "recipe": ("recipe:recipe", "List, show and copy the recipes that ship."),
    "index": ("index:index", "List the pictures of a dataset, with their labels and masks."),
    "extract": ("extract:extract", "Run a vision transformer over the pictures, once, and keep its tokens."),
    "pixels": ("pixels:pixels", "Decode and resize the pictures, once, for pretraining and pixel students."),
    "pretrain": ("pretrain:pretrain", "Train a backbone on the pictures without labels."),
    "fit": ("fit:fit", "Fit a mask method that is trained, on image-level labels."),
    "mask": ("mask:mask", "Make soft maps from tokens, by one of the mask methods."),
    "enhance": ("enhance:enhance", "Make better maps of the heads' maps, learned from a few masks."),
    "refine": ("refine:refine", "Make label maps from soft maps, refined on the pictures if wanted."),
    "manifest": ("manifest:manifest", "Publish label maps as a dataset that can be shared."),
    "train": ("train:train", "Train a student on a dataset, from stored tokens or with the backbone in the loop."),
    "evaluate": ("evaluate:evaluate", "Judge maps, labels or a dataset against ground truth."),
    "compare": ("compare:compare", "Hold two maps, labels or datasets of the same pictures against each other."),
    "diff": ("diff:diff", "Say which rows of a dataset came, went and changed from one version to another."),
    "export": ("export:export", "Write a dataset as COCO, VOC, YOLO and other tools read it."),
    "push": ("push:push", "Put a dataset where other teams pull it from; only what is missing travels."),
    "pull": ("pull:pull", "Fetch a dataset that was pushed, and verify every file of it."),
    "weights": ("weights:weights", "Turn a training checkpoint into a file of weights alone."),
    "plan": ("plan:plan", "Say what a stage would do: units, files, bytes, memory."),
    "status": ("status:status", "Say how far an artifact is, from its files alone."),
    "report": ("report:report", "Show what a run made: one HTML file with figures and pictures."),
    "verify": ("verify:verify", "Compare every byte of an artifact with what its records say."),
    "retry": ("retry:retry", "Run the units that hold failed rows again."),
    "finish": ("finish:finish", "Check and complete an artifact whose parts have run."),
    "gc": ("gc:gc", "Show what in a work folder nothing needs any more, and delete it."),
    "doctor": ("doctor:doctor", "Check this machine: versions, CRF, GPU, threads, disk."),
    "demo": ("demo:demo", "Run everything on pictures made on the spot."),
}


class LazyGroup(click.Group):
    """A group whose commands are names and help lines until one of them is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)  # in the order in which they are used

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, found, rest = super().resolve_command(ctx, args)
        if found and name not in TOGETHER and torchrun.num_processes() > 1:
            raise ConfigError(f"`maskmill {name}` is run by one process; start it without torchrun")
        return name, load(name) if found and name else None, rest


def load(name: str) -> click.Command:
    """The click command behind a name of the table."""
    module, _, attribute = COMMANDS[name][0].partition(":")
    command: click.Command = getattr(import_module(f".{module}", __package__), attribute)
    return command


@click.group(
    cls=LazyGroup,
    commands={name: click.Command(name, help=line) for name, (_, line) in COMMANDS.items()},
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    epilog="Exit codes: 0 done, 1 bug, 2 usage, input or unfinished, 3 stale, 4 corrupt, 5 too many failed images, "
    "6 done with a warning, 7 environment, 8 training diverged, 75 held by another run, 130/143 stopped by a signal.",
)
@click.version_option(__version__, prog_name="maskmill", message="%(prog)s %(version)s")
def cli() -> None:
    """Turn images with image-level labels into a dataset of pseudo-masks."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command line and gives its exit code; nothing but a bug leaves a traceback."""
    typed = list(sys.argv[1:] if arguments is None else arguments)
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
        if error.errno in (errno.ENOSPC, errno.EDQUOT):  # only what is printed comes here as a bare OSError
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
        # Not `cli.main`: it turns KeyboardInterrupt, EOFError and a broken pipe into answers of its own.
        with cli.make_context("maskmill", arguments) as context:
            return cli.invoke(context) or 0
    except click.exceptions.Exit as exit_:
        return exit_.exit_code


@contextmanager
def _raise_signals() -> Iterator[None]:
    """SIGINT and SIGTERM as exceptions in the main thread; whoever presses Ctrl-C again does not wait for clean-up."""
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
    if not ANEW.isdisjoint(typed[:1]) or tuple(typed[:2]) in ANEW_OF_SEVERAL:
        return "nothing was changed, and the same command begins anew"
    return "what is finished stays, and the same command goes on from there"


def _say(sentence: str) -> None:
    print(f"maskmill: {sentence}", file=sys.stderr)


def _bug(error: Exception) -> int:
    traceback.print_exception(error)
    _say(f"{type(error).__name__} is a bug in maskmill; please report it with the lines above")
    return BUG


def _streams_without_reader() -> list[int]:
    """Which of stdout and stderr nobody reads any more, as behind `| head`."""
    poll = select.poll()
    for descriptor in (STDOUT, STDERR):
        poll.register(descriptor, 0)
    return [descriptor for descriptor, flags in poll.poll(0) if flags & (select.POLLERR | select.POLLHUP)]


def _silence(descriptors: list[int]) -> None:
    """Leads what is still in Python's buffers nowhere, or exiting would fail on it once more."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in descriptors:
        os.dup2(nowhere, descriptor)
    os.close(nowhere)
