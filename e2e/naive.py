"""What a hurried person does to kube-proxy: delete the DaemonSet and clean up on every node."""

from e2e.kube import Kube
from e2e.lab import Lab
from e2e.trial import until

_NAME, _NAMESPACE = "kube-proxy", "kube-system"


def remove_kube_proxy(lab: Lab, kube: Kube) -> None:
    """Delete the DaemonSet, wait until its pods are gone, remove its rules everywhere."""
    kube.delete("DaemonSet", _NAME, _NAMESPACE)
    until("kube-proxy's pods are gone", lambda: not kube.list("Pod", _NAMESPACE, "k8s-app=kube-proxy"), 60)
    for node in lab.nodes:
        path = f"PATH={node.directory / 'iptables'}:/usr/sbin:/usr/bin:/sbin:/bin"
        node.exec(["env", path, str(lab.binaries / "kube-proxy"), "--cleanup"])
