"""Start the client: look up the Service, put all streams on it, and serve the control port until a signal
ends it.
"""

import argparse
import json
import os
import signal
import time
import uuid
from collections.abc import Sequence

from .control import Control
from .dns import look_up, lookups, servers
from .ledger import Ledger
from .loop import Loop
from .targets import Expectations, Target
from .tcp import HeldConnections, NewConnections, Streams
from .udp import Datagrams, Exchange, echo


def arguments() -> argparse.ArgumentParser:
    """What the client can be told at its start."""
    parser = argparse.ArgumentParser(prog="client", description=__doc__)
    parser.add_argument("--name", required=True, help="who this client is in reports, as n1/pod")
    parser.add_argument("--service", required=True, help="full name, as web.traffic.svc.cluster.local")
    parser.add_argument("--port", type=int, default=80, help="its TCP port (default %(default)s)")
    parser.add_argument("--udp-port", type=int, default=81, help="its UDP port (default %(default)s)")
    parser.add_argument("--dns", help="the DNS server's address (default: the first one of /etc/resolv.conf)")
    parser.add_argument("--dns-port", type=int, default=53)
    parser.add_argument("--held", type=int, default=60, help="connections to hold (default %(default)s)")
    parser.add_argument(
        "--new-per-s", type=float, default=30, help="new TCP connections (default %(default)s)"
    )
    parser.add_argument("--udp-per-s", type=float, default=10, help="for each kind of socket and family")
    parser.add_argument("--dns-per-s", type=float, default=5, help="look-ups for each kind of socket")
    parser.add_argument("--control-port", type=int, default=18080, help="(default %(default)s)")
    return parser


class Client:
    """All streams of one client, and what the control port does with them."""

    def __init__(self, options: argparse.Namespace, loop: Loop, addresses: frozenset[str], dns: str) -> None:
        self.name = options.name
        self._id = uuid.uuid4().hex  # another one after a restart, which would otherwise look like few losses
        self._loop = loop
        self._ledger = Ledger()
        self._expectations = Expectations()
        self._targets = [Target(options.service, address, options.port) for address in sorted(addresses)]
        streams = Streams(loop, self._ledger, self.name)
        self._held = HeldConnections(streams, self._targets, options.held)
        NewConnections(streams, lambda: self._targets, options.new_per_s)
        NewConnections(streams, self._changing, options.new_per_s / 3, label="to changing Services")
        self._datagrams(
            echo(self.name),
            [Target(options.service, address, options.udp_port) for address in sorted(addresses)],
            options.udp_per_s,
        )
        self._datagrams(
            lookups(options.service, addresses), [Target("dns", dns, options.dns_port)], options.dns_per_s
        )
        self.control = Control(loop, options.control_port, self._answer)

    def _datagrams(self, exchange: Exchange, targets: list[Target], per_s: float) -> None:
        for connected in (True, False):
            for fixed in (True, False):
                Datagrams(self._loop, self._ledger, exchange, targets, per_s, connected, fixed)

    def _changing(self) -> list[Target]:
        return list(self._expectations.targets.values())

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
        raise ValueError(f"{method} {path} is nothing that this client serves")

    def report(self, first: int) -> dict[str, object]:
        """What was seen so far, in the phases from a number on."""
        return {
            "client": self.name,
            "id": self._id,
            "at": time.time(),
            "cpu_s": time.process_time(),
            "held": self._held.established,
            "held_wanted": self._held.count,
            "lost": self._ledger.lost,
            "phases": self._ledger.as_json(first),
            "failures": list(self._ledger.failures),
            "targets": self._expectations.as_json(),
        }


def main(argv: Sequence[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT."""
    options = arguments().parse_args(argv)
    dns = options.dns or next(iter(servers()))
    print(f"{options.name}: looking up {options.service} at {dns}", flush=True)
    addresses = look_up(dns, options.dns_port, options.service, within_s=60)
    loop = Loop()
    client = Client(options, loop, addresses, dns)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: loop.stop())
    print(f"{options.name}: {', '.join(sorted(addresses))}, control port {client.control.port}", flush=True)
    loop.run()
    return 0


if __name__ == "__main__":
    os._exit(main())
