"""The control plane: etcd, API server, controller manager and scheduler as processes in a namespace of
their own.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from e2e.lab.addressing import PODS4, PODS6, SERVICES4, SERVICES6, Addressing
from e2e.lab.cgroup import Subtree
from e2e.lab.errors import LabError
from e2e.lab.fabric import inside
from e2e.lab.paths import Scratch
from e2e.lab.processes import Daemon, start

ETCD, APISERVER, CONTROLLERS, SCHEDULER = (
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
)
COMPONENTS = (ETCD, APISERVER, CONTROLLERS, SCHEDULER)
ETCD_AT = "127.0.0.1:2379"
"""In the control plane's namespace; etcd's own default."""


def arguments(plan: Addressing, scratch: Scratch) -> Mapping[str, list[str]]:
    """Each component's command line arguments."""
    pki = scratch.pki
    services = f"--service-cluster-ip-range={SERVICES4},{SERVICES6}"
    return {
        ETCD: [
            f"--data-dir={scratch.control / 'etcd'}",
            "--unsafe-no-fsync",  # a lab does not outlive its machine
            "--log-level=warn",
        ],
        APISERVER: [
            f"--etcd-servers=http://{ETCD_AT}",
            f"--advertise-address={plan.api4}",
            "--secure-port=6443",
            services,
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            f"--service-account-key-file={pki / 'sa.pub'}",
            f"--service-account-signing-key-file={pki / 'sa.key'}",
            f"--client-ca-file={pki / 'ca.crt'}",
            f"--tls-cert-file={pki / 'apiserver.crt'}",
            f"--tls-private-key-file={pki / 'apiserver.key'}",
            f"--kubelet-client-certificate={pki / 'kubelet-client.crt'}",
            f"--kubelet-client-key={pki / 'kubelet-client.key'}",
            "--kubelet-preferred-address-types=InternalIP",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged=true",
        ],
        CONTROLLERS: [
            f"--kubeconfig={pki / 'controller-manager.kubeconfig'}",
            f"--service-account-private-key-file={pki / 'sa.key'}",
            f"--root-ca-file={pki / 'ca.crt'}",
            "--use-service-account-credentials=true",
            "--allocate-node-cidrs=false",  # the nodes' pod ranges are the fabric's routes
            f"--cluster-cidr={PODS4},{PODS6}",
            services,
            "--leader-elect=false",
            "--node-monitor-grace-period=20s",
            "--authentication-skip-lookup=true",
        ],
        SCHEDULER: [
            f"--kubeconfig={pki / 'scheduler.kubeconfig'}",
            "--leader-elect=false",
            "--authentication-skip-lookup=true",
        ],
    }


@dataclass(frozen=True, slots=True)
class ControlPlane:
    """Starts, stops and looks at the four processes."""

    plan: Addressing
    scratch: Scratch
    subtree: Subtree
    binaries: Path

    def log(self, component: str) -> Path:
        """The component's log file."""
        return self.scratch.control / f"{component}.log"

    def start(self, component: str) -> None:
        """Start one component unless it runs."""
        if self.running(component):
            return
        argv = [str(self.binaries / component), *arguments(self.plan, self.scratch)[component]]
        daemon = start(
            self.subtree.joining([*inside(self.plan.control_netns), *argv]),
            log=self.log(component),
        )
        daemon.save(self._remembered(component))

    def stop(self, component: str) -> None:
        """Stop one component, at once: a control plane that vanishes says no farewell."""
        if daemon := Daemon.load(self._remembered(component)):
            daemon.stop(force=True)

    def running(self, component: str) -> bool:
        """Whether the component's process runs."""
        if component not in COMPONENTS:
            raise LabError(
                f"{component} is no component of the control plane", f"one of {', '.join(COMPONENTS)}"
            )
        daemon = Daemon.load(self._remembered(component))
        return daemon is not None and daemon.alive

    def create(self) -> None:
        """Start all of them; they wait for each other by themselves."""
        self.subtree.create()
        self.scratch.control.mkdir(parents=True, exist_ok=True)
        for component in COMPONENTS:
            self.start(component)

    def _remembered(self, component: str) -> Path:
        return self.scratch.control / f"{component}.json"
