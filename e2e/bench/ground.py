"""The lab that everything is measured on: one node for each way, one for the servers, and nobody else at work.

Once its pods run, what a benchmark does not need is stopped: kubelets, controllers and CoreDNS would all follow every
change of every Service, on the same cores as what is measured.
"""

import hashlib
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from e2e import naive, process
from e2e.bench import crowd, planting
from e2e.bench.asking import BenchError, Client
from e2e.bench.bulk import Bulk, api_server, etcd
from e2e.bench.proxies import bare
from e2e.bench.results import CONNTRACK, IPTABLES, NFTABLES, NONE, OURS, PACKET
from e2e.kube import Kube, Object, path
from e2e.lab import Lab, Node
from e2e.lab.addressing import PODS4
from e2e.lab.control import COMPONENTS, CONTROLLERS, SCHEDULER
from e2e.lab.images import BASE
from e2e.lab.paths import CHECKOUT
from e2e.lab.settings import Settings
from e2e.netns import Inside
from e2e.trial import until

NAMESPACE = "bench"
OUTSIDE = "outside"
SERVERS = "n1"
NODES = {NONE: "n2", CONNTRACK: "n3", IPTABLES: "n4", NFTABLES: "n5", OURS: "n6"}
STREAMS, DATAGRAMS, NODE_PORT = 8081, 8082, 30080
DATA_IP, OUTSIDE_IP, PROBE_IP = "10.96.60.1", "10.96.60.2", "10.96.60.3"
_PROGRAMS = Path(__file__).with_name("inside")
_CLIENT_PORT, _BESIDE_PORT = 18090, 18091
_CHUNK = 15_000
_DIGEST = "handover.dev/program"
_TRACKING = (
    "table ip bench { chain out { type nat hook postrouting priority srcnat; "
    f"ip saddr {PODS4} ip daddr != {PODS4} masquerade; }}; }}"
)
"""What nearly every network plugin has on each node, and what makes the kernel track connections: a chain without a rule
that needs it does not."""


@dataclass(slots=True)
class Ground:
    """The handles on the lab while it is measured. `open` first, `close` at the end."""

    lab: Lab
    fabric: Inside
    kube: Kube
    bulk: Bulk
    servers: list[str] = field(default_factory=list)
    clients: dict[str, Client] = field(default_factory=dict)
    _beside: list[subprocess.Popen[bytes]] = field(default_factory=list)
    configuration: str = ""

    @classmethod
    def open(cls, lab: Lab) -> "Ground":
        """Bring the lab up unless it is, and make it ready. Raises LabError, TrialError, KubeError, BenchError."""
        _wake(lab)
        lab.up()
        fabric = Inside(lab.plan.fabric_netns, threads=16)
        kube = Kube(fabric, lab.plan.api4, lab.scratch.pki)
        ground = cls(lab, fabric, kube, Bulk(fabric, api_server(lab.plan.api4, lab.scratch.pki)))
        try:
            ground._furnish()
        except BaseException:
            ground.close()
            raise
        return ground

    def close(self) -> None:
        """Let go of the lab, which stays."""
        for started in self._beside:
            started.kill()
            started.wait()
        self.fabric.close()

    def node(self, way: str) -> Node:
        """The node of a way."""
        return self.lab.node(NODES[way])

    def grow(self, services: int) -> float:
        """Create what the crowd lacks; returns how long that took. Raises KubeError."""
        began = time.monotonic()
        members, slices = (
            path("Service", namespace=crowd.NAMESPACE),
            path("EndpointSlice", namespace=crowd.NAMESPACE),
        )
        there = self.bulk.names(members) & self.bulk.names(slices)
        if len(there) > services:
            raise BenchError(
                f"the lab has {len(there)} Services, and {services} are to be measured: "
                f"handover-lab --name {self.lab.name} down, and sizes in ascending order"
            )
        missing = [index for index in range(services) if crowd.name(index) not in there]
        if not missing:
            return 0.0
        say = self.lab.progress.say
        say(f"creating {len(missing)} Services with {crowd.ENDPOINTS} endpoints each")
        self.kube.apply(crowd.endpoints(0, self.servers, SERVERS), crowd.member(0))
        seed = planting.Seed(
            self.kube.get("Service", crowd.name(0), crowd.NAMESPACE),
            self.kube.get("EndpointSlice", crowd.name(0), crowd.NAMESPACE),
            self.kube.get("IPAddress", crowd.cluster_ip(0)),
        )

        def done(count: int) -> None:
            if count % _CHUNK == 0:
                say(f"{count // planting.WRITES} of {len(missing)} Services")

        with Inside(self.lab.plan.control_netns) as control:
            writes = planting.writes(seed, (index for index in missing if index))
            Bulk(control, etcd).write(writes, done)
        return time.monotonic() - began

    def probe(self, endpoints: int) -> Object:
        """The EndpointSlice of the Service whose changes are timed."""
        ports = [{"name": "", "port": crowd.BACKEND_PORT, "protocol": "TCP"}]
        return crowd.slice_of("probe", NAMESPACE, ports, self.servers[:endpoints], SERVERS)

    def _furnish(self) -> None:
        lab, kube = self.lab, self.kube
        self.configuration = kube.get("ConfigMap", "kube-proxy", "kube-system")["data"]["config.conf"]
        lab.progress.say("making the lab quiet: no kube-proxy of its own, no CoreDNS")
        kube.patch("Deployment", "coredns", {"spec": {"replicas": 0}}, "kube-system")
        if kube.find("DaemonSet", "kube-proxy", "kube-system"):
            naive.remove_kube_proxy(lab, kube)
        lab.kubectl("apply", "--server-side", "-k", str(CHECKOUT / "crds"))
        for namespace in (NAMESPACE, crowd.NAMESPACE):
            kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        self._start_pods()
        self._make_services()
        until("CoreDNS is gone", lambda: not kube.list("Pod", "kube-system", "k8s-app=kube-dns"), 90)
        for component in (CONTROLLERS, SCHEDULER):
            lab.control.stop(component)
        for node in lab.nodes:
            node.stop_kubelet()
            if node.name != NODES[OURS]:  # which is cleaned by its own tool
                bare(node)
        self.node(CONNTRACK).exec(["nft", "-f", "-"], stdin=_TRACKING)
        self._start_beside()
        for client in self.clients.values():
            client.wait()

    def _start_pods(self) -> None:
        lab, kube = self.lab, self.kube
        texts = {name: (_PROGRAMS / name).read_text() for name in ("client.py", "server.py")}
        metadata = {"name": "programs", "namespace": NAMESPACE}
        kube.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": texts})
        ports = [str(port) for port in (crowd.BACKEND_PORT, STREAMS, DATAGRAMS)]
        wanted = {f"server-{i}": (SERVERS, "server.py", ports) for i in range(crowd.ENDPOINTS)} | {
            f"client-{way}": (node, "client.py", [str(_CLIENT_PORT)]) for way, node in NODES.items()
        }
        for name, (node, program, arguments) in wanted.items():
            digest = hashlib.sha256(texts[program].encode()).hexdigest()[:16]
            found = kube.find("Pod", name, NAMESPACE)
            if found and found["metadata"].get("annotations", {}).get(_DIGEST) == digest:
                continue
            if found and name.startswith("server"):
                raise BenchError(
                    f"the lab's {name} runs another version of {program}, and the crowd has its address: "
                    f"handover-lab --name {lab.name} down"
                )
            if found:
                kube.delete("Pod", name, NAMESPACE, grace_s=0)
                until(f"the old {name} is gone", lambda name=name: not kube.find("Pod", name, NAMESPACE), 60)  # type: ignore[misc]
            kube.apply(_pod(name, node, program, arguments, digest))
        names = [f"pod/{name}" for name in wanted]
        lab.kubectl("wait", "-n", NAMESPACE, "--for=condition=Ready", *names, "--timeout=120s", timeout_s=130)
        addresses = {name: str(kube.get("Pod", name, NAMESPACE)["status"]["podIP"]) for name in wanted}
        self.servers = [addresses[f"server-{i}"] for i in range(crowd.ENDPOINTS)]
        self.clients = {
            way: Client(f"client {way}", addresses[f"client-{way}"], _CLIENT_PORT, self.fabric)
            for way in NODES
        }

    def _make_services(self) -> None:
        data = [
            {"name": "streams", "port": STREAMS, "protocol": "TCP"},
            {"name": "datagrams", "port": DATAGRAMS, "protocol": "UDP"},
        ]
        plain = {"port": crowd.PORT, "protocol": "TCP", "targetPort": crowd.BACKEND_PORT}
        backend = [{"name": "", "port": crowd.BACKEND_PORT, "protocol": "TCP"}]
        self.kube.apply(
            crowd.slice_of("data", NAMESPACE, data, self.servers[:1], SERVERS),
            crowd.service("data", NAMESPACE, DATA_IP, data),
            crowd.slice_of("outside", NAMESPACE, backend, self.servers, SERVERS),
            crowd.service("outside", NAMESPACE, OUTSIDE_IP, [{**plain, "nodePort": NODE_PORT}], "NodePort"),
            self.probe(0),
            crowd.service("probe", NAMESPACE, PROBE_IP, [plain]),
        )

    def _start_beside(self) -> None:
        """Clients that are no pods: one outside of the cluster, one in a pod's network past our socket path."""
        pod = self.kube.get("Pod", f"client-{OURS}", NAMESPACE)
        pid = next(iter(process.pids(self.lab, pod)), 0)
        if not pid:
            raise BenchError(f"the pod client-{OURS} has no process on {NODES[OURS]}")
        program = str(_PROGRAMS / "client.py")
        # They end with us, however that comes: the next run brings its own.
        command = [
            "setpriv",
            "--pdeathsig",
            "KILL",
            "--",
            "/usr/bin/python3",
            "-I",
            program,
            str(_BESIDE_PORT),
        ]
        beside = self.lab.subtree.part("client").joining(["nsenter", "-t", str(pid), "-n", "--", *command])
        self._beside = [self.lab.client_popen(command), subprocess.Popen(beside)]
        self.clients[OUTSIDE] = Client("client outside", self.lab.plan.client4, _BESIDE_PORT, self.fabric)
        self.clients[PACKET] = Client("client packet", str(pod["status"]["podIP"]), _BESIDE_PORT, self.fabric)


def _wake(lab: Lab) -> None:
    """A lab that an earlier run has left is as quiet as `_furnish` made it."""
    if Settings.load(lab.scratch.state) != lab.settings or not all(node.running for node in lab.nodes):
        return
    for node in lab.nodes:
        node.start_kubelet()
    for component in COMPONENTS:
        lab.control.start(component)


def _pod(name: str, node: str, program: str, arguments: list[str], digest: str) -> Object:
    container = {
        "name": "program",
        "image": BASE,
        "imagePullPolicy": "IfNotPresent",
        "command": ["/usr/bin/python3", "-I", f"/programs/{program}", *arguments],
        "volumeMounts": [{"name": "programs", "mountPath": "/programs"}],
    }
    spec = {
        "nodeName": node,
        "containers": [container],
        "volumes": [{"name": "programs", "configMap": {"name": "programs"}}],
        "terminationGracePeriodSeconds": 0,
        "enableServiceLinks": False,
        "tolerations": [{"operator": "Exists"}],
    }
    metadata = {"name": name, "namespace": NAMESPACE, "annotations": {_DIGEST: digest}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
