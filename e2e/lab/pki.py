"""Certificates and kubeconfigs of a lab: one authority, one leaf for each who speaks, made by openssl."""

import base64
from dataclasses import dataclass
from pathlib import Path

from e2e.lab.addressing import API_SERVICE4, API_SERVICE6, Addressing
from e2e.lab.command import run

CLIENT = "extendedKeyUsage=clientAuth"


@dataclass(frozen=True, slots=True)
class Leaf:
    """One certificate to be made: its file name, subject and extensions."""

    name: str
    subject: str
    extensions: str = CLIENT


def leaves(plan: Addressing) -> tuple[Leaf, ...]:
    """Every certificate that a lab needs."""
    names = (
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    )
    addresses = (API_SERVICE4, API_SERVICE6, "127.0.0.1", "::1", plan.api4, plan.api6)
    alternatives = ",".join([*(f"DNS:{n}" for n in names), *(f"IP:{a}" for a in addresses)])
    return (
        Leaf(
            "apiserver", "/CN=kube-apiserver", f"subjectAltName={alternatives}\nextendedKeyUsage=serverAuth"
        ),
        Leaf("kubelet-client", "/O=system:masters/CN=kube-apiserver-kubelet-client"),
        Leaf("admin", "/O=system:masters/CN=admin"),
        Leaf("controller-manager", "/CN=system:kube-controller-manager"),
        Leaf("scheduler", "/CN=system:kube-scheduler"),
        *(Leaf(f"kubelet-{n.name}", f"/O=system:nodes/CN=system:node:{n.name}") for n in plan.nodes),
    )


def kubeconfig(server: str, ca: bytes, certificate: bytes, key: bytes) -> str:
    """A kubeconfig that holds all it needs, so that it can be copied elsewhere."""
    ca64, certificate64, key64 = (base64.b64encode(b).decode() for b in (ca, certificate, key))
    return f"""\
apiVersion: v1
kind: Config
clusters:
- {{name: lab, cluster: {{server: "{server}", certificate-authority-data: {ca64}}}}}
users:
- {{name: lab, user: {{client-certificate-data: {certificate64}, client-key-data: {key64}}}}}
contexts:
- {{name: lab, context: {{cluster: lab, user: lab}}}}
current-context: lab
"""


def create(directory: Path, plan: Addressing) -> None:
    """Make all certificates, the service account key, and a kubeconfig for each who calls the API server."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    ca, ca_key = directory / "ca.crt", directory / "ca.key"
    authority = ["-keyout", str(ca_key), "-out", str(ca), "-days", "3650", "-subj", "/CN=handover-lab"]
    run(["openssl", "req", "-x509", *new_key, *authority])
    for leaf in leaves(plan):
        certificate, key = directory / f"{leaf.name}.crt", directory / f"{leaf.name}.key"
        asked = run(["openssl", "req", *new_key, "-keyout", str(key), "-subj", leaf.subject]).stdout
        extensions = directory / f"{leaf.name}.ext"
        extensions.write_text(leaf.extensions + "\n")
        signing = ["-CA", str(ca), "-CAkey", str(ca_key), "-CAcreateserial", "-days", "3650"]
        run(
            ["openssl", "x509", "-req", *signing, "-extfile", str(extensions), "-out", str(certificate)],
            stdin=asked,
        )
        text = kubeconfig(plan.api_url, ca.read_bytes(), certificate.read_bytes(), key.read_bytes())
        (directory / f"{leaf.name}.kubeconfig").write_text(text)
    run(["openssl", "genrsa", "-out", str(directory / "sa.key"), "2048"])
    run(["openssl", "rsa", "-in", str(directory / "sa.key"), "-pubout", "-out", str(directory / "sa.pub")])
