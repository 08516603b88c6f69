"""Before Linux 5.11 maps count as locked memory, of which a process may have little unless it asks for more."""

import errno
import resource

import pytest
from handover_agent import bpfmap
from handover_agent.bpfmap import MapType, map_create
from handover_agent.bpfsys import BpfError, Command

pytestmark = pytest.mark.unit

NEEDED = 1 << 20
LITTLE = 1 << 16


class Kernel:
    """Refuses a map while the limit is too low, as Linux 5.10 does; and whoever must not raise a hard limit."""

    def __init__(self, hard: int, may_raise: bool) -> None:
        self.limits, self._may_raise, self.tries = (LITTLE, hard), may_raise, 0

    def bpf(self, command: Command, _: object, tried: str) -> int:
        self.tries += 1
        if self.limits[0] < NEEDED and self.limits[0] != resource.RLIM_INFINITY:
            raise BpfError(errno.EPERM, f"bpf({command.name}) on {tried}")
        return 77

    def setrlimit(self, _: int, limits: tuple[int, int]) -> None:
        if limits[1] != self.limits[1] and not self._may_raise:
            raise ValueError("not allowed to raise maximum limit")
        self.limits = limits


def create(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(bpfmap, "bpf", kernel.bpf)
    monkeypatch.setattr(resource, "getrlimit", lambda _: kernel.limits)
    monkeypatch.setattr(resource, "setrlimit", kernel.setrlimit)
    return map_create(MapType.HASH, 4, 4, 1, "some").fd


def test_who_may_raises_the_limit_altogether(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(LITTLE, may_raise=True)
    assert create(kernel, monkeypatch) == 77
    assert kernel.limits == (resource.RLIM_INFINITY, resource.RLIM_INFINITY)


def test_who_may_not_goes_up_to_the_hard_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(NEEDED, may_raise=False)
    assert create(kernel, monkeypatch) == 77
    assert kernel.limits == (NEEDED, NEEDED)


def test_where_that_is_too_little_the_error_says_what_to_look_at(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(LITTLE, may_raise=False)
    with pytest.raises(BpfError, match=r"locked memory \(ulimit -l\)"):
        create(kernel, monkeypatch)
    assert kernel.tries == 1
