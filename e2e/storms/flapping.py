"""Endpoints that come and go fifty times a second, in slices that nobody's controller writes.

Every endpoint is a pod that answers all the time, so that whatever was chosen, by whatever state of the slices, serves.
TCP only: when a datagram's endpoint goes, kube-proxy forgets who asked, and the answer under way is lost with it.
"""

import json
import subprocess
import sys
import time
from typing import Any

from e2e.kube import Object
from e2e.lab.paths import CHECKOUT
from e2e.storms.storm import Storm, StormError
from e2e.traffic.deploy import NAMESPACE
from e2e.trial import Trial

_NAME = "flapping"


class FlappingEndpoints(Storm):
    """Has the EndpointSlices of a Service that is under traffic changed all the time (see `flapper`)."""

    service = _NAME

    def __init__(self, trial: Trial, seed: int = 0) -> None:
        super().__init__(trial)
        self._slices: list[Object] = []
        self._seed = seed
        self._process: subprocess.Popen[str] | None = None
        self._began = self._seconds = 0.0
        self._changes = 0

    def begin(self) -> list[dict[str, Any]]:
        kube = self.trial.kube
        kube.apply(service())
        self._slices = [
            slice_of(item) for item in kube.list("EndpointSlice", NAMESPACE, "kubernetes.io/service-name=web")
        ]
        kube.apply(*self._slices)
        found = kube.get("Service", _NAME, NAMESPACE)
        nodes = self.trial.lab.plan.nodes
        (port,) = found["spec"]["ports"]
        addresses = [(a, port["port"]) for a in found["spec"]["clusterIPs"]]
        addresses += [(a, port["nodePort"]) for node in nodes for a in (node.ipv4, node.ipv6)]
        return [{"name": _NAME, "address": a, "port": p, "expect": "served"} for a, p in addresses]

    def blow(self) -> None:
        if self._process is None:
            self._process = self._start()
        assert self._process.stdout is not None
        made = self._process.stdout.readline()
        if not made:
            raise StormError(f"the flapper ended with status {self._process.wait()}")
        self._changes, self._seconds = int(made), time.monotonic() - self._began

    def said(self) -> str:
        per_s = self._changes / max(self._seconds, 1.0)
        return f"{self._changes} changes in {self._seconds:.0f} s, {per_s:.1f} a second"

    def end(self) -> None:
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.wait(timeout=30)
            self._process = None
        self.trial.kube.delete("Service", _NAME, NAMESPACE)
        for item in self._slices:
            self.trial.kube.delete("EndpointSlice", item["metadata"]["name"], NAMESPACE)

    def _start(self) -> "subprocess.Popen[str]":
        lab = self.trial.lab
        command = [sys.executable, "-P", "-m", "e2e.storms.flapper"]
        pipe = subprocess.PIPE
        process: subprocess.Popen[str] = lab.client_popen(
            command, stdin=pipe, stdout=pipe, text=True, cwd=CHECKOUT
        )
        where = {"netns": lab.plan.fabric_netns, "address": lab.plan.api4, "pki": str(lab.scratch.pki)}
        assert process.stdin is not None
        process.stdin.write(json.dumps({**where, "slices": self._slices, "seed": self._seed}) + "\n")
        process.stdin.flush()
        self._began = time.monotonic()
        return process


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
