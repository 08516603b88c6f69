"""Pods that are replaced all the time, in rolling updates as one should do them: a new pod is ready before an old one
is told to end, and what is told to end goes on serving until everybody has heard of it.
"""

import time
from typing import Any

from e2e.kube import Object
from e2e.lab.images import BASE
from e2e.storms.storm import Storm
from e2e.traffic.deploy import NAMESPACE
from e2e.trial import until

UDP_PORT, PODS_UDP_PORT = 81, 8081
_NAME = "rolling"
# So long a pod serves after it was told to end. An agent that was killed just then has to be back by that time: what it
# wrote before goes on serving, but hears no news.
_GOES_ON_S = 40
_ROLLED_OUT_S = 180.0


class RollingPods(Storm):
    """Restarts a Deployment whose Service is under traffic, TCP and UDP, again and again."""

    service = _NAME

    def begin(self) -> list[dict[str, Any]]:
        self.trial.kube.apply(deployment(replicas=len(self.trial.lab.plan.nodes)), service())
        until("the rolling pods are there", self._rolled_out, _ROLLED_OUT_S)
        found = self.trial.kube.get("Service", _NAME, NAMESPACE)
        nodes = self.trial.lab.plan.nodes
        addresses = [(a, "port") for a in found["spec"]["clusterIPs"]]
        addresses += [(a, "nodePort") for node in nodes for a in (node.ipv4, node.ipv6)]
        return [
            {
                "name": _NAME,
                "address": a,
                "port": port[which],
                "protocol": port["protocol"],
                "expect": "served",
            }
            for a, which in addresses
            for port in found["spec"]["ports"]
        ]

    def blow(self) -> None:
        restarted = {"annotations": {"e2e/restarted": str(time.time())}}
        patch = {"spec": {"template": {"metadata": restarted}}}
        self.trial.kube.patch("Deployment", _NAME, patch, NAMESPACE)
        until("the rolling pods are replaced", self._replaced, _ROLLED_OUT_S, self._seen)

    def end(self) -> None:
        self.trial.kube.delete("Service", _NAME, NAMESPACE)
        self.trial.kube.delete("Deployment", _NAME, NAMESPACE)

    def _replaced(self) -> bool:
        """Whether the old pods are gone, too: there would be ever more of them."""
        pods = self.trial.kube.list("Pod", NAMESPACE, f"app={_NAME}")
        return self.ending.is_set() or (self._rolled_out() and len(pods) == len(self.trial.lab.plan.nodes))

    def _rolled_out(self) -> bool:
        """Whether all pods that mean to stay are new ones, and ready."""
        item = self.trial.kube.get("Deployment", _NAME, NAMESPACE)
        status = item.get("status", {})
        counts = ("replicas", "updatedReplicas", "availableReplicas")
        current = status.get("observedGeneration") == item["metadata"]["generation"]
        return current and all(status.get(count) == item["spec"]["replicas"] for count in counts)

    def _seen(self) -> object:
        return self.trial.kube.get("Deployment", _NAME, NAMESPACE).get("status")


def deployment(replicas: int) -> Object:
    """The pods."""
    labels = {"app": _NAME}
    container = {
        "name": "server",
        "image": BASE,
        "imagePullPolicy": "IfNotPresent",
        "command": [
            "sh",
            "-c",
            f"exec agnhost netexec --http-port=8080 --udp-port={PODS_UDP_PORT} >/dev/null 2>&1",
        ],
        "env": [{"name": "GOMAXPROCS", "value": "1"}],
        "lifecycle": {"preStop": {"sleep": {"seconds": _GOES_ON_S}}},
        "readinessProbe": {
            "httpGet": {"path": "/healthz", "port": 8080},
            "periodSeconds": 1,
            "timeoutSeconds": 5,
            "failureThreshold": 15,
        },
    }
    pod = {"terminationGracePeriodSeconds": _GOES_ON_S + 8, "containers": [container]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": _NAME, "namespace": NAMESPACE},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


def service() -> Object:
    """Their Service, with NodePorts."""
    ports = [
        {"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"},
        {"name": "udp", "port": UDP_PORT, "targetPort": PODS_UDP_PORT, "protocol": "UDP"},
    ]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": _NAME, "namespace": NAMESPACE},
        "spec": {
            "type": "NodePort",
            "ipFamilyPolicy": "PreferDualStack",
            "selector": {"app": _NAME},
            "ports": ports,
        },
    }
