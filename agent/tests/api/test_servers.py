"""Which API server is asked, and what is remembered of them."""

from pathlib import Path

import pytest
from handover_agent.credentials import Address
from handover_agent.durable import write_durably
from handover_agent.servers import Candidate, Servers
from tests.fakes.clock import Clock

pytestmark = pytest.mark.unit

BOOT = Candidate(Address("10.96.0.1", 443), "kubernetes.default.svc")
ONE, TWO, THREE = (Address(f"192.168.0.{n}", 6443) for n in (1, 2, 3))


@pytest.fixture
def clock() -> Clock:
    return Clock(100.0)


@pytest.fixture
def memory(tmp_path: Path) -> Path:
    return tmp_path / "state" / "api-servers.json"


@pytest.fixture
def servers(clock: Clock, memory: Path) -> Servers:
    return Servers(BOOT, "kubernetes.default.svc", clock, memory)


def order(servers: Servers) -> list[Address]:
    return [candidate.address for candidate in servers.candidates()]


def test_without_knowledge_the_bootstrap_address_is_asked(servers: Servers) -> None:
    assert order(servers) == [BOOT.address]
    servers.worked(BOOT)
    assert (servers.current, servers.direct) == (BOOT.address, False)


def test_own_addresses_go_before_the_bootstrap_one_even_when_that_worked(servers: Servers) -> None:
    servers.worked(BOOT)
    assert servers.learn([TWO, ONE])
    assert order(servers) == [ONE, TWO, BOOT.address]


def test_the_one_in_use_is_kept(servers: Servers) -> None:
    servers.learn([ONE, TWO, THREE])
    servers.worked(Candidate(TWO, ""))
    assert order(servers)[0] == TWO
    assert servers.direct


def test_one_that_failed_is_asked_after_the_others_for_a_while(servers: Servers, clock: Clock) -> None:
    servers.learn([ONE, TWO])
    servers.worked(Candidate(ONE, ""))
    servers.failed(Candidate(ONE, ""))
    assert (servers.current, servers.direct) == (None, False)
    assert order(servers) == [TWO, ONE, BOOT.address]
    clock.advance(Servers.penalty_s)
    servers.learn([ONE])
    assert order(servers) == [ONE, BOOT.address]


def test_when_all_failed_the_longest_ago_is_first(servers: Servers, clock: Clock) -> None:
    servers.learn([ONE, TWO, THREE])
    for address in (TWO, ONE, THREE):
        clock.advance(1)
        servers.failed(Candidate(address, ""))
    assert order(servers) == [TWO, ONE, THREE, BOOT.address]


def test_a_bootstrap_address_that_is_a_servers_own_is_direct(servers: Servers) -> None:
    servers.learn([BOOT.address, ONE])
    assert order(servers) == [ONE, BOOT.address]
    servers.worked(BOOT)
    assert servers.direct


def test_what_was_learnt_is_known_after_a_restart(servers: Servers, clock: Clock, memory: Path) -> None:
    servers.learn([TWO, Address("fd00::1", 6443)])
    again = Servers(BOOT, "kubernetes.default.svc", clock, memory)
    assert again.known == (TWO, Address("fd00::1", 6443))
    assert order(again)[-1] == BOOT.address


def test_an_empty_answer_teaches_nothing(servers: Servers) -> None:
    servers.learn([ONE])
    assert not servers.learn([])
    assert not servers.learn([ONE])
    assert servers.known == (ONE,)


def test_a_server_that_left_is_no_longer_direct(servers: Servers) -> None:
    servers.learn([ONE, TWO])
    servers.worked(Candidate(ONE, ""))
    servers.learn([TWO])
    assert not servers.direct
    assert order(servers) == [TWO, BOOT.address]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"servers": 5}', '{"servers": ["nonsense"]}', '{"servers": [5]}']
)
def test_a_damaged_memory_is_passed_over(clock: Clock, memory: Path, text: str) -> None:
    memory.parent.mkdir()
    memory.write_text(text)
    servers = Servers(BOOT, "", clock, memory)
    assert order(servers) == [BOOT.address]
    servers.learn([ONE])
    assert Servers(BOOT, "", clock, memory).known == (ONE,)


def test_a_memory_that_cannot_be_written_is_no_end(clock: Clock, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    servers = Servers(BOOT, "", clock, tmp_path / "file" / "memory")
    assert servers.learn([ONE])
    assert servers.known == (ONE,)


def test_a_durable_write_leaves_nothing_else_behind(tmp_path: Path) -> None:
    write_durably(tmp_path / "a" / "b.json", "one")
    write_durably(tmp_path / "a" / "b.json", "two")
    assert [(p.name, p.read_text()) for p in (tmp_path / "a").iterdir()] == [("b.json", "two")]
