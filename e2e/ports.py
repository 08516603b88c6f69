"""What a node answers at kube-proxy's ports, asked as load balancers and dashboards ask: the same of whoever serves."""

import http.client
import json
from dataclasses import dataclass
from typing import Any

from e2e.kube import Object
from e2e.lab import Node
from e2e.traffic import deploy
from e2e.trial import Trial, until

_SERVICE = "checked"
_HEADERS = ("Content-Type", "X-Content-Type-Options", "X-Load-Balancing-Endpoint-Weight")
_OF_RULES = ("iptables", "nftables", "ipvs")
"""In the names of metrics that speak of a kind of rules."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer over HTTP, as far as it should be the same whoever gives it."""

    status: int
    headers: dict[str, str]
    body: Any


def answers(trial: Trial) -> dict[str, object]:
    """What all nodes answer, by what was asked; times are left out.

    A Service of type LoadBalancer with the Local policy is made for it, has an endpoint on every node, then none, and
    goes again. Raises TrialError when a node does not come to say so.
    """
    trial.kube.apply(_service("web"))
    port = trial.kube.get("Service", _SERVICE, deploy.NAMESPACE)["spec"]["healthCheckNodePort"]
    found: dict[str, object] = {}
    for app, status in (("web", 200), ("nobody", 503)):
        trial.kube.apply(_service(app))
        checks = until(
            f"every node answers {status} at the health check port of a Service for {app}",
            lambda status=status: _all(_checks(trial, port), status),  # type: ignore[misc]
            60,
            lambda: _checks(trial, port),
        )
        found |= {f"{app}: {what}": answer for what, answer in checks.items()}
    trial.kube.delete("Service", _SERVICE, deploy.NAMESPACE)
    until("the health check ports are closed", lambda: not any(_checks(trial, port).values()), 30)
    for node in trial.lab.nodes:
        for path in ("/healthz", "/livez"):
            found[f"{node.name}: {path}"] = _without_times(trial.fabric.call(ask, node.ipv4, 10256, path))
        found[f"{node.name}: metrics"] = _metrics(node)
    return found


def ask(address: str, port: int, path: str = "/") -> Answer | None:
    """GET a path; None when nobody listens."""
    connection = http.client.HTTPConnection(address, port, timeout=5)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        headers = {name: response.headers[name] for name in _HEADERS if name in response.headers}
        return Answer(response.status, headers, json.loads(response.read()))
    except OSError:
        return None
    finally:
        connection.close()


def _service(app: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": _SERVICE, "namespace": deploy.NAMESPACE},
        "spec": {
            "type": "LoadBalancer",
            "externalTrafficPolicy": "Local",
            "allocateLoadBalancerNodePorts": False,
            "ipFamilyPolicy": "PreferDualStack",
            "selector": {"app": app},
            "ports": [{"name": "http", "port": 80, "targetPort": 8080}],
        },
    }


def _checks(trial: Trial, port: int) -> dict[str, Answer | None]:
    return {
        f"{node.name} {address}": trial.fabric.call(ask, address, port)
        for node in trial.lab.nodes
        for address in (node.ipv4, node.ipv6)
    }


def _all(found: dict[str, Answer | None], status: int) -> dict[str, Answer | None] | None:
    return found if all(each is not None and each.status == status for each in found.values()) else None


def _without_times(answer: Answer | None) -> Answer | None:
    if answer is None:
        return None
    body = {name: value for name, value in answer.body.items() if name not in ("lastUpdated", "currentTime")}
    body["status"] = {family: said["healthy"] for family, said in body["status"].items()}
    return Answer(answer.status, answer.headers, body)


def _metrics(node: Node) -> list[str]:
    """Type and name of kube-proxy's metrics at its own address, without those of its rules."""
    text = node.exec(["curl", "-sf", "http://127.0.0.1:10249/metrics"]).stdout
    lines = [line.split() for line in text.splitlines() if line.startswith("# TYPE kubeproxy_")]
    return sorted(f"{name} {kind}" for _, _, name, kind in lines if not any(of in name for of in _OF_RULES))
