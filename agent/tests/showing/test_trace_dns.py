"""What the cluster's DNS is asked, and how its answers are read."""

import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread

import pytest
from handover_agent.showing.trace.dns import (
    BadAnswer,
    candidates,
    exchange,
    lookup,
    parse,
    question,
    resolve,
)
from handover_agent.table import Backend, ip_bytes

pytestmark = pytest.mark.unit

SERVER = Backend(ip_bytes("10.96.0.10"), 53)
A, AAAA, CNAME = 1, 28, 5
NO_SUCH_NAME = 3


def answering(query: bytes, records: list[tuple[int, bytes]], code: int = 0) -> bytes:
    """An answer to a query, its names pointing back to the question's."""
    head = struct.pack("!HHHHHH", int.from_bytes(query[:2], "big"), 0x8180 | code, 1, len(records), 0, 0)
    bodies = [b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, 30, len(data)) + data for kind, data in records]
    return head + query[12:] + b"".join(bodies)


def kind_of(query: bytes) -> int:
    return int.from_bytes(query[-4:-2], "big")


def serving(known: dict[str, str]) -> Callable[[Backend, bytes], bytes]:
    """A server of IPv4 addresses."""

    def ask(_: Backend, query: bytes) -> bytes:
        labels, at = [], 12
        while query[at]:
            labels.append(query[at + 1 : at + 1 + query[at]].decode())
            at += query[at] + 1
        address = known.get(".".join(labels))
        if address is None:
            return answering(query, [], NO_SUCH_NAME)
        return answering(query, [(A, socket.inet_aton(address))] if kind_of(query) == A else [])

    return ask


def test_a_name_is_searched_for_as_in_a_pod() -> None:
    assert candidates("web", "shop", "cluster.local") == [
        "web.shop.svc.cluster.local",
        "web.svc.cluster.local",
        "web.cluster.local",
        "web",
    ]
    assert candidates("web.shop.svc.cluster.local.", "x", "cluster.local") == ["web.shop.svc.cluster.local"]


def test_the_first_name_with_an_address_is_taken() -> None:
    ask = serving({"web.prod.svc.cluster.local": "10.96.3.4"})
    answer = resolve(SERVER, candidates("web.prod", "shop", "cluster.local"), ask)
    assert (answer.name, answer.addresses) == ("web.prod.svc.cluster.local", (ip_bytes("10.96.3.4"),))


def test_a_name_that_is_not_there_says_so_of_the_one_that_was_most_likely_meant() -> None:
    answer = resolve(SERVER, candidates("web", "shop", "cluster.local"), serving({}))
    assert (answer.name, answer.addresses) == ("web.shop.svc.cluster.local", ())
    assert answer.problem == "no such name"
    assert answer.answered


def test_both_families_and_aliases_are_read() -> None:
    def ask(_: Backend, query: bytes) -> bytes:
        if kind_of(query) == A:
            alias = b"\x05other\xc0\x10"
            return answering(query, [(CNAME, alias), (A, socket.inet_aton("10.96.3.4"))])
        return answering(query, [(AAAA, socket.inet_pton(socket.AF_INET6, "fd00::4"))])

    answer = lookup(SERVER, "web.example.org", ask)
    assert answer.addresses == (ip_bytes("10.96.3.4"), ip_bytes("fd00::4"))
    assert answer.alias == "other.example.org"


def test_nobody_answering_is_told_apart_from_an_answer() -> None:
    def silent(_: Backend, __: bytes) -> bytes:
        raise TimeoutError("timed out")

    answer = resolve(SERVER, ["a.svc.cluster.local", "a"], silent)
    assert answer.problem == "no answer from 10.96.0.10:53: timed out"
    assert not answer.answered


@pytest.mark.parametrize("cut", [0, 5, 12, 20, 33, 40])
def test_a_cut_off_answer_is_no_answer_and_does_no_harm(cut: int) -> None:
    query = question(7, "web.shop", A)
    whole = answering(query, [(A, socket.inet_aton("10.96.3.4"))])
    with pytest.raises(BadAnswer):
        parse(whole[:cut], 7)


def test_an_answer_to_another_question_or_a_name_that_leads_round_is_not_believed() -> None:
    query = question(7, "web", A)
    with pytest.raises(BadAnswer, match="another question"):
        parse(answering(query, []), 8)
    loop = answering(query, [(CNAME, b"\xc0\x00")])
    loop = loop[:-2] + b"\xc0" + bytes((len(loop) - 2,))
    with pytest.raises(BadAnswer, match="without an end"):
        parse(loop, 7)


def test_what_cannot_be_read_is_said_of_the_server() -> None:
    answer = lookup(SERVER, "web", lambda server, query: b"nonsense")
    assert answer.problem.startswith("10.96.0.10:53 answers what cannot be read")


@contextmanager
def server_on_loopback(known: dict[str, str]) -> Iterator[Backend]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        datagrams.bind(("127.0.0.1", 0))
        datagrams.settimeout(10)
        server = Backend(ip_bytes("127.0.0.1"), datagrams.getsockname()[1])

        def run() -> None:
            for _ in range(2):  # IPv4 and IPv6
                query, client = datagrams.recvfrom(4096)
                datagrams.sendto(serving(known)(server, query), client)

        thread = Thread(target=run)
        thread.start()
        yield server
        thread.join()


def test_questions_go_over_udp() -> None:
    with server_on_loopback({"web.shop": "10.96.3.4"}) as server:
        assert lookup(server, "web.shop", exchange).addresses == (ip_bytes("10.96.3.4"),)
