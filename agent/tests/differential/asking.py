"""The packets that a cluster is asked with: to all of its addresses, and a little beside them, from everywhere."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
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
        seen: set[tuple[str, int, str]] = set()
        for at in _destinations(service, random):
            if at not in seen:
                seen.add(at)
                for packet in _from_everywhere(*at, endpoints, random):
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


def _from_everywhere(
    address: str, port: int, protocol: str, endpoints: Sequence[str], random: Random
) -> Iterator[Packet]:
    six = ip_address(address).version == 6
    outside = random.choice((*_ADMITTED[six], *_STRANGERS[six]))
    pods = "fd00:244:0:{}::{:x}" if six else "10.244.{}.{}"
    senders = [
        (Origin.OUTSIDE, outside),
        (Origin.OUTSIDE, pods.format(2, random.randint(100, 200))),  # another node's pod
        (Origin.POD, pods.format(1, random.randint(100, 200))),
        (Origin.NODE, setting.PRIMARY[six]),
    ]
    near = [one for one in endpoints if (":" in one) is six]
    if near:  # who may be sent to itself
        senders.append((Origin.POD, random.choice(near)))
    for origin, source in random.sample(senders, 2):
        yield Packet(origin, ip_bytes(source), ip_bytes(address), port, Protocol[protocol])


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
