"""Random Services and EndpointSlices, as the API server would hand them out: a cluster from a seed.

Anything the API server admits may come, but for what kube-proxy itself leaves undefined or cannot do, because then
there is no answer to compare with: two Services that claim one address and port, two sightings of a running
endpoint that contradict each other, overlapping source ranges (nft refuses them, and with them the whole sync).
Clusters do not overlap, so that many can be given to one kube-proxy.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from tests.differential import setting
from tests.differential.setting import PRIMARY, ZONES, Json

FAMILIES = ("IPv4", "IPv6")
NODE_PORTS = range(30000, 32768)
MOST_IN_ONE_RUN = 300
_PER_CLUSTER = len(NODE_PORTS) // MOST_IN_ONE_RUN
_SERVICES = 4
_PROTOCOLS = ("TCP", "TCP", "TCP", "UDP", "UDP", "SCTP")
_RANGES = (
    ("198.51.100.0/24", "198.18.0.0/15", "192.0.2.0/24", "10.244.1.0/24", "172.20.0.0/16"),
    ("2001:db8:5::/48", "2001:db8:6::1/128", "2001:db8::/64", "fd00:244:0:1::/64", "2001:db8:113::/64"),
)
_ALIVE = {"ready": True, "serving": True, "terminating": False}
_DRAINING = {"ready": False, "serving": True, "terminating": True}
_CONDITIONS: tuple[Json, ...] = (
    {},
    {"ready": True},
    {"ready": True, "serving": None, "terminating": None},
    {"ready": True, "serving": True, "terminating": True},  # publishNotReadyAddresses, being deleted
    {"ready": False, "serving": False, "terminating": False},
    {"ready": False, "serving": False, "terminating": True},
    {"ready": False, "serving": True, "terminating": False},
    {"ready": False, "terminating": True},
    _DRAINING,
    _DRAINING,
)


@dataclass(frozen=True, slots=True)
class Cluster:
    """A namespace's Services and EndpointSlices, and the seed that they come from."""

    seed: int
    services: tuple[Json, ...]
    slices: tuple[Json, ...]


def cluster(seed: int, number: int) -> Cluster:
    """The cluster of a seed; `number` tells it apart from the others of its run (0 … MOST_IN_ONE_RUN - 1)."""
    if number >= MOST_IN_ONE_RUN:
        raise ValueError(f"cluster number {number}: one run holds {MOST_IN_ONE_RUN}")
    maker = _Maker(Random(seed), number)
    services: list[Json] = []
    slices: list[Json] = []
    for index in range(maker.random.randint(1, _SERVICES)):
        made = maker.service(index)
        services.append(made)
        slices.extend(maker.slices_of(made))
    return Cluster(seed, tuple(services), tuple(slices))


class _Maker:
    """Draws one thing after the other; a cluster's addresses and node ports follow from its number."""

    def __init__(self, random: Random, number: int) -> None:
        self.random = random
        self.number = number
        first = NODE_PORTS.start + number * _PER_CLUSTER
        self.node_ports = iter(range(first, first + _PER_CLUSTER))

    def likely(self, share: float) -> bool:
        return self.random.random() < share

    def service(self, index: int) -> Json:
        kind = self.random.choice(("ClusterIP", "NodePort", "LoadBalancer"))
        families = self.random.choice((FAMILIES, FAMILIES, FAMILIES[:1], FAMILIES[1:], FAMILIES[::-1]))
        own = 1 + self.number * _SERVICES + index
        ips = [f"10.96.{own >> 8}.{own & 255}" if f == "IPv4" else f"fd00:96::{own:x}" for f in families]
        spec: Json = {
            "type": kind,
            "clusterIP": ips[0],
            "clusterIPs": ips,
            "ipFamilies": list(families),
            "internalTrafficPolicy": self.random.choice(("Cluster", "Cluster", "Local")),
            "sessionAffinity": "None",
            "ports": self.ports(index, kind),
        }
        metadata: Json = {
            "name": f"s{index}",
            "namespace": f"c{self.number}",
            "uid": f"s-{self.number}-{index}",
            "resourceVersion": "1",
            "creationTimestamp": f"2026-01-01T00:00:{index:02}Z",
            "labels": {},
        }
        status: Json = {}
        if self.likely(0.2):
            spec["sessionAffinity"] = "ClientIP"
            spec["sessionAffinityConfig"] = {"clientIP": {"timeoutSeconds": self.random.choice((60, 10800))}}
        if kind != "ClusterIP":
            spec["externalTrafficPolicy"] = self.random.choice(("Cluster", "Local"))
        if kind == "LoadBalancer":
            status = {"loadBalancer": {"ingress": list(self.ingress(own))}}
            if self.likely(0.4):
                spec["loadBalancerSourceRanges"] = self.source_ranges()
        if self.likely(0.25):
            spec["externalIPs"] = list(self.external_ips(own))
            spec.setdefault("externalTrafficPolicy", self.random.choice(("Cluster", "Local")))
        if self.likely(0.04):
            label = self.random.choice(("service-proxy-name", "headless"))
            metadata["labels"][f"service.kubernetes.io/{label}"] = self.random.choice(("", "other"))
        return {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": self.odd(spec),
            "status": status,
        }

    def odd(self, spec: Json) -> Json:
        """Now and then no Service for a node proxy."""
        if spec["type"] == "ClusterIP" and self.likely(0.06):
            if self.likely(0.5):
                return spec | {"clusterIP": "None", "clusterIPs": ["None"]}
            kept = {key: spec[key] for key in ("ports", "sessionAffinity")}
            return kept | {"type": "ExternalName", "externalName": "elsewhere.example"}
        return spec

    def ports(self, index: int, kind: str) -> list[Json]:
        made: list[Json] = []
        for count in range(self.random.choice((1, 1, 2, 3))):
            protocol = self.random.choice(_PROTOCOLS)
            number, target = 80 + 100 * index + count, self.random.choice((8080, 8081, 80 + 100 * index))
            before = made[-1] if made and all(port["protocol"] != protocol for port in made) else {}
            if before and self.likely(0.5):
                number = before["port"]  # one port with two protocols
            port: Json = {"name": f"p{count}", "port": number, "targetPort": target, "protocol": protocol}
            if kind == "NodePort" or (kind == "LoadBalancer" and self.likely(0.8)):
                share = self.likely(0.5) and before.get("nodePort")
                node_port = share or next(self.node_ports, 0)
                if node_port:  # the cluster's share may be used up
                    port["nodePort"] = node_port
            made.append(port)
        if len(made) == 1 and self.likely(0.5):
            made[0]["name"] = ""
        return made

    def ingress(self, own: int) -> Iterator[Json]:
        if self.likely(0.1):
            return
        for address in (f"172.20.{own >> 8}.{own & 255}", f"2001:db8:113::{own:x}"):
            if self.likely(0.9):
                yield {"ip": address} | self.random.choice(
                    ({}, {"ipMode": "VIP"}, {"ipMode": "VIP"}, {"ipMode": "Proxy"})
                )
        if self.likely(0.1):
            yield {"hostname": "balancer.example"}

    def external_ips(self, own: int) -> Iterator[str]:
        for address in (f"172.21.{own >> 8}.{own & 255}", f"2001:db8:77::{own:x}"):
            if self.likely(0.8):
                yield address
        if self.number == 0 and own == 1:
            yield from PRIMARY  # the node's own; only one cluster can have its ports

    def source_ranges(self) -> list[str]:
        chosen = [text for family in _RANGES for text in family if self.likely(0.35)]
        if self.likely(0.1):
            chosen.append(self.random.choice(("0.0.0.0/0", "::/0")))
        self.random.shuffle(chosen)
        return [f" {text} " if self.likely(0.1) else text for text in chosen]

    def slices_of(self, service: Json) -> Iterator[Json]:
        """Up to two EndpointSlices of each family, and what else may lie about."""
        hints = self.random.choice(("", "", "zones", "nodes", "both", "some"))
        for family in FAMILIES:
            seen: dict[str, Json] = {}
            for index in range(self.random.choice((0, 1, 1, 1, 1, 2))):
                endpoints = [
                    self.endpoint(family, hints) for _ in range(self.random.choice((0, 1, 1, 2, 3, 5)))
                ]
                endpoints = [self.settled(endpoint, seen) for endpoint in endpoints]
                yield self.slice_of(service, family, index, endpoints)
        if self.likely(0.05):
            yield self.slice_of(service, "FQDN", 9, [{"addresses": ["pod.example"], "conditions": {}}])

    def slice_of(self, service: Json, family: str, index: int, endpoints: list[Json]) -> Json:
        name, namespace = service["metadata"]["name"], service["metadata"]["namespace"]
        labels = {"kubernetes.io/service-name": name}
        if self.likely(0.03):
            labels["service.kubernetes.io/headless"] = ""
        moved = index and self.likely(0.5)  # a target port that has a name may differ between pods
        return {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "addressType": family,
            "metadata": {
                "name": f"{name}-{family.lower()}-{index}",
                "namespace": namespace,
                "uid": f"e-{namespace}-{name}-{family}-{index}",
                "resourceVersion": "1",
                "labels": labels,
            },
            "ports": [
                self.slice_port(port, 1000 if moved else 0)
                for port in service["spec"]["ports"]
                if self.likely(0.95)
            ],
            "endpoints": endpoints,
        }

    def slice_port(self, port: Json, more: int) -> Json:
        made = {"name": port["name"], "protocol": port["protocol"]}
        return made if self.likely(0.02) else made | {"port": port["targetPort"] + more}

    def endpoint(self, family: str, hints: str) -> Json:
        node = self.random.choice((1, 1, 2, 3, 4, 0))
        pod = self.random.randint(2, 40)
        if node:
            address = f"10.244.{node}.{pod}" if family == "IPv4" else f"fd00:244:0:{node}::{pod:x}"
            made: Json = {"nodeName": (setting.NAME, *setting.OTHER_NODES)[node - 1]}
        else:  # somebody who is not in the cluster
            address, made = (f"198.18.7.{pod}" if family == "IPv4" else f"2001:db8:9::{pod:x}"), {}
        made["addresses"] = [address]
        if self.likely(0.03):
            made["addresses"].append("10.244.9.9" if family == "IPv4" else "fd00:244:0:9::9")
        made["conditions"] = _ALIVE if self.likely(0.6) else self.random.choice(_CONDITIONS)
        return made | self.hints(hints)

    def hints(self, kind: str) -> Json:
        if not kind or (kind == "some" and self.likely(0.5)):
            return {}
        made: Json = {}
        if kind != "nodes":
            zones = self.random.sample(ZONES, self.random.choice((1, 1, 2)))
            made["forZones"] = [{"name": zone} for zone in zones]
        if kind in ("nodes", "both"):
            node = self.random.choice((setting.NAME, *setting.OTHER_NODES))
            made["forNodes"] = [{"name": node}]
        return {"hints": made}

    def settled(self, endpoint: Json, seen: dict[str, Json]) -> Json:
        """An address that comes again has one running pod, or nobody knows which one counts."""
        address = endpoint["addresses"][0]
        before = seen.setdefault(address, endpoint)
        if before is endpoint:
            return endpoint
        if before["conditions"].get("terminating"):  # the address was given to another pod
            seen[address] = before | {"conditions": _ALIVE}
            return seen[address]
        ready = before["conditions"].get("ready", True)  # else see `differences`
        return before | {"conditions": _DRAINING} if ready and self.likely(0.5) else before
