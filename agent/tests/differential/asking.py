"""The packets that a cluster is asked with: to all of its addresses, and a little beside them, from everywhere."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from itertools import count
from random import Random

from handover_agent.table import Protocol, ip_bytes, ip_text
from tests.differential import setting
from tests.differential.generating import Cluster
from tests.differential.packets import Origin, Packet
from tests.differential.setting import Json

_ADMITTED = (("198.51.100.7", "198.18.0.9", "192.0.2.77"), ("2001:db8:5::7", "2001:db8:6::1"))
_STRANGERS = (("203.0.113.9", "100.64.3.4"), ("2001:db8:ffff::9", "2001:db8:6::2"))
"""For IPv4 and IPv6: who is in source ranges that Services may have, and who is not."""


@dataclass(frozen=True, slots=True)
class Question:
    """A packet, and the Service that it is about."""

    packet: Packet
    service: Json

    @property
    def sticky(self) -> bool:
        """Whether one client is always sent to one backend."""
        return bool(self.service["spec"].get("sessionAffinity") == "ClientIP")


def questions(cluster: Cluster) -> Iterator[Question]:
    """The same ones for the same cluster."""
    random = Random(f"packets {cluster.seed}")
    for service in cluster.services:
        endpoints = _endpoints(cluster, service)
        fresh = count(1)
        seen: set[tuple[str, int, str]] = set()
        for at in _destinations(service, random):
            if at not in seen:
                seen.add(at)
                sticky = service["spec"].get("sessionAffinity") == "ClientIP"
                from_ = _strangers(at[0], fresh) if sticky else _senders(at[0], endpoints, random)
                for origin, source in random.sample(from_, 2):
                    address, port, protocol = at
                    packet = Packet(origin, ip_bytes(source), ip_bytes(address), port, Protocol[protocol])
                    yield Question(packet, service)


def _destinations(service: Json, random: Random) -> Iterator[tuple[str, int, str]]:
    """Address, port, protocol."""
    spec = service["spec"]
    balancers = service["status"].get("loadBalancer", {}).get("ingress", ())
    addresses = [
        *spec.get("clusterIPs", ()),
        *spec.get("externalIPs", ()),
        *(ingress["ip"] for ingress in balancers if "ip" in ingress),
    ]
    addresses = [address for address in addresses if address != "None"]
    for port in spec["ports"]:
        for address in addresses:
            yield address, port["port"], port["protocol"]
        if "nodePort" in port:
            for address in (*setting.PRIMARY, *setting.SECOND):
                yield address, port["nodePort"], port["protocol"]
    for address in addresses:  # what is not there
        port = random.choice(spec["ports"])
        yield address, port["port"] + 50, port["protocol"]
        yield address, port["port"], random.choice(("TCP", "UDP", "SCTP"))


def _senders(to: str, endpoints: Sequence[str], random: Random) -> list[tuple[Origin, str]]:
    """From where to ask something of an address."""
    six = ip_address(to).version == 6
    pods = "fd00:244:0:{}::{:x}" if six else "10.244.{}.{}"
    made = [
        (Origin.OUTSIDE, random.choice((*_ADMITTED[six], *_STRANGERS[six]))),
        (Origin.OUTSIDE, pods.format(2, random.randint(100, 200))),  # another node's pod
        (Origin.POD, pods.format(1, random.randint(100, 200))),
        (Origin.NODE, setting.PRIMARY[six]),
    ]
    near = [one for one in endpoints if (":" in one) is six]
    if near:  # who may be sent to itself
        made.append((Origin.POD, random.choice(near)))
    return made


def _strangers(to: str, fresh: Iterator[int]) -> list[tuple[Origin, str]]:
    """Clients that have never asked before: what they are remembered for is this question."""
    six = ip_address(to).version == 6
    number = next(fresh)
    if six:
        return [
            (Origin.OUTSIDE, f"2001:db8:ffff::{number:x}"),
            (Origin.POD, f"fd00:244:0:1::{100 + number:x}"),
        ]
    return [(Origin.OUTSIDE, f"203.0.113.{number}"), (Origin.POD, f"10.244.1.{100 + number}")]


def _endpoints(cluster: Cluster, service: Json) -> list[str]:
    """The Service's endpoints on this node."""
    name = service["metadata"]["name"]
    return sorted(
        {
            ip_text(ip_bytes(endpoint["addresses"][0]))
            for each in cluster.slices
            if each["metadata"]["labels"]["kubernetes.io/service-name"] == name
            for endpoint in each["endpoints"]
            if endpoint.get("nodeName") == setting.NAME
        }
    )
