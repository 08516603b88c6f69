"""Who we are and where the API server is: from a pod's service account, or from a kubeconfig.

A wrong kubeconfig is the first thing that a new user meets, so everything that can be wrong with it is said
here, with the file's name and what to do, before anything else starts.
"""

import os
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kopf import ConnectionInfo

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class AccessError(Exception):
    """There is no usable way to an API server: says which file was read and what to do."""


@dataclass(frozen=True, slots=True)
class Access:
    """One way to one API server. The token is asked for anew each time, because tokens are rotated."""

    server: str
    source: str  # where it was found, for people
    cluster_ip: tuple[str, int] | None = None  # in a pod: where `server` is
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    insecure: bool = False
    authorization: Callable[[], str | None] = field(default=lambda: None, repr=False)

    def headers(self) -> dict[str, str]:
        """What every request carries."""
        value = self.authorization()
        return {"Authorization": value} if value else {}

    def tls(self) -> ssl.SSLContext:
        """The TLS context of every connection. Raises AccessError when a certificate cannot be used."""
        context = ssl.create_default_context(cafile=str(self.ca) if self.ca else None)
        if self.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.certificate is not None:
            try:
                context.load_cert_chain(self.certificate, self.key)
            except OSError as error:
                raise AccessError(
                    f"{self.source}: the client certificate cannot be used: {error}. Make a new kubeconfig."
                ) from error
        return context

    def for_kopf(self) -> ConnectionInfo:
        """The same for kopf's own connections."""
        scheme, _, token = (self.authorization() or "").partition(" ")
        return ConnectionInfo(
            server=self.server,
            ca_path=str(self.ca) if self.ca else None,
            insecure=self.insecure or None,
            certificate_path=str(self.certificate) if self.certificate else None,
            private_key_path=str(self.key) if self.key else None,
            scheme=scheme or None,
            token=token or None,
        )


def find(
    kubeconfig: str | None,
    context: str | None = None,
    environment: Mapping[str, str] = os.environ,
    service_account: Path = SERVICE_ACCOUNT,
) -> Access:
    """The access to use: the named kubeconfig, else the pod's service account, else $KUBECONFIG or its default.

    Raises AccessError that names the file and what to do.
    """
    if kubeconfig is None and environment.get("KUBERNETES_SERVICE_HOST") and service_account.exists():
        return _in_cluster(environment, service_account)
    chosen = kubeconfig or environment.get("KUBECONFIG") or str(Path.home() / ".kube/config")
    return _from_kubeconfig(Path(chosen).expanduser(), context)


def _in_cluster(environment: Mapping[str, str], directory: Path) -> Access:
    host, port = environment["KUBERNETES_SERVICE_HOST"], environment.get("KUBERNETES_SERVICE_PORT", "443")
    token = directory / "token"

    def authorization() -> str:
        try:
            return f"Bearer {token.read_text().strip()}"
        except OSError as error:
            raise AccessError(
                f"the service account's token {token} cannot be read: {error.strerror}. "
                "Run the pod with a service account, and let its token be mounted."
            ) from error

    authorization()
    try:
        cluster_ip = (host, int(port))
    except ValueError:
        raise AccessError(f"$KUBERNETES_SERVICE_PORT is {port!r}, which is no port") from None
    return Access(
        server=f"https://{f'[{host}]' if ':' in host else host}:{port}",
        source=str(directory),
        cluster_ip=cluster_ip,
        ca=directory / "ca.crt",
        authorization=authorization,
    )


def _from_kubeconfig(path: Path, context: str | None) -> Access:
    advice = (
        "Name a good one with --kubeconfig or $KUBECONFIG; `kubectl config view` shows what kubectl uses."
    )
    try:
        text = path.read_text(errors="replace")
    except OSError as error:
        raise AccessError(f"the kubeconfig {path} cannot be read: {error.strerror}. {advice}") from error

    # Imported only here: in a cluster nothing of it is needed, and it costs more memory than all the rest.
    import yaml  # noqa: PLC0415
    from kubernetes import client, config  # noqa: PLC0415

    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        where = " ".join(str(error).split())
        raise AccessError(f"the kubeconfig {path} is no valid YAML: {where}. {advice}") from error
    if not isinstance(content, dict) or not content.get("clusters"):
        raise AccessError(f"the kubeconfig {path} names no cluster. {advice}")

    made: Any = client.Configuration()
    try:
        config.load_kube_config(str(path), context=context, client_configuration=made)
    except (config.ConfigException, ValueError, TypeError, KeyError, OSError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise AccessError(f"the kubeconfig {path} cannot be used: {first}. {advice}") from error

    def authorization() -> str | None:
        # Refreshed by the library when it is a token that runs out.
        value: str | None = made.auth_settings().get("BearerToken", {}).get("value")
        return value

    return Access(
        server=str(made.host).rstrip("/"),
        source=str(path),
        ca=Path(made.ssl_ca_cert) if made.ssl_ca_cert else None,
        certificate=Path(made.cert_file) if made.cert_file else None,
        key=Path(made.key_file) if made.key_file else None,
        insecure=not made.verify_ssl,
        authorization=authorization,
    )
