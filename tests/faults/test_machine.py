"""Row 38: whatever is done to an artifact in whatever order, `verify` calls it sound exactly when it is."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from faults.cases import Subject, files, reading_code, removed, tree, verdict_code
from faults.crash import Fault, as_command, in_child, kill, no_space
from faults.damage import flip

RUNS = settings(
    max_examples=200, stateful_step_count=10, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)


def machine_of(subject: Subject) -> type[RuleBasedStateMachine]:
    """A machine whose state is one output directory of a stage."""
    home = subject.home

    class Machine(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.out = home.new_out()

        @rule()
        def run(self) -> None:
            ended = home.tried(self.out)
            assert ended.code == 0, ended
            assert tree(self.out) == subject.tree

        @rule(at=st.integers(1, 80), act=st.sampled_from([kill, no_space]))
        def run_hurt(self, at: int, act: Callable[[], None]) -> None:
            in_child(as_command(lambda: home.run(self.out)), Fault(self.out, at, act))

        @rule(part=st.integers(1, 3))
        def run_part(self, part: int) -> None:
            ended = home.tried(self.out, part=(part, 3))
            assert ended.code in (0, 4), ended  # 4: the listing is damaged, and only a run of all rows makes it anew

        @rule()
        def finish(self) -> None:
            ended = in_child(as_command(lambda: home.finish(self.out)))
            assert ended.code in (0, 2, 4), ended  # done, units missing, or a listing damaged

        @precondition(lambda self: self.can_be_damaged())
        @rule(chance=st.randoms(use_true_random=False), how=st.sampled_from([flipped, cut, deleted]))
        def damage(self, chance: random.Random, how: Callable[[Path, random.Random], None]) -> None:
            how(self.out / chance.choice(self.can_be_damaged()), chance)

        @invariant()
        def verify_tells_the_truth(self) -> None:
            if self.out.exists():
                is_whole = {n: digest for n, digest in tree(self.out).items() if not n.endswith(".tmp")} == subject.tree
                assert (verdict_code(self.out) == 0) == is_whole
                assert (reading_code(self.out) == 0) == is_whole

        def teardown(self) -> None:
            removed(self.out)

        def can_be_damaged(self) -> list[str]:
            """Any file but the plan: what was to be made is written nowhere else."""
            return [name for name in files(self.out) if name != "plan.json"] if self.out.exists() else []

    return Machine


def flipped(path: Path, chance: random.Random) -> None:
    if size := path.stat().st_size:
        flip(path, chance.randrange(8 * size))


def cut(path: Path, chance: random.Random) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: chance.randrange(len(data) or 1)])


def deleted(path: Path, chance: random.Random) -> None:
    path.unlink()


@pytest.mark.slow
def test_any_sequence_of_events(subject: Subject) -> None:
    run_state_machine_as_test(machine_of(subject), settings=RUNS)
