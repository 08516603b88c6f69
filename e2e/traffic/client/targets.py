"""What the client talks to, and what it expects there.

A Service that is created, scaled to nothing or deleted while traffic runs changes its behaviour at a
moment that nobody knows in advance. So an expectation that was just set is *waited for*: until the first
attempt that meets it, others are counted as waited, not as lost. From then on it holds strictly.
"""

import errno
import socket
from dataclasses import dataclass, field
from typing import Any, Final

SERVED: Final = "served"
REFUSED: Final = "refused"
GONE: Final = "gone"  # whatever happens there, nobody answers
NOTHING: Final = ""  # it is not asked any more
PROTOCOLS: Final = ("TCP", "UDP")
EXPECTATIONS: Final = (SERVED, REFUSED, GONE)


@dataclass(slots=True)
class Target:
    """An address and port at which a Service is reached."""

    name: str
    address: str
    port: int
    expect: str = SERVED
    met: bool = True  # an attempt that began after the expectation was set has met it
    protocol: str = "TCP"

    @property
    def family(self) -> socket.AddressFamily:
        return socket.AF_INET6 if ":" in self.address else socket.AF_INET

    @property
    def version(self) -> str:
        """4 or 6, as it stands in the names of streams."""
        return "6" if ":" in self.address else "4"

    def __str__(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Way:
    """One of the ways to a Service from outside of the cluster, as `NodePort (Local)`."""

    name: str
    tcp: list[Target]
    udp: list[Target]


def ways(data: list[dict[str, Any]]) -> list[Way]:
    """Ways from JSON: name, tcp and udp, the last two as lists of addresses with ports. Raises ValueError."""

    def targets(name: str, texts: list[str]) -> list[Target]:
        found = [text.rpartition(":") for text in texts]
        return [Target(name, address.strip("[]"), int(port)) for address, _, port in found]

    return [Way(w["name"], targets(w["name"], w["tcp"]), targets(w["name"], w["udp"])) for w in data]


@dataclass(slots=True)
class Expectations:
    """The targets that come and go by command, by name and address."""

    targets: dict[tuple[str, str, int, str], Target] = field(default_factory=dict)

    def of(self, protocol: str) -> list[Target]:
        """Those of one protocol."""
        return [target for target in self.targets.values() if target.protocol == protocol]

    def replace(self, wanted: list[dict[str, object]]) -> None:
        """Take a new list of targets; one whose expectation changed has to meet it anew."""
        targets: dict[tuple[str, str, int, str], Target] = {}
        for item in wanted:
            expect = str(item.get("expect", SERVED))
            if expect not in EXPECTATIONS:
                raise ValueError(f"expect is {expect!r}; it can be one of {', '.join(EXPECTATIONS)}")
            protocol = str(item.get("protocol", "TCP"))
            if protocol not in PROTOCOLS or (protocol == "UDP" and expect != SERVED):
                raise ValueError(f"{protocol} cannot be expected to be {expect!r}")
            name, address, port = str(item["name"]), str(item["address"]), int(str(item["port"]))
            key = (name, address, port, protocol)
            target = targets[key] = self.targets.get(key) or Target(
                name, address, port, expect, met=False, protocol=protocol
            )
            if target.expect != expect:
                target.expect, target.met = expect, False
        for key in self.targets.keys() - targets.keys():
            self.targets[key].expect = NOTHING  # what is still under way there is nobody's loss
        self.targets = targets

    def as_json(self) -> list[dict[str, object]]:
        return [
            {
                "name": t.name,
                "address": t.address,
                "port": t.port,
                "protocol": t.protocol,
                "expect": t.expect,
                "met": t.met,
            }
            for t in self.targets.values()
        ]


_KINDS = {
    errno.ECONNREFUSED: "refused",
    errno.ECONNRESET: "reset",
    errno.EPIPE: "reset",
    errno.ETIMEDOUT: "timeout",
    errno.EHOSTUNREACH: "unreachable",
    errno.ENETUNREACH: "unreachable",
    errno.EPERM: "forbidden",
    errno.EACCES: "forbidden",
    errno.EADDRNOTAVAIL: "no-address",
}


def kind(number: int) -> str:
    """A system error as the last part of the name of a kind of loss."""
    return _KINDS.get(number, errno.errorcode.get(number, str(number)))
