"""Whatever is typed or answered, a command ends with words and a status: nothing else gets out."""

import contextlib

import pytest
from handover_agent.cli import main
from handover_agent.showing.command import WrongUsage
from handover_agent.showing.trace import dns
from handover_agent.showing.trace.asking import parse_from, parse_target
from hypothesis import given
from hypothesis import strategies as st

pytestmark = pytest.mark.unit

HOSTS = st.one_of(
    st.ip_addresses().map(str), st.text("abz09.-_:[]/%@ \n", max_size=300), st.text(max_size=20)
)
PORTS = st.one_of(st.integers(-5, 99_999).map(str), st.text("abz09-: ", max_size=6))
TARGETS = st.one_of(st.text(max_size=40), st.tuples(HOSTS, PORTS).map(":".join))


@given(TARGETS)
def test_a_target_is_understood_or_said_to_be_wrong(text: str) -> None:
    try:
        target = parse_target(text)
    except WrongUsage as wrong:
        assert str(wrong).startswith(repr(text))
        return
    assert target.address or target.name or target.service
    assert target.port is None or 1 <= target.port <= 65535
    assert "\n" not in f"{target.name}{target.service}{target.port_name}"


@given(TARGETS)
def test_so_is_where_a_connection_starts(text: str) -> None:
    with contextlib.suppress(WrongUsage):
        start = parse_from(text)
        assert start.origin or start.address


@given(TARGETS.filter(lambda text: not text.startswith("-")))
def test_a_name_that_was_understood_can_be_asked_of_dns(text: str) -> None:
    with contextlib.suppress(WrongUsage):
        target = parse_target(text)
        for name in dns.candidates(target.name, "default", "cluster.local") if target.name else ():
            assert dns.question(1, name, 1)


@given(st.binary(max_size=600), st.integers(0, 65535))
def test_whatever_a_dns_server_sends_is_an_answer_or_none(raw: bytes, number: int) -> None:
    with contextlib.suppress(dns.BadAnswer):
        dns.parse(raw, number)


@given(st.data())
def test_an_answer_with_any_byte_changed_does_no_harm(data: st.DataObject) -> None:
    query = dns.question(7, "web.shop.svc.cluster.local", 1)
    good = bytearray(query[:2] + b"\x81\x80\0\x01\0\x02" + query[8:])
    good += (
        b"\xc0\x0c\0\x05\0\x01\0\0\0\x1e\0\x02\xc0\x10"
        + b"\xc0\x0c\0\x01\0\x01\0\0\0\x1e\0\x04\x0a\x60\0\x0a"
    )
    assert dns.parse(bytes(good), 7)[1]
    for _ in range(data.draw(st.integers(1, 4))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(dns.BadAnswer):
        dns.parse(bytes(good), 7)


@pytest.mark.parametrize(
    "text", ["", "[", "a..b", "x" * 300, "-", "\x00", "ü.example", "10.0.0.1:80:90", "/"]
)
def test_odd_words_end_with_the_status_of_wrong_usage(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        status = main(["trace", "--", text])
    except SystemExit as ended:
        status = int(ended.code or 0)
    assert status == 2
    assert "handover-agent trace" in capsys.readouterr().err
