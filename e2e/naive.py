"""What a hurried person does to kube-proxy: delete the DaemonSet and clean up on every node; and how to undo it."""

from e2e.kube import Kube, Object
from e2e.lab import Lab
from e2e.trial import until

_NAME, _NAMESPACE = "kube-proxy", "kube-system"


def remove_kube_proxy(lab: Lab, kube: Kube) -> Object:
    """Delete the DaemonSet, wait until its pods are gone, remove its rules everywhere. Returns what was deleted."""
    daemonset = kube.get("DaemonSet", _NAME, _NAMESPACE)
    kube.delete("DaemonSet", _NAME, _NAMESPACE)
    until("kube-proxy's pods are gone", lambda: not kube.list("Pod", _NAMESPACE, "k8s-app=kube-proxy"), 60)
    for node in lab.nodes:
        path = f"PATH={node.directory / 'iptables'}:/usr/sbin:/usr/bin:/sbin:/bin"
        node.exec(["env", path, str(lab.binaries / "kube-proxy"), "--cleanup"])
    return daemonset


def put_back(lab: Lab, kube: Kube, daemonset: Object) -> None:
    """Create the DaemonSet again as it was created first, and wait until its pods run."""
    metadata = {name: daemonset["metadata"][name] for name in ("name", "namespace", "labels")}
    again = {"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": metadata, "spec": daemonset["spec"]}
    kube.create(again, manager="kubeadm")
    lab.rollout(f"daemonset/{_NAME}", _NAMESPACE)
