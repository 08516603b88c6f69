"""A real Kubernetes cluster on one machine, for tests and for trying things out. Needs root.

For tests (all of it blocks; every wait has a deadline; failures raise LabError or its subclass CommandError):

    lab = Lab("e2e", nodes=3, mode="iptables", backend="nft")   # nothing happens yet
    lab.up(preload_images=()) -> bool       # False: was up already. After Ctrl-C or an error nothing is left
    lab.down() -> bool                      # False: there was nothing
    Lab.attach("dev") -> Lab                # a handle on a lab that runs
    lab.name, lab.nodes: list[Node], lab.node("n1"): Node
    lab.kubeconfig: Path, lab.binaries: Path, lab.client_netns: str, lab.scratch.root: Path
    lab.environment() -> Mapping[str, str]  # what `handover-lab env` prints
    lab.kubectl("get", "pods", stdin=None, check=True, timeout_s=120) -> str        # stdout
    lab.kubectl_argv(*arguments) -> list[str]                                      # for Popen: watch, logs -f
    lab.get("daemonset", "kube-proxy", "-n", "kube-system") -> dict                 # parsed JSON
    lab.apply(yaml_text), lab.rollout("deployment/web", "default", timeout_s=120)
    lab.load([Path("image.tar")]) -> int    # on every node
    lab.install(overlay=...)                # build, load and roll out the operator and the agent
    lab.client_exec([...]) -> CompletedProcess[str], lab.client_popen([...])        # from outside
    lab.stop_apiserver(), lab.start_apiserver(wait=True), lab.wait_apiserver(), lab.apiserver_ready() -> bool
    lab.control.stop("kube-controller-manager"), .start(...), .running(...), .log(...) -> Path
    lab.ready_nodes() -> set[str], lab.problems() -> list[str]
    remains.of(name) -> Remains             # what there is of a lab, by kind; .anything, .lines()
    images.of_project(Progress()) -> list[Image]    # build operator and agent: for up(preload_images=...)

    node.name, node.ipv4, node.ipv6, node.netns: str, node.pid: int (its init on this machine)
    node.cgroup: Path                       # the root of its cgroup v2 subtree, on this machine
    node.root: Path                         # its file system from here: node.root / "sys/fs/bpf/handover"
    node.exec([...], stdin=None, check=True, timeout_s=120, env=None) -> CompletedProcess[str]
    node.popen([...], **popen_options) -> Popen     # killing it kills the command on the node
    node.argv([...]) -> list[str]
    node.stop_kubelet(), node.start_kubelet(), node.kubelet_running, node.log("containerd") -> Path

Images that every node has: images.BASE (`registry.local/base:1`: agnhost, python3, nft, iptables, conntrack,
ip, curl), images.KUBE_PROXY, images.COREDNS, images.PAUSE. Use `imagePullPolicy: IfNotPresent` (or Never):
there is no registry.
"""

from e2e.lab.cluster import Lab
from e2e.lab.errors import CommandError, LabError
from e2e.lab.node import Node

__all__ = ["CommandError", "Lab", "LabError", "Node"]
