"""What a person asks `trace`: a name or an address, a port, a protocol, and from where. Pure.

Whatever is shown elsewhere can be pasted here: TCP/10.96.0.10:80 from a table, default/web from kubectl, a DNS
name from a log.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address

from handover_agent.showing.command import WrongUsage
from handover_agent.table import Protocol, ip_bytes, ip_text

_LABEL = r"[a-z0-9]([-a-z0-9_]{0,61}[a-z0-9])?"
_LONGEST = 253  # of a DNS name
_NAME = re.compile(rf"{_LABEL}(\.{_LABEL})*\.?", re.IGNORECASE)
_OBJECT = re.compile(rf"{_LABEL}(\.{_LABEL})*/{_LABEL}(\.{_LABEL})*", re.IGNORECASE)
_PORT_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", re.IGNORECASE)
_RIGHT = (
    "give ADDRESS:PORT (10.96.0.10:80, [fd00::a]:53), or NAME[:PORT] (web, web.shop, shop/web:http, "
    "web.shop.svc.cluster.local:80), with TCP/, UDP/ or SCTP/ before it if need be"
)


@dataclass(frozen=True, slots=True)
class Target:
    """Where the connection is to go, as asked."""

    text: str
    protocol: Protocol | None
    address: bytes | None
    name: str
    """A DNS name, relative or not; empty when an address was given."""
    service: str
    """namespace/name, when it was given in that form."""
    port: int | None
    port_name: str


class Origin(StrEnum):
    """From where it starts."""

    NODE = "node"
    POD = "pod"
    OUTSIDE = "outside"


@dataclass(frozen=True, slots=True)
class From:
    """From where it starts, as asked: this node itself, a pod by name, or an address."""

    origin: Origin | None
    """None for an address of which it is not known yet whose it is."""
    pod: str = ""
    """namespace/name."""
    address: bytes | None = None


def parse_target(text: str, protocol: str = "") -> Target:
    """Raises WrongUsage."""
    given = text.strip()
    if len(given) > _LONGEST:
        raise WrongUsage(f"{text!r} is longer than a name can be; {_RIGHT}")
    if "://" in given:
        raise WrongUsage(f"{text!r} is a URL: leave out its scheme and path; {_RIGHT}")
    head, slash, rest = given.partition("/")
    named = {p.name: p for p in Protocol if p is not Protocol.ANY}
    chosen = named.get(protocol.upper()) if protocol else None
    if slash and head.upper() in named:
        if chosen not in (None, named[head.upper()]):
            raise WrongUsage(
                f"{text!r} says {head.upper()}, --protocol says {protocol.upper()}: give one of them"
            )
        chosen, given = named[head.upper()], rest
    host, port = _split(given, text)
    number, port_name = _port(port, text)
    address = _address(host)
    if address is not None:
        if port_name:
            raise WrongUsage(f"{text!r}: the port of an address is a number, not {port_name!r}; {_RIGHT}")
        return Target(text, chosen, address, "", "", number, "")
    if _OBJECT.fullmatch(host):
        return Target(text, chosen, None, "", host.lower(), number, port_name)
    if _NAME.fullmatch(host) and not re.fullmatch(r"[0-9.]+", host):
        return Target(text, chosen, None, host.lower(), "", number, port_name)
    raise WrongUsage(f"{text!r} is neither an address nor a name; {_RIGHT}")


def parse_from(text: str) -> From:
    """Raises WrongUsage."""
    given = text.strip()
    if given in ("", "node"):
        return From(Origin.NODE)
    address = _address(given.removeprefix("[").removesuffix("]"))
    if address is not None:
        return From(None, address=address)
    if _OBJECT.fullmatch(given):
        return From(Origin.POD, pod=given.lower())
    if _NAME.fullmatch(given) and not re.fullmatch(r"[0-9.]+", given):
        return From(Origin.POD, pod=f"default/{given.lower()}")
    raise WrongUsage(
        f"--from {text!r}: give a pod of this node (NAMESPACE/NAME; without a namespace, default), an address, "
        "or `node` for a process of the node itself"
    )


def end_text(address: bytes, port: int | None) -> str:
    """An address with its port, IPv6 in brackets."""
    host = ip_text(address)
    host = f"[{host}]" if ":" in host and port is not None else host
    return host if port is None else f"{host}:{port}"


def _split(given: str, text: str) -> tuple[str, str]:
    if given.startswith("["):
        host, bracket, rest = given[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise WrongUsage(f"{text!r}: the bracket of an IPv6 address is not closed; {_RIGHT}")
        return host, rest[1:]
    if given.count(":") > 1:  # IPv6 without brackets: all of it is the address
        return given, ""
    host, colon, port = given.partition(":")
    if colon and not port:
        raise WrongUsage(f"{text!r}: the port is missing behind the colon; {_RIGHT}")
    return host, port


def _port(port: str, text: str) -> tuple[int | None, str]:
    if not port:
        return None, ""
    if port.isascii() and port.isdigit():
        if not 1 <= int(port) <= 65535:
            raise WrongUsage(f"{text!r}: {port} is no port; give 1 to 65535")
        return int(port), ""
    if not _PORT_NAME.fullmatch(port):
        raise WrongUsage(f"{text!r}: {port!r} is neither a port's number nor its name; {_RIGHT}")
    return None, port.lower()


def _address(text: str) -> bytes | None:
    try:
        return ip_bytes(str(ip_address(text)))
    except ValueError:
        return None
