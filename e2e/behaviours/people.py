"""Who asks and who serves: on each node a client, a server and one of each on the node itself; and one outside.

All run from the start to the end and serve at the same ports; what a test makes is Services, EndpointSlices and now and
then a pod. Names end in the node's: `client-n1`.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from e2e.bench.asking import Client
from e2e.kube import Object
from e2e.lab import Lab, Node
from e2e.lab.images import BASE
from e2e.netns import Inside

NAMESPACE = "behaviours"
CLIENT, SERVER, HOST, OUTSIDE = "client", "server", "host", "outside"
KINDS = (CLIENT, SERVER, HOST)
PORTS = (8001, 8002)
HOST_PORTS = (18001, 18002)
"""The servers' ports; those on the nodes themselves have others, which nobody else wants there."""

PROGRAM = Path(__file__).with_name("inside") / "peer.py"
_CONTROL, _HOST_CONTROL = 18090, 18091


def program() -> list[Object]:
    """The namespace and the program's ConfigMap."""
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "program", "namespace": NAMESPACE},
            "data": {PROGRAM.name: PROGRAM.read_text()},
        },
    ]


def person(
    kind: str,
    node: str,
    *,
    name: str = "",
    labels: dict[str, str] | None = None,
    grace_s: int = 1,
    gate: str = "",
) -> Object:
    """A pod on a node. `grace_s`: how long it goes on serving when it is told to end; `gate`: a condition that must be
    true before it is ready.
    """
    host = kind == HOST
    name = name or f"{kind}-{node}"
    ports = HOST_PORTS if host else PORTS
    command = 'exec python3 -I /behaviours/peer.py "$0" "$ADDRESSES" "$@"'
    container = {
        "name": "peer",
        "image": BASE,
        "imagePullPolicy": "IfNotPresent",
        # As a container's first process it takes no signal that it has not asked for: it serves until it is killed.
        "command": ["sh", "-c", command, name, str(_HOST_CONTROL if host else _CONTROL), *map(str, ports)],
        "env": [{"name": "ADDRESSES", "valueFrom": {"fieldRef": {"fieldPath": "status.podIPs"}}}],
        "volumeMounts": [{"name": "program", "mountPath": "/behaviours"}],
        "readinessProbe": {"tcpSocket": {"port": ports[0]}, "periodSeconds": 1, "failureThreshold": 3},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": NAMESPACE,
            "labels": {"kind": kind, "node": node, "program": _digest(), **(labels or {})},
        },
        "spec": {
            "nodeName": node,
            "hostNetwork": host,
            "terminationGracePeriodSeconds": grace_s,
            "readinessGates": [{"conditionType": gate}] if gate else [],
            "tolerations": [{"operator": "Exists"}],
            "containers": [container],
            "volumes": [{"name": "program", "configMap": {"name": "program"}}],
        },
    }


def _digest() -> str:
    return hashlib.sha256(PROGRAM.read_bytes()).hexdigest()[:16]


def outdated(pods: Iterable[Object]) -> list[str]:
    """Those of an earlier run that have another program."""
    return [p["metadata"]["name"] for p in pods if p["metadata"]["labels"].get("program") != _digest()]


def everybody(nodes: Sequence[Node]) -> Iterator[Object]:
    """All pods that are there from the start."""
    for node in nodes:
        for kind in KINDS:
            yield person(kind, node.name)


def client(pod: Object, fabric: Inside) -> Client:
    """How a pod is asked."""
    control = _HOST_CONTROL if pod["spec"].get("hostNetwork") else _CONTROL
    return Client(pod["metadata"]["name"], pod["status"]["podIP"], control, fabric)


def outside_argv() -> list[str]:
    """The command of the one outside, which serves nobody."""
    return ["/usr/bin/env", "ATTENDED=1", "python3", "-I", str(PROGRAM), OUTSIDE, "", str(_CONTROL)]


def outside(lab: Lab, fabric: Inside) -> Client:
    """How the one outside is asked."""
    return Client(OUTSIDE, lab.plan.client4, _CONTROL, fabric)
