"""A process that is killed in the middle of its work: before any change that it makes in the kernel or to a pin."""

import os
import signal
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from handover_agent import bpfmap, bpfsys, features
from handover_agent.bpfsys import Command, Descriptor, ProgramType
from handover_agent.features import instruction
from handover_agent.loader import programs
from tests.datapath.trial import GO_ON

CHANGES = {
    *(Command.MAP_CREATE, Command.MAP_UPDATE_ELEM, Command.MAP_UPDATE_BATCH),
    *(Command.MAP_DELETE_ELEM, Command.MAP_DELETE_BATCH, Command.MAP_LOOKUP_AND_DELETE_ELEM),
    *(Command.PROG_LOAD, Command.OBJ_PIN, Command.LINK_CREATE, Command.LINK_UPDATE, Command.LINK_DETACH),
}
_LEAVE_ALONE = instruction(0xB7, dst=0, imm=GO_ON) + instruction(0x95)  # r0 = GO_ON; exit


def killed_at(change: int, work: Callable[[], object]) -> bool:
    """Run `work` in a process that is killed before its `change`-th change. False: it came to its end."""
    child = os.fork()
    if not child:
        kill_before(change)
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(3)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert status == 0 or os.WIFSIGNALED(status), f"the process failed instead of being killed: {status}"
    return os.WIFSIGNALED(status)


def kill_before(change: int) -> None:
    """Have this process be killed where it would make its `change`-th change from now on."""
    left = change

    def stepping(function: Callable[..., Any], counts: Callable[..., bool]) -> Callable[..., Any]:
        def changing(*arguments: Any, **named: Any) -> Any:
            nonlocal left
            if counts(*arguments):
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **named)

        return changing

    for owner in (bpfmap, bpfsys):
        owner.call = stepping(owner.call, lambda command, _: command in CHANGES)  # type: ignore[attr-defined]
    for name in ("rename", "unlink", "rmdir"):
        setattr(Path, name, stepping(getattr(Path, name), lambda *_: True))


def only_order_matters(monkeypatch: pytest.MonkeyPatch, real: tuple[str, ...] = ()) -> None:
    """Make it quick to load programs again and again, where a test is about the order of changes.

    Most of that time the kernel verifies programs for packets. In their place, but for the `real` ones, are the shortest
    that leave packets alone. Features are looked for once: that changes nothing, so that there is nothing to be killed at.
    """
    really = bpfsys.program_load

    def load(kind: ProgramType, attach_type: int, code: bytes, name: str) -> Descriptor:
        short = kind is ProgramType.SCHED_CLS and name not in real
        return really(kind, attach_type, _LEAVE_ALONE if short else code, name)

    monkeypatch.setattr(programs, "program_load", load)
    for name in ("probe", "packet_netns", "tcx"):
        found = getattr(features, name)()
        monkeypatch.setattr(features, name, lambda found=found: found)
