"""The agent is killed between any two steps that leave a trace; the next run goes on, or goes back."""

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from handover_agent import kubeproxy
from handover_agent.kubeproxy import Snapshot, SnapshotInvalid, keeper
from tests.node import rules
from tests.node.netns import Namespace, run

pytestmark = pytest.mark.node

SMALL = """\
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:KUBE-FORWARD - [0:0]
:KUBE-SERVICES - [0:0]
:USER - [0:0]
-A FORWARD -j USER
-A FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD
-A FORWARD -m conntrack --ctstate NEW -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-SEP-AAAAAAAAAAAAAAAA - [0:0]
-A PREROUTING -p tcp -m tcp --dport 3 -j RETURN
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A KUBE-SERVICES -d 10.96.0.1/32 -p tcp -m tcp --dport 443 -j KUBE-SEP-AAAAAAAAAAAAAAAA
-A KUBE-SEP-AAAAAAAAAAAAAAAA -p tcp -m tcp -j DNAT --to-destination 192.0.2.1:6443
COMMIT
"""
SMALL_NFT = "table ip kube-proxy { map service-ips { type ipv4_addr : verdict; }; chain services { ip daddr 10.96.0.1 drop; }; }"


def load_small() -> None:
    run("iptables-nft-restore", given=SMALL)
    run("nft", "-f", "-", given=SMALL_NFT)


def take_and_flush(directory: Path) -> None:
    kubeproxy.flush(Snapshot.take(directory))


def restore(directory: Path) -> None:
    Snapshot.load(directory).restore()


def killed_at(step: int, what: Callable[[Path], None], directory: Path) -> bool:
    """Run something in a child that is killed at its n-th trace-leaving step; False if it ended before."""
    child = os.fork()
    if child == 0:
        try:
            kill_at(step)
            what(directory)
        except BaseException:
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.waitstatus_to_exitcode(status) == 0
    return False


def kill_at(step: int) -> None:
    """Before each: file written, renamed, deleted; change of rules. After one is before the next."""
    left = step

    def passing() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            if real is subprocess_run and not changes(args[0]):
                return real(*args, **kwargs)
            passing()
            return real(*args, **kwargs)

        return wrapped

    subprocess_run = subprocess.run
    subprocess.run = counted(subprocess.run)
    os.fsync = counted(os.fsync)
    Path.replace = counted(Path.replace)  # type: ignore[method-assign]
    Path.unlink = counted(Path.unlink)  # type: ignore[method-assign]


def changes(command: tuple[str, ...]) -> bool:
    return ("restore" in command[0] and "--test" not in command) or command[:2] == ("nft", "-f")


def every_step(
    what: Callable[[Path], None], prepare: Callable[[int], Path], then: Callable[[Path], None]
) -> int:
    """Kill at the first step, the second, … until it ends by itself; returns how many steps there are."""
    step = 1
    while True:
        directory = prepare(step)
        killed = killed_at(step, what, directory)
        then(directory)
        if not killed:
            return step - 1
        step += 1


def test_a_flush_that_was_killed_anywhere_is_completed_by_the_next_run(
    node: Namespace, tmp_path: Path
) -> None:
    load_small()
    before = str(rules.state())

    def prepare(step: int) -> Path:
        return tmp_path / str(step)

    def go_on_then_back(directory: Path) -> None:
        take_and_flush(directory)
        assert kubeproxy.inspect().leftovers() == []
        restore(directory)
        keeper.remove()
        assert str(rules.state()) == before

    assert every_step(take_and_flush, prepare, go_on_then_back) >= 20


def test_a_flush_that_was_killed_anywhere_can_be_taken_back_at_once(node: Namespace, tmp_path: Path) -> None:
    load_small()
    before = str(rules.state())

    def prepare(step: int) -> Path:
        return tmp_path / str(step)

    def back(directory: Path) -> None:
        try:
            restore(directory)
        except SnapshotInvalid:  # killed before there was one: then nothing has been removed
            assert not (directory / "manifest.json").exists()
        keeper.remove()
        assert str(rules.state()) == before

    every_step(take_and_flush, prepare, back)


def test_a_restore_that_was_killed_anywhere_is_completed_by_the_next_run(
    node: Namespace, tmp_path: Path
) -> None:
    load_small()
    before = str(rules.state())
    directory = tmp_path / "snapshot"

    def prepare(_: int) -> Path:
        take_and_flush(directory)
        return directory

    def again(_: Path) -> None:
        restore(directory)
        keeper.remove()
        assert str(rules.state()) == before
        assert not Snapshot.load(directory).flushing

    assert every_step(restore, prepare, again) > 2


def test_a_fresh_snapshot_after_a_killed_flush_still_has_what_was_removed(
    node: Namespace, tmp_path: Path
) -> None:
    """The agent takes a snapshot whenever it flushes; half-flushed rules must not replace the whole ones."""
    load_small()
    first = Snapshot.take(tmp_path)
    kubeproxy.flush(first)
    second = Snapshot.take(tmp_path)
    assert [(p.place, p.table, p.sha256) for p in second.manifest.parts] == [
        (p.place, p.table, p.sha256) for p in first.manifest.parts
    ]
    assert second.manifest.mode == first.manifest.mode


def test_after_a_way_back_a_snapshot_has_only_what_is_in_force(node: Namespace, tmp_path: Path) -> None:
    load_small()
    kubeproxy.flush(Snapshot.take(tmp_path))
    restore(tmp_path)
    run("nft", "delete", "table", "ip", "kube-proxy")
    assert Snapshot.take(tmp_path).nft == {}


@pytest.mark.parametrize("damage", ["changed", "gone", "manifest"])
def test_a_damaged_snapshot_is_refused_by_name_and_nothing_is_written(
    node: Namespace, tmp_path: Path, damage: str
) -> None:
    load_small()
    kubeproxy.flush(Snapshot.take(tmp_path))
    flushed = str(rules.state())
    (part,) = tmp_path.glob("iptables-nft-ipv4-nat.*")
    hurt = tmp_path / "manifest.json" if damage == "manifest" else part
    if damage == "gone":
        hurt.unlink()
    else:
        hurt.write_bytes(
            hurt.read_bytes().replace(b"10.96.0.1", b"10.96.0.2").replace(b"version", b"version!")
        )
    with pytest.raises(SnapshotInvalid, match=hurt.name):
        restore(tmp_path)
    assert str(rules.state()) == flushed
