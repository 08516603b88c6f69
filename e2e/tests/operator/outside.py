"""The operator as a process outside of the cluster: quick to start, to kill, and to look at.

It has the service account of the manifests and nothing more, so that a right that is missing there fails here.
"""

import json
import signal
import subprocess
import sys
from pathlib import Path

from e2e.lab import Lab
from e2e.lab.paths import CHECKOUT

ACCOUNT = "handover-operator"
NAMESPACE = "handover-system"
RIGHTS = CHECKOUT / "manifests/base/operator-rbac.yaml"
_END_S = 30.0


class OutsideOperator:
    """The operator's process; it may be killed at any time and started again."""

    def __init__(self, lab: Lab, directory: Path) -> None:
        self._lab = lab
        self._log = directory / "operator.log"
        self._kubeconfig = directory / "kubeconfig"
        self._process: subprocess.Popen[bytes] | None = None

    def grant(self) -> None:
        """Apply the rights of the manifests, and have them ready for `start`."""
        lab = self._lab
        lab.kubectl(
            "apply", "--server-side", "-f", str(RIGHTS.with_name("namespace.yaml")), "-f", str(RIGHTS)
        )
        token = lab.kubectl("create", "token", ACCOUNT, f"--namespace={NAMESPACE}", "--duration=8h").strip()
        cluster = {
            "server": f"https://{lab.plan.api4}:6443",
            "certificate-authority": str(lab.scratch.pki / "ca.crt"),
        }
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "lab", "cluster": cluster}],
            "users": [{"name": ACCOUNT, "user": {"token": token}}],
            "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": ACCOUNT}}],
            "current-context": "lab",
        }
        self._kubeconfig.write_text(json.dumps(config))

    def start(self) -> None:
        """Start it, in the network of the lab's outside client."""
        command = [sys.executable, "-P", "-m", "handover_operator", f"--kubeconfig={self._kubeconfig}"]
        with self._log.open("ab") as log:
            self._process = self._lab.client_popen(command, stdout=log, stderr=log)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Stop it and wait; returns its exit code, 0 when it did not run."""
        if self._process is None:
            return 0
        self._process.send_signal(how)
        code = self._process.wait(timeout=_END_S)
        self._process = None
        return code

    def said(self) -> str:
        """Its log so far."""
        return self._log.read_text() if self._log.exists() else ""
