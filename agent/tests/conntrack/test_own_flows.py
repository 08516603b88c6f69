"""The packet path's own UDP flows to backends that are gone, by their entries in the map."""

import struct

import pytest
from handover_agent.entries import Direction
from handover_agent.packetpath.stale import stale_flows
from handover_agent.table import Backend, FrontendKey, Protocol, ip_bytes

pytestmark = pytest.mark.unit

CLIENT = Backend(ip_bytes("198.51.100.7"), 40000)
GONE, THERE = (Backend(ip_bytes(address), 5353) for address in ("10.1.1.1", "10.1.1.2"))
DNS = FrontendKey(ip_bytes("10.96.0.10"), 53, Protocol.UDP)
FRONTEND = Backend(DNS.address, DNS.port)


def entry(
    source: Backend,
    to: Backend,
    other: Backend,
    direction: Direction = Direction.FORWARD,
    protocol: int = Protocol.UDP,
) -> tuple[bytes, bytes]:
    ports = source.port.to_bytes(2, "big"), to.port.to_bytes(2, "big")
    key = struct.pack("=16s16s2s2sBB2x", source.address, to.address, *ports, protocol, direction)
    end = struct.pack("=16s2s2x", other.address, other.port.to_bytes(2, "big"))
    return key, struct.pack("=20sIQII2s6B", end, 7, 0, 0, 0, ports[0], *(0,) * 6)


def test_both_directions_of_a_flow_to_a_gone_backend_go_and_no_other_flow() -> None:
    lost = [entry(CLIENT, FRONTEND, GONE), entry(GONE, CLIENT, FRONTEND, Direction.BACKWARD)]
    kept = [
        entry(CLIENT, FRONTEND, THERE),
        entry(THERE, CLIENT, FRONTEND, Direction.BACKWARD),
        entry(CLIENT, FRONTEND, GONE, protocol=Protocol.TCP),
        entry(CLIENT, Backend(FRONTEND.address, 54), GONE),
    ]
    assert stale_flows([*lost, *kept], {DNS: {THERE}}) == [key for key, _ in lost]


def test_while_nobody_serves_or_the_service_is_gone_flows_are_left_to_end_by_themselves() -> None:
    assert stale_flows([entry(CLIENT, FRONTEND, GONE)], {DNS: set()}) == []
    assert stale_flows([entry(CLIENT, FRONTEND, GONE)], {}) == []


def test_what_is_conntracks_and_not_known_yet_by_whom_is_left() -> None:
    assert stale_flows([entry(CLIENT, FRONTEND, Backend(bytes(16), 0))], {DNS: {THERE}}) == []
