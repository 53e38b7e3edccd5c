"""The shell around every command: help that costs nothing, errors as one line, and an exit code for each end."""

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time

import click
import pytest

from maskmill.cli import main as shell
from maskmill.cli.main import OPERATORS, main
from maskmill.manifests import errors
from maskmill.stages.registry import COMMANDS

# Without the stages of the tests themselves.
OWN = {*OPERATORS, *(entry.words[0] for entry in COMMANDS.values() if entry.module.startswith("."))}
HEAVY = {"torch", "torchvision", "timm", "dask", "distributed", "scipy", "skimage"}
MEDIUM = {"zarr", "pyarrow", "numpy", "PIL", "fsspec", "rich"}  # a few tenths of a second together


def run(script: str, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, **options)


def test_help_lists_every_command_and_imports_nothing_heavy():
    ran = run("import sys; from maskmill.cli.main import main; main(['--help']); print(*sys.modules, file=sys.stderr)")
    listed = re.findall(r"^  (\w+)  ", ran.stdout.partition("Pipeline:")[2], re.MULTILINE)
    assert sorted(listed) == sorted(OWN)
    assert {name.partition(".")[0] for name in ran.stderr.split()} & (HEAVY | MEDIUM) == set()


def test_the_help_of_every_command_imports_nothing_heavy():
    ran = run(
        """
        import json, sys, click
        from maskmill.cli.main import cli, main

        def paths(command, path):
            yield path
            context = click.Context(command)
            for name in getattr(command, 'lazy', None) or getattr(command, 'commands', []):
                yield from paths(command.get_command(context, name), [*path, name])

        asked = [path for path in paths(cli, []) if path]
        codes = {" ".join(path): main([*path, "--help"]) for path in asked}
        print(json.dumps([codes, sorted({name.partition(".")[0] for name in sys.modules})]), file=sys.stderr)
        """
    )
    codes, modules = json.loads(ran.stderr.splitlines()[-1])
    assert set(codes) >= OWN - {"index", "enhance", "evaluate"}
    assert set(codes.values()) == {0}
    assert set(modules) & HEAVY == set()


def test_an_import_of_torch_would_be_seen():
    ran = run("import sys, torch; print(*sys.modules)")
    assert {name.partition(".")[0] for name in ran.stdout.split()} & HEAVY


@pytest.mark.parametrize("name", OPERATORS)
def test_a_command_is_called_what_the_table_calls_it(name):
    command = shell.load(name)
    assert command.name == name
    assert command.help


def test_version():
    ran = subprocess.run([sys.executable, "-m", "maskmill", "--version"], capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert re.fullmatch(r"maskmill \d+\.\d+\.\d+\n", ran.stdout)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["statsu"], "'status'"),
        (["verfy"], "'verify'"),
        (["zzz"], "'zzz'"),
        (["--nope"], "--nope"),
        ([], "Pipeline:"),
    ],
)
def test_wrong_use_is_told_and_exits_2(arguments, told, capsys):
    assert main(arguments) == 2
    output = capsys.readouterr()
    assert told in output.err
    assert output.out == ""


@pytest.fixture
def command(monkeypatch):
    """Puts a function behind the name `status`."""

    def put(function):
        monkeypatch.setattr(shell, "load", lambda name: click.Command(name, callback=function))

    return put


ERRORS = [
    (errors.ConfigError, 2),
    (errors.InputError, 2),
    (errors.MissingArtifact, 2),
    (errors.UnfinishedArtifact, 2),
    (errors.StaleArtifact, 3),
    (errors.CorruptArtifact, 4),
    (errors.TooManyFailed, 5),
    (errors.EnvironmentFault, 7),
    (errors.Diverged, 8),
    (errors.ArtifactBusy, 75),
]


@pytest.mark.parametrize(("error", "code"), ERRORS)
def test_a_users_mistake_is_one_line_and_its_exit_code(error, code, command, capsys):
    def fail():
        raise error("tokens at /d are not there; name another directory")

    command(fail)
    assert main(["status"]) == code
    output = capsys.readouterr()
    assert output.err == "maskmill: tokens at /d are not there; name another directory\n"
    assert output.out == ""


def test_every_error_has_its_line_in_the_table():
    leaves = {
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.MaskmillError)
    }
    assert leaves - {errors.MaskmillError} <= {error for error, _ in ERRORS}


@pytest.mark.parametrize(
    "error", [ZeroDivisionError("division by zero"), EOFError(), BrokenPipeError(32, "to a worker")]
)
def test_a_bug_keeps_its_traceback_and_exits_1(error, command, capsys):
    def fail():
        raise error

    command(fail)
    assert main(["status"]) == 1
    told = capsys.readouterr().err
    assert told.startswith("Traceback")
    assert told.splitlines()[-1].startswith(f"maskmill: {type(error).__name__} ")


@pytest.mark.parametrize(("returned", "code"), [(None, 0), (0, 0), (6, 6)])
def test_a_command_returns_its_exit_code(returned, code, command):
    command(lambda: returned)
    assert main(["status"]) == code


def test_an_early_exit_keeps_its_code(command):
    command(lambda: click.get_current_context().exit(6))
    assert main(["status"]) == 6


def test_signal_handlers_are_put_back(command):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    during: list[object] = []
    command(lambda: during.extend(signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)))
    main(["status"])
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    assert all(handler not in before for handler in during)


SLEEPER = """
import sys, time, click
from maskmill.cli import main as shell

def sleep():
    try:
        print("ready", flush=True)
        time.sleep({work})
        print("through", flush=True)
    finally:
        print("cleaning", flush=True)
        time.sleep({cleaning})
        print("clean", flush=True)

shell.load = lambda name: click.Command(name, callback=sleep)
sys.exit(shell.main(["status"]))
"""


def stopped(
    signals: list[tuple[str, int]], work: float = 60, cleaning: float = 0, **options
) -> tuple[int, list[str], str]:
    """Exit code, output lines and errors of a run that is sent each signal when its line has appeared."""
    script = SLEEPER.format(work=60, cleaning=cleaning)
    command, pipe = [sys.executable, "-c", script], subprocess.PIPE
    with subprocess.Popen(command, text=True, stdout=pipe, stderr=pipe) as child:
        assert child.stdout is not None
        lines: list[str] = []
        for awaited, number in signals:
            while not lines or lines[-1] != awaited:
                lines.append(child.stdout.readline().strip())
            time.sleep(0.05)
            child.send_signal(number)
        rest, told = child.communicate(timeout=30)
        return child.returncode, [*lines, *rest.split()], told


@pytest.mark.parametrize(("number", "code", "name"), [(signal.SIGINT, 130, "Ctrl-C"), (signal.SIGTERM, 143, "SIGTERM")])
def test_a_signal_cleans_up_and_says_so(number, code, name):
    ended, lines, told = stopped([("ready", number)])
    assert (ended, lines) == (code, ["ready", "cleaning", "clean"])
    assert re.fullmatch(rf"maskmill: stopped by {name}; [^\n]+\n", told)


def test_a_second_ctrl_c_ends_at_once():
    began = time.monotonic()
    ended, lines, _ = stopped([("ready", signal.SIGINT), ("cleaning", signal.SIGINT)], cleaning=60)
    assert (ended, lines) == (130, ["ready", "cleaning"])
    assert time.monotonic() - began < 20


def test_a_second_sigterm_lets_the_first_clean_up():
    ended, lines, _ = stopped([("ready", signal.SIGTERM), ("cleaning", signal.SIGTERM)], cleaning=0.5)
    assert (ended, lines) == (143, ["ready", "cleaning", "clean"])


def test_what_the_caller_ignores_stays_ignored():
    ignore = (
        "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); os.execv(sys.executable, sys.argv[1:])"
    )
    script = SLEEPER.format(work=0.5, cleaning=0)
    command = [sys.executable, "-c", ignore, sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        child.send_signal(signal.SIGINT)
        rest, _ = child.communicate(timeout=30)
    assert (child.returncode, rest.split()) == (0, ["through", "cleaning", "clean"])


PRINTER = """
import sys, click
from maskmill.cli import main as shell

shell.load = lambda name: click.Command(name, callback=lambda: {})
sys.exit(shell.main(["status"]))
"""


def printed_to(descriptor: int, statement: str) -> tuple[int, str]:
    """Exit code and errors of a run that prints to a descriptor."""
    command = [sys.executable, "-c", PRINTER.format(statement)]
    buffered = os.environ | {"PYTHONUNBUFFERED": ""}
    ran = subprocess.run(command, stdout=descriptor, stderr=subprocess.PIPE, text=True, env=buffered)
    return ran.returncode, ran.stderr


@pytest.mark.parametrize("statement", ["print('kept in the buffer until the end')", "click.echo('written at once')"])
def test_a_reader_that_left_ends_the_run_silently(statement):
    reads, writes = os.pipe()
    os.close(reads)
    try:
        assert printed_to(writes, statement) == (141, "")
    finally:
        os.close(writes)


@pytest.mark.parametrize("statement", ["print('kept in the buffer until the end')", "click.echo('written at once')"])
def test_output_to_a_full_disk_is_told(statement):
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        code, told = printed_to(full, statement)
    finally:
        os.close(full)
    assert code == 7
    assert re.fullmatch(r"maskmill: .*No space left on device[^\n]+\n", told)


def test_the_shell_can_complete_names():
    asked = {"_MASKMILL_COMPLETE": "bash_complete", "COMP_WORDS": "maskmill do", "COMP_CWORD": "1"}
    ran = subprocess.run([sys.executable, "-m", "maskmill"], env=os.environ | asked, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (0, "plain,doctor\n")
