"""Start the client: put all streams on a Service, by its name or by ways from outside, and serve the control
port until a signal ends it.
"""

import argparse
import json
import os
import signal
import sys
import threading
import time
import uuid
from collections.abc import Sequence

from .control import Control
from .dns import look_up, lookups, servers
from .ledger import Ledger
from .loop import Loop
from .targets import Expectations, Target, Way, ways
from .tcp import HeldConnections, NewConnections, Streams
from .udp import Datagrams, Exchange, echo


def arguments() -> argparse.ArgumentParser:
    """What the client can be told at its start."""
    parser = argparse.ArgumentParser(prog="client", description=__doc__)
    parser.add_argument("--name", required=True, help="who this client is in reports, as n1/pod")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--service", help="full name, as web.traffic.svc.cluster.local")
    what.add_argument("--ways", help="instead of a Service: ways from outside, as JSON (see `targets.ways`)")
    parser.add_argument("--port", type=int, default=80, help="its TCP port (default %(default)s)")
    parser.add_argument("--udp-port", type=int, default=81, help="its UDP port (default %(default)s)")
    parser.add_argument("--dns", help="the DNS server's address (default: the first one of /etc/resolv.conf)")
    parser.add_argument("--dns-port", type=int, default=53)
    parser.add_argument("--held", type=int, default=60, help="connections to hold (default %(default)s)")
    parser.add_argument("--held-every-s", type=float, default=0.1, help="a request on each of them")
    parser.add_argument(
        "--new-per-s", type=float, default=30, help="new TCP connections (default %(default)s)"
    )
    parser.add_argument("--udp-per-s", type=float, default=10, help="for each kind of socket and family")
    parser.add_argument("--dns-per-s", type=float, default=5, help="look-ups for each kind of socket")
    parser.add_argument("--control-port", type=int, default=18080, help="(default %(default)s)")
    parser.add_argument("--attended", action="store_true", help="end when standard input is closed")
    return parser


class Client:
    """All streams of one client, and what the control port does with them."""

    def __init__(self, options: argparse.Namespace, loop: Loop) -> None:
        self.name = options.name
        self._id = uuid.uuid4().hex  # another one after a restart, which would otherwise look like few losses
        self._loop = loop
        self._ledger = Ledger()
        self._expectations = Expectations()
        self._held: list[HeldConnections] = []
        self._asking: list[Datagrams] = []
        self._streams = Streams(loop, self._ledger, self.name)
        NewConnections(
            self._streams,
            lambda: self._expectations.of("TCP"),
            options.new_per_s / 3,
            label="to changing Services",
        )
        for connected in (True, False):
            self._asking.append(
                Datagrams(
                    loop,
                    self._ledger,
                    echo(self.name),
                    lambda: self._expectations.of("UDP"),
                    options.udp_per_s,
                    connected,
                    fixed=False,
                    way="changing Services",
                )
            )
        self.control = Control(loop, options.control_port, self._answer)

    def use_service(self, options: argparse.Namespace, addresses: frozenset[str], dns: str) -> None:
        """All kinds of traffic to a Service by its own addresses, and to the DNS server."""
        targets = [Target(options.service, address, options.port) for address in sorted(addresses)]
        self._held.append(HeldConnections(self._streams, targets, options.held, options.held_every_s))
        NewConnections(self._streams, lambda: targets, options.new_per_s)
        self._datagrams(
            echo(self.name),
            [Target(options.service, address, options.udp_port) for address in sorted(addresses)],
            options.udp_per_s,
        )
        self._datagrams(
            lookups(options.service, addresses), [Target("dns", dns, options.dns_port)], options.dns_per_s
        )

    def use_ways(self, options: argparse.Namespace, chosen: Sequence[Way]) -> None:
        """All kinds of traffic by every way, in equal shares; each address has a connection at least."""
        for way in chosen:
            count = max(len(way.tcp), options.held // len(chosen))
            every_s, label = options.held_every_s, f"held to {way.name}"
            self._held.append(HeldConnections(self._streams, way.tcp, count, every_s, label=label))
            per_s = options.new_per_s / len(chosen)
            NewConnections(self._streams, lambda way=way: way.tcp, per_s, label=f"new to {way.name}")  # type: ignore[misc]
            self._datagrams(echo(self.name), way.udp, options.udp_per_s, way.name)

    def _datagrams(self, exchange: Exchange, targets: list[Target], per_s: float, way: str = "") -> None:
        """By every kind of socket, so many a second to each target."""
        for connected in (True, False):
            for fixed in (True, False):
                kind = (connected, fixed)
                rate = per_s * len(targets)
                self._asking.append(
                    Datagrams(self._loop, self._ledger, exchange, lambda: targets, rate, *kind, way=way)
                )

    def _answer(self, method: str, path: str, query: dict[str, str], body: bytes) -> object:
        match method, path.split("/")[1:]:
            case "GET", ["report"]:
                return self.report(int(query.get("from", "0")))
            case "POST", ["phase", name] if name:
                self._ledger.enter(name)
                return {"phase": name}
            case "PUT", ["targets"]:
                self._expectations.replace(json.loads(body))
                return self._expectations.as_json()
            case "PUT", ["patience"]:
                seconds = float(json.loads(body))
                self._streams.answer_within_s = seconds
                for datagrams in self._asking:
                    datagrams.answer_within_s = seconds
                return {"patience": seconds}
        raise ValueError(f"{method} {path} is nothing that this client serves")

    def report(self, first: int) -> dict[str, object]:
        """What was seen so far, in the phases from a number on."""
        return {
            "client": self.name,
            "id": self._id,
            "at": time.time(),
            "cpu_s": time.process_time(),
            "held": sum(held.established for held in self._held),
            "held_wanted": sum(held.count for held in self._held),
            "lost": self._ledger.lost,
            "phases": self._ledger.as_json(first),
            "failures": list(self._ledger.failures),
            "targets": self._expectations.as_json(),
        }


def main(argv: Sequence[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT."""
    options = arguments().parse_args(argv)
    loop = Loop()
    client = Client(options, loop)
    if options.ways:
        client.use_ways(options, ways(json.loads(options.ways)))
    else:
        dns = options.dns or next(iter(servers()))
        print(f"{options.name}: looking up {options.service} at {dns}", flush=True)
        addresses = look_up(dns, options.dns_port, options.service, within_s=60)
        client.use_service(options, addresses, dns)
        print(f"{options.name}: {', '.join(sorted(addresses))}", flush=True)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: loop.stop())
    if options.attended:
        threading.Thread(target=_until_left_alone, args=[loop], daemon=True).start()
    print(f"{options.name}: control port {client.control.port}", flush=True)
    loop.run()
    return 0


def _until_left_alone(loop: Loop) -> None:
    sys.stdin.buffer.read()
    loop.stop()


if __name__ == "__main__":
    os._exit(main())
