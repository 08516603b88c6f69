"""A small cluster on paper: the Services and EndpointSlices that kube-proxy's rules were recorded from.

Each Service is here for one thing that kube-proxy's rules do; together they cover what parity has to read and
what a flush has to take away. `recording.py` gives them to a real kube-proxy.
"""

from collections.abc import Sequence
from typing import Any

NODE = "node-a"
NODE_V4, NODE_V6 = "192.0.2.10", "2001:db8::10"
Json = dict[str, Any]


def node() -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": NODE, "uid": "n1", "resourceVersion": "1"},
        "spec": {"podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24", "fd00:244:0:1::/64"]},
        "status": {"addresses": [{"type": "InternalIP", "address": a} for a in (NODE_V4, NODE_V6)]},
    }


def service_cidr() -> Json:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "ServiceCIDR",
        "metadata": {"name": "kubernetes", "uid": "c1", "resourceVersion": "1"},
        "spec": {"cidrs": ["10.96.0.0/16", "fd00:96::/112"]},
        "status": {"conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": None}]},
    }


def port(number: int, target: int, name: str = "", protocol: str = "TCP", node_port: int = 0) -> Json:
    made: Json = {"name": name, "port": number, "targetPort": target, "protocol": protocol}
    return made | ({"nodePort": node_port} if node_port else {})


def service(
    name: str, ips: Sequence[str], ports: Sequence[Json], namespace: str = "default", **spec: Any
) -> Json:
    ingress = spec.pop("ingress", ())
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace, "uid": f"s-{name}", "resourceVersion": "1"},
        "spec": {
            "type": "ClusterIP",
            "clusterIP": ips[0],
            "clusterIPs": list(ips),
            "ipFamilies": ["IPv6" if ":" in ip else "IPv4" for ip in ips],
            "ipFamilyPolicy": "PreferDualStack",
            "internalTrafficPolicy": "Cluster",
            "sessionAffinity": "None",
            "ports": list(ports),
        }
        | spec,
        "status": {"loadBalancer": {"ingress": [{"ip": ip, "ipMode": "VIP"} for ip in ingress]}},
    }


def slices(svc: Json, hosts: Sequence[tuple[int, int]], serving_only: bool = False) -> list[Json]:
    """An EndpointSlice per family; a host is (node's number, pod's number); node 1 is this node."""
    made = []
    for family, pattern in (("IPv4", "10.244.{}.{}"), ("IPv6", "fd00:244:0:{}::{}")):
        made.append(
            {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "addressType": family,
                "metadata": {
                    "name": f"{svc['metadata']['name']}-{family.lower()}",
                    "namespace": svc["metadata"]["namespace"],
                    "uid": f"e-{svc['metadata']['name']}-{family}",
                    "resourceVersion": "1",
                    "labels": {"kubernetes.io/service-name": svc["metadata"]["name"]},
                },
                "ports": [
                    {"name": p["name"], "port": p["targetPort"], "protocol": p["protocol"]}
                    for p in svc["spec"]["ports"]
                ],
                "endpoints": [
                    {
                        "addresses": [pattern.format(n, pod)],
                        "nodeName": NODE if n == 1 else f"node-{'abcdef'[n - 1]}",
                        "conditions": {
                            "ready": not serving_only,
                            "serving": True,
                            "terminating": serving_only,
                        },
                    }
                    for n, pod in hosts
                ],
            }
        )
    return made


def cluster() -> tuple[list[Json], list[Json]]:
    """The Services and the EndpointSlices."""
    both = "10.96.{0}.{1} fd00:96::{0}{1:02}".format
    rows: list[tuple[Json, list[Json]]] = []

    def add(svc: Json, hosts: Sequence[tuple[int, int]], serving_only: bool = False) -> None:
        rows.append((svc, slices(svc, hosts, serving_only)))

    dns = [port(53, 53, "dns", "UDP"), port(53, 53, "dns-tcp"), port(9153, 9153, "metrics")]
    add(service("kube-dns", both(0, 10).split(), dns, "kube-system"), [(1, 2), (2, 2)])
    add(service("kubernetes", ["10.96.0.1"], [port(443, 6443, "https")]), [(3, 9)])
    add(service("plain", both(1, 1).split(), [port(80, 8080)]), [(1, 11), (2, 11), (3, 11)])
    add(
        service("nodeport", both(1, 2).split(), [port(80, 8080, "http", node_port=30080)], type="NodePort"),
        [(1, 12), (2, 12)],
    )
    add(
        service(
            "both-protocols",
            both(1, 3).split(),
            [port(5000, 5000, "t", "TCP", 30500), port(5000, 5001, "u", "UDP", 30500)],
            type="NodePort",
        ),
        [(1, 13), (3, 13)],
    )
    add(
        service(
            "lb-ranges",
            both(1, 4).split(),
            [port(443, 8443, "https", node_port=30443)],
            type="LoadBalancer",
            externalTrafficPolicy="Cluster",
            loadBalancerSourceRanges=["198.51.100.0/24", "192.0.2.0/24", "2001:db8:5::/48"],
            ingress=["203.0.113.4", "2001:db8:113::4"],
        ),
        [(1, 14), (2, 14)],
    )
    add(
        service(
            "lb-local",
            both(1, 5).split(),
            [port(80, 8080, "http", node_port=30505)],
            type="LoadBalancer",
            externalTrafficPolicy="Local",
            healthCheckNodePort=32505,
            ingress=["203.0.113.5", "2001:db8:113::5"],
        ),
        [(1, 15), (2, 15)],
    )
    add(
        service(
            "lb-local-elsewhere",
            both(1, 6).split(),
            [port(80, 8080, "http", node_port=30606)],
            type="LoadBalancer",
            externalTrafficPolicy="Local",
            healthCheckNodePort=32606,
            ingress=["203.0.113.6", "2001:db8:113::6"],
        ),
        [(2, 16), (3, 16)],
    )
    add(
        service(
            "sticky",
            both(1, 7).split(),
            [port(80, 8080, "http", node_port=30707)],
            type="NodePort",
            sessionAffinity="ClientIP",
            sessionAffinityConfig={"clientIP": {"timeoutSeconds": 10800}},
        ),
        [(1, 17), (2, 17)],
    )
    add(
        service("itp-local", both(1, 8).split(), [port(80, 8080)], internalTrafficPolicy="Local"),
        [(1, 18), (2, 18)],
    )
    add(
        service("itp-local-elsewhere", both(1, 9).split(), [port(80, 8080)], internalTrafficPolicy="Local"),
        [(2, 19)],
    )
    add(
        service(
            "nobody",
            both(2, 1).split(),
            [port(80, 8080, "http", node_port=30201), port(81, 8081, "u", "UDP", 30202)],
            type="LoadBalancer",
            externalTrafficPolicy="Cluster",
            ingress=["203.0.113.21", "2001:db8:113::21"],
        ),
        [],
    )
    add(
        service(
            "external", both(2, 2).split(), [port(80, 8080)], externalIPs=["198.51.100.77", "2001:db8:77::1"]
        ),
        [(1, 22), (3, 22)],
    )
    add(service("sctp", both(2, 3).split(), [port(9999, 9999, "s", "SCTP")]), [(2, 23)])
    add(service("draining", both(2, 4).split(), [port(80, 8080)]), [(1, 24), (2, 24)], serving_only=True)
    return [svc for svc, _ in rows], [s for _, of in rows for s in of if of]
