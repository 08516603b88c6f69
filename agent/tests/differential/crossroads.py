"""A node between the world outside and its pods, for real packets: they are sent in at one side, and seen again.

Devices do no address resolution, so that no address needs anybody who has it. What a packet comes to is seen on
the wires: behind the node's device (remote backends, and what is left alone), behind the pods' one, and on the
node's own loopback.
"""

import errno
import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from select import select

from handover_agent.objects import is_ipv4
from handover_agent.table import Backend, Protocol, ip_bytes, ip_text
from tests.datapath.settling import Settling
from tests.differential import frames, setting
from tests.differential.connecting import SEGMENT, SEGMENTS
from tests.differential.packets import DROPPED, Ending, Endings, Kind, Origin, Packet
from tests.node.netns import Namespace, run, write

_AT_ONCE = 128
_TRIES = 3
_ROUNDS = 250  # of ten backends, one is missed in so many with a chance below 1e-10
_EVERYTHING = 3  # ETH_P_ALL
_OUTGOING = 4  # PACKET_OUTGOING
_SWITCHES = {
    "net/ipv4/ip_forward": "1",
    "net/ipv6/conf/all/forwarding": "1",
    "net/ipv4/conf/all/rp_filter": "0",
    "net/ipv4/conf/default/rp_filter": "0",
    "net/ipv4/icmp_ratemask": "0",
    "net/ipv4/icmp_ratelimit": "0",
    "net/ipv6/icmp/ratelimit": "0",
    "net/ipv6/icmp/ratemask": "255",  # a type that is never sent
}
# What reaches the node's own sockets is answered in a way that no rule of a proxy's does.
_WITNESS = """
table inet witness {
  chain in {
    type filter hook input priority 1000;
    ip daddr { %s } meta l4proto { tcp, udp, sctp } reject with icmpx admin-prohibited
    ip6 daddr { %s } meta l4proto { tcp, udp, sctp } reject with icmpx admin-prohibited
  }
}
"""
_OWN = frozenset(map(ip_bytes, (*setting.PRIMARY, *setting.SECOND)))


Process = Callable[[Sequence[tuple[str, str, int, int, int]]], Sequence[int]]
"""See `connecting`."""


class Crossroads:
    """The wires around the node. `endings` sends packets and tells what came of them."""

    def __init__(self, far: Namespace, process: Process | None = None) -> None:
        self._process = process
        with far.entered():
            self._wires = {Origin.OUTSIDE: _wire("outside"), Origin.POD: _wire("podside")}
        self._wires[Origin.NODE] = _wire("lo")
        self._hardware = {
            Origin.OUTSIDE: _hardware("eth0"),
            Origin.POD: _hardware("pods"),
        }
        self._raw = {
            True: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW),
            False: socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW),
        }
        self._settle = Settling()
        self._number = 0

    def close(self) -> None:
        for each in (*self._wires.values(), *self._raw.values()):
            each.close()
        self._settle.close()

    def endings(self, packets: Sequence[Packet], expected: Sequence[Endings]) -> list[Counter[Ending]]:
        """What came of each packet, and how often: each is sent until all that is expected of it was seen.

        Some more often than needed by chance, none more than `_ROUNDS` times. Nobody can tell a dropped packet
        from one that is late or lost; it counts as dropped if that is expected or it is not seen `_TRIES` times.
        """
        found: list[Counter[Ending]] = [Counter() for _ in packets]
        waiting = list(range(len(packets)))
        for _ in range(_ROUNDS):
            self._round(packets, waiting, expected, found)
            waiting = [index for index in waiting if not expected[index] <= found[index].keys()]
        return found

    def _round(
        self,
        packets: Sequence[Packet],
        chosen: Sequence[int],
        expected: Sequence[Endings],
        found: list[Counter[Ending]],
    ) -> None:
        """Each of the chosen packets comes to one ending more."""
        for tries in range(1, _TRIES + 1):
            unseen: list[int] = []
            for start in range(0, len(chosen), _AT_ONCE):
                unseen += self._pass(packets, chosen[start : start + _AT_ONCE], found)
            chosen = [index for index in unseen if tries < _TRIES and not expected[index] & DROPPED]
            for index in set(unseen).difference(chosen):
                found[index][Ending(Kind.DROPPED)] += 1

    def _pass(
        self, packets: Sequence[Packet], chosen: Sequence[int], found: list[Counter[Ending]]
    ) -> list[int]:
        """Sends the chosen packets; returns those of which nothing was seen."""
        sent: dict[int | tuple[bool, int], int] = {}
        if self._process is None:
            for index in chosen:
                self._number += 1
                sent[self._number] = index
                self._send(packets[index], self._number)
        else:
            sent = self._connect(packets, chosen, found)
        self._settle()  # else a marker that another CPU sends may overtake them
        last = self._markers()
        deadline = time.monotonic() + 2
        while last and time.monotonic() < deadline:
            for wire in select(self._wires.values(), (), (), 0.1)[0]:
                raw, address = wire.recvfrom(2048)
                seen = None if address[2] == _OUTGOING else frames.read(raw)
                if seen is not None and seen.number in last:
                    last.discard(seen.number)
                elif seen is not None:
                    name = seen.number if seen.number in sent else _by_segment(seen)
                    ending = (
                        _ending(packets[sent[name]], seen, wire is self._wires[Origin.NODE])
                        if name in sent
                        else None
                    )
                    if ending is not None:
                        found[sent.pop(name)][ending] += 1
        return list(sent.values())

    def _connect(
        self, packets: Sequence[Packet], chosen: Sequence[int], found: list[Counter[Ending]]
    ) -> dict[int | tuple[bool, int], int]:
        """Has the process connect to the chosen packets' destinations; by what their packets are known.

        A SYN's number is the kernel's to choose: it is known by its largest segment (see `connecting`).
        """
        assert self._process is not None
        orders = []
        for index in chosen:
            self._number += 1
            packet, own_port = packets[index], _port(self._number)
            to = packet.protocol.name, ip_text(packet.destination), packet.port
            orders.append((*to, own_port, self._number))
        sent: dict[int | tuple[bool, int], int] = {}
        for index, order, code in zip(chosen, orders, self._process(orders), strict=True):
            if code == errno.ECONNREFUSED:
                found[index][Ending(Kind.REFUSED)] += 1
            elif code:
                raise OSError(code, os.strerror(code), str(packets[index]))
            else:
                by_segment = is_ipv4(packets[index].destination), SEGMENT + order[3] % SEGMENTS
                sent[by_segment if order[0] == "TCP" else order[4]] = index
        return sent

    def _markers(self) -> set[int]:
        """Packets that everybody leaves alone, behind the others on each wire: then those have gone through."""
        markers = (
            (Origin.OUTSIDE, "198.51.100.250", "10.244.1.250"),
            (Origin.POD, "10.244.1.250", "198.51.100.250"),
            (Origin.NODE, setting.PRIMARY[0], setting.SECOND[0]),
        )
        numbers = set()
        for origin, source, to in markers:
            self._number += 1
            self._send(Packet(origin, ip_bytes(source), ip_bytes(to), 9, Protocol.UDP), self._number)
            numbers.add(self._number)
        return numbers

    def _send(self, packet: Packet, number: int) -> None:
        source_port = _port(number)
        if packet.origin is not Origin.NODE:
            hardware = self._hardware[packet.origin]
            self._wires[packet.origin].send(frames.frame(packet, number, source_port, hardware))
            return
        raw = frames.packet(packet, number, source_port)
        with suppress(PermissionError):  # dropped on the way out: that is for the wires to tell
            self._raw[is_ipv4(packet.destination)].sendto(raw, (ip_text(packet.destination), 0))


def _port(number: int) -> int:
    """The source port of a packet: another one for each of those that are under way."""
    return 1024 + number % 64000


def _by_segment(seen: frames.Seen) -> tuple[bool, int]:
    """How a process's SYN is known, or a reset that answers it."""
    reset = seen.refused and not seen.segment
    return is_ipv4(seen.destination), SEGMENT + seen.port % SEGMENTS if reset else seen.segment


def _ending(packet: Packet, seen: frames.Seen, on_loopback: bool) -> Ending | None:
    """None: that was on its way; the end is yet to be seen. (On loopback, what is sent in there to be refused.)"""
    if seen.refused:
        return Ending(Kind.REFUSED)
    if seen.received:
        return Ending(Kind.LEFT)
    if (seen.destination, seen.port) == (packet.destination, packet.port):
        return None if on_loopback or seen.destination in _OWN else Ending(Kind.LEFT)
    masqueraded = seen.source != packet.source and packet.origin is not Origin.NODE
    return Ending(Kind.SERVED, Backend(seen.destination, seen.port), masqueraded)


@contextmanager
def crossroads(process: Process | None = None) -> Iterator[Crossroads]:
    """Around the node's network namespace that the caller is in, where `proxied.devices` has been called.

    With a process, it connects instead of packets being sent.
    """
    for switch, value in _SWITCHES.items():
        write(f"/proc/sys/{switch}", value)
    run(
        "nft",
        "-f",
        "-",
        given=_WITNESS % tuple(map(", ".join, zip(setting.PRIMARY, setting.SECOND, strict=True))),
    )
    far = Namespace()
    try:
        run("ip", "link", "set", "outside", "netns", far.path)
        run("ip", "link", "add", "pods", "type", "veth", "peer", "name", "podside", "netns", far.path)
        for name in ("eth0", "pods"):
            run("ip", "link", "set", name, "arp", "off", "up")
        with far.entered():
            for name in ("outside", "podside"):
                run("ip", "link", "set", name, "arp", "off", "up")
        for pods, everything in zip(setting.LOCAL_PODS, ("0.0.0.0/0", "::/0"), strict=True):
            family = "-6" if ":" in pods else "-4"
            run("ip", family, "route", "add", pods, "dev", "pods")
            run("ip", family, "route", "add", everything, "dev", "eth0")
        made = Crossroads(far, process)
        try:
            yield made
        finally:
            made.close()
    finally:
        far.close()


def _wire(device: str) -> socket.socket:
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_EVERYTHING))
    made.bind((device, _EVERYTHING))
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    return made


def _hardware(device: str) -> bytes:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as asking:
        asking.bind((device, 0))
        address: bytes = asking.getsockname()[4]
        return address
