"""What processes at one training share. Several real ones are tried in tests/cli/test_torchrun.py."""

import os
import signal

import pytest
import torch

from maskmill.manifests.errors import EnvironmentFault, Terminated
from maskmill.manifests.files import torchrun
from maskmill.stages.learning.processes import (
    WHOLE,
    BatchSlice,
    OthersLost,
    average_gradients,
    broadcast_bytes,
    detect_lost_processes,
    exchange_rows,
    gather_all,
    gather_texts,
    own_batch_slice,
    own_device,
)
from maskmill.stages.learning.stopping import catch_stops


@pytest.fixture
def second_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)


def test_parts_are_the_whole_in_order() -> None:
    rows = torch.arange(24).view(2, 12)
    for count in (1, 2, 3, 4, 6, 12):
        parts = [BatchSlice(index, count).take(rows, dim=1) for index in range(count)]
        assert {part.shape[1] for part in parts} == {12 // count}
        assert torch.equal(torch.cat(parts, dim=1), rows)


def test_one_process_has_all_and_asks_nobody() -> None:
    assert own_batch_slice() == WHOLE
    own = torch.arange(6.0).view(3, 2)
    assert torch.equal(gather_all(own), own[None])
    assert torch.equal(exchange_rows(own, [torch.tensor([2, 0, 0])], WHOLE), own[[2, 0, 0]])
    assert broadcast_bytes(b"data") == b"data"
    assert gather_texts("text") == ["text"]
    weight = torch.ones(2, requires_grad=True)
    weight.sum().backward()
    average_gradients([weight])
    assert weight.grad is not None
    assert torch.equal(weight.grad, torch.ones(2))


@pytest.mark.usefixtures("second_of_two")
def test_each_takes_the_device_of_its_number() -> None:
    assert own_batch_slice() == BatchSlice(1, 2)
    assert [own_device(name) for name in ("cuda", "cpu")] == ["cuda:1", "cpu"]


@pytest.mark.usefixtures("second_of_two")
def test_who_loses_the_others_says_so_and_lack_of_memory_is_no_such_thing() -> None:
    with pytest.raises(OthersLost, match="process 1 of 2") as raised, detect_lost_processes():
        raise RuntimeError("Connection closed by peer")
    assert raised.value.exit_code == 7
    with pytest.raises(torch.OutOfMemoryError), detect_lost_processes():
        raise torch.OutOfMemoryError


def test_a_signal_to_one_process_is_raised_at_once() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with catch_stops() as stops:
        assert signal.getsignal(signal.SIGTERM) is before
        assert not stops.noted


@pytest.mark.parametrize(("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)])
def test_a_signal_to_one_of_several_is_noted_and_raised_where_nobody_waits(
    number: signal.Signals, raised: type[BaseException], monkeypatch: pytest.MonkeyPatch, second_of_two: None
) -> None:
    before = signal.getsignal(number)
    with catch_stops() as stops:
        os.kill(os.getpid(), number)
        assert stops.noted == number
        with stops.raise_at_once():
            assert stops.noted, "beside the first it is not raised: that one would be left waiting"
        monkeypatch.setenv("RANK", "0")
        with pytest.raises(raised), stops.raise_at_once():
            raise AssertionError("it was noted before")
        with pytest.raises(raised):
            stops.raise_for(stops.noted)
    assert signal.getsignal(number) is before


@pytest.mark.usefixtures("second_of_two")
def test_a_first_that_says_nothing_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent:
        def check(self, names: list[str]) -> bool:
            return False

    monkeypatch.setattr(torchrun, "store", Silent)
    monkeypatch.setattr(torchrun, "WAIT_S", 0.2)
    with pytest.raises(EnvironmentFault, match=r"process 1 of 2.*0 minutes"):
        torchrun.begin()
    with pytest.raises(KeyError), torchrun.exit_with_first():
        raise KeyError
