"""Which flows of datagrams the packet path leaves to conntrack, by conntrack's entries."""

from dataclasses import replace

import pytest
from handover_agent.conntrack.entries import IPS_ASSURED, IPS_DST_NAT, Flow, Tuple
from handover_agent.entries import NS_PER_S, Direction, FlowFlags, unpack_flow
from handover_agent.packetpath.left import Lives, wanted
from handover_agent.table import Backend, FrontendKey, Protocol, ip_bytes

pytestmark = pytest.mark.unit

CLIENT = Backend(ip_bytes("198.51.100.7"), 40000)
HERE, GONE = (Backend(ip_bytes(address), 5353) for address in ("10.1.1.1", "10.1.1.2"))
DNS = FrontendKey(ip_bytes("10.96.0.10"), 53, Protocol.UDP)
LIVES, NOW = Lives(30, 120), 1000 * NS_PER_S
ENTRY = Flow(
    2,
    Tuple(CLIENT.address, CLIENT.port, DNS.address, DNS.port, Protocol.UDP),
    Tuple(HERE.address, HERE.port, CLIENT.address, CLIENT.port, Protocol.UDP),
    IPS_DST_NAT,
    20,
    None,
    b"",
)


def test_an_entry_becomes_a_flow_that_is_forgotten_no_later_than_it() -> None:
    ((key, value),) = wanted([ENTRY], {DNS: 7}, None, LIVES, NOW).items()
    flow = unpack_flow(key, value)
    assert (flow.direction, flow.protocol, flow.flags) == (Direction.FORWARD, Protocol.UDP, FlowFlags.LEFT)
    assert (flow.source, flow.destination, flow.other) == (CLIENT, Backend(DNS.address, DNS.port), HERE)
    assert (flow.service_id, flow.lives_s, flow.last_seen_ns) == (7, 30, NOW - 10 * NS_PER_S)


def test_an_assured_entry_lives_longer() -> None:
    assured = replace(ENTRY, status=IPS_DST_NAT | IPS_ASSURED, timeout_s=115)
    ((key, value),) = wanted([assured], {DNS: 7}, None, LIVES, NOW).items()
    flow = unpack_flow(key, value)
    assert (flow.lives_s, flow.last_seen_ns) == (120, NOW - 5 * NS_PER_S)


def test_what_nobody_translated_or_is_no_frontends_is_not_left() -> None:
    assert wanted([replace(ENTRY, status=0)], {DNS: 7}, None, LIVES, NOW) == {}
    assert wanted([ENTRY], {}, None, LIVES, NOW) == {}


def test_what_leads_to_a_backend_that_serves_no_more_is_not_left_while_another_serves() -> None:
    assert wanted([ENTRY], {DNS: 7}, {DNS: {GONE}}, LIVES, NOW) == {}
    assert wanted([ENTRY], {DNS: 7}, {DNS: {GONE, HERE}}, LIVES, NOW) != {}
    assert wanted([ENTRY], {DNS: 7}, {DNS: frozenset()}, LIVES, NOW) != {}
