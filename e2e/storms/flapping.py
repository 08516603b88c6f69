"""Endpoints that come and go fifty times a second, in slices that nobody's controller writes.

Every endpoint is a pod that answers all the time, so that whatever was chosen, by whatever state of the slices, serves.
TCP only: when a datagram's endpoint goes, kube-proxy forgets who asked, and the answer under way is lost with it.
"""

import random
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any

from e2e.kube import Line, Object
from e2e.storms.storm import Storm
from e2e.traffic.deploy import NAMESPACE
from e2e.trial import Trial

_NAME = "flapping"
_CHANGES_PER_S = 50
_AT_A_TIME = 50


class FlappingEndpoints(Storm):
    """Changes the EndpointSlices of a Service that is under traffic, at a rate; `blown` counts seconds of that."""

    service = _NAME

    def __init__(self, trial: Trial, seed: int = 0) -> None:
        super().__init__(trial)
        self._slices: list[Object] = []
        self._changes: Iterator[tuple[str, list[Object]]] = iter(())
        self._random = random.Random(seed)
        self._lines = ExitStack()
        self._line: Line | None = None

    def begin(self) -> list[dict[str, Any]]:
        kube = self.trial.kube
        kube.apply(service())
        self._slices = [
            slice_of(item) for item in kube.list("EndpointSlice", NAMESPACE, "kubernetes.io/service-name=web")
        ]
        kube.apply(*self._slices)
        self._changes = changes(self._slices, self._random)
        found = kube.get("Service", _NAME, NAMESPACE)
        nodes = self.trial.lab.plan.nodes
        (port,) = found["spec"]["ports"]
        addresses = [(a, port["port"]) for a in found["spec"]["clusterIPs"]]
        addresses += [(a, port["nodePort"]) for node in nodes for a in (node.ipv4, node.ipv6)]
        return [{"name": _NAME, "address": a, "port": p, "expect": "served"} for a, p in addresses]

    def blow(self) -> None:
        if self._line is None:
            self._line = self._lines.enter_context(self.trial.kube.line())
        due = time.monotonic()
        for _ in range(_AT_A_TIME):
            name, endpoints = next(self._changes)
            self._line.patch("EndpointSlice", name, {"endpoints": endpoints}, NAMESPACE)
            due += 1 / _CHANGES_PER_S
            time.sleep(max(0.0, due - time.monotonic()))

    def end(self) -> None:
        self._lines.close()
        self.trial.kube.delete("Service", _NAME, NAMESPACE)
        for item in self._slices:
            self.trial.kube.delete("EndpointSlice", item["metadata"]["name"], NAMESPACE)


def service() -> Object:
    """A Service without a selector: its slices are ours."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": _NAME, "namespace": NAMESPACE},
        "spec": {
            "type": "NodePort",
            "ipFamilyPolicy": "PreferDualStack",
            "ports": [{"name": "http", "port": 80, "targetPort": 8080}],
        },
    }


def slice_of(item: Object) -> Object:
    """A slice of ours with the same endpoints as another's."""
    family = item["addressType"].lower()
    labels = {"kubernetes.io/service-name": _NAME, "endpointslice.kubernetes.io/managed-by": "e2e"}
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": f"{_NAME}-{family}", "namespace": NAMESPACE, "labels": labels},
        "addressType": item["addressType"],
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": item["endpoints"],
    }


def changes(slices: Sequence[Object], chance: random.Random) -> Iterator[tuple[str, list[Object]]]:
    """Slices' names with their next endpoints, without end: some of them in some order, and one at least is ready.

    Those that are not are gone, or are said to be ending while they serve.
    """
    while True:
        for item in slices:
            every = list(item["endpoints"])
            ready = chance.sample(every, chance.randint(1, len(every)))
            others = [e for e in every if e not in ready and chance.random() < 0.5]
            ending = {"ready": False, "serving": True, "terminating": True}
            endpoints = [*ready, *({**e, "conditions": ending} for e in others)]
            yield item["metadata"]["name"], chance.sample(endpoints, len(endpoints))
