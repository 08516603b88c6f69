"""Who the agent is to the API server: a mounted ServiceAccount in the cluster, a kubeconfig in tests and by
hand.

kubelet replaces the token about every hour and the CA may be replaced too, so files are looked at before each
request (a stat) and read again when they have changed.
"""

import base64
import binascii
import os
import ssl
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

from handover_agent.apierrors import CredentialsError

SERVER_NAME = "kubernetes.default.svc"
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class Address(NamedTuple):
    """Where an API server listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """The address of "host:port" or "[host]:port". Raises ValueError."""
        host, colon, port = text.rpartition(":")
        if not colon or not host:
            raise ValueError(f"not host:port: {text!r}")
        return cls(host.removeprefix("[").removesuffix("]"), int(port))


class FileText:
    """A file's text, read again whenever the file has changed."""

    def __init__(self, path: Path, what: str) -> None:
        self._path, self._what = path, what
        self._stamp: tuple[int, int, int] | None = None
        self._text = ""

    def read(self) -> str:
        """The text as it is now. Raises CredentialsError."""
        try:
            stat = self._path.stat()  # follows the symlink that kubelet swaps
            stamp = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
            if stamp != self._stamp:
                self._text = self._path.read_text(encoding="utf-8").strip()
                self._stamp = stamp
        except (OSError, UnicodeDecodeError) as error:
            raise CredentialsError(f"{self._what} {self._path} cannot be read: {error}") from error
        if not self._text:
            raise CredentialsError(f"{self._what} {self._path} is empty")
        return self._text

    def forget(self) -> None:
        """Have it read again next time, whatever its time stamp says."""
        self._stamp = None


class Credentials:
    """How to reach and to convince an API server."""

    def __init__(
        self,
        bootstrap: Address,
        *,
        scheme: str = "https",
        bootstrap_name: str = SERVER_NAME,
        server_name: str = SERVER_NAME,
        ca: FileText | str = "",
        token: FileText | str = "",
        client_certificate: tuple[str, str] | None = None,
    ) -> None:
        self.bootstrap, self.scheme = bootstrap, scheme
        self.bootstrap_name, self.server_name = bootstrap_name, server_name
        self._ca, self._token, self._client_certificate = ca, token, client_certificate
        self._context: tuple[str, ssl.SSLContext] | None = None

    def headers(self) -> dict[str, str]:
        """The Authorization header as of now. Raises CredentialsError."""
        token = self._token.read() if isinstance(self._token, FileText) else self._token
        return {"Authorization": f"Bearer {token}"} if token else {}

    def forget(self) -> None:
        """After an answer of 401: have the token read again."""
        if isinstance(self._token, FileText):
            self._token.forget()

    def tls(self) -> ssl.SSLContext | None:
        """The TLS context for the CA as it is now; None for plain HTTP. Raises CredentialsError."""
        if self.scheme != "https":
            return None
        ca = self._ca.read() if isinstance(self._ca, FileText) else self._ca
        if self._context is None or self._context[0] != ca:
            self._context = (ca, self._build(ca))
        return self._context[1]

    def _build(self, ca: str) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cadata=ca or None)
            if self._client_certificate is not None:
                _load_pair(context, *self._client_certificate)
        except (ssl.SSLError, OSError, ValueError) as error:
            raise CredentialsError(f"CA or client certificate is unusable: {error}") from error
        return context

    @classmethod
    def in_cluster(
        cls, directory: Path = SERVICE_ACCOUNT, environ: Mapping[str, str] = os.environ, url: str = ""
    ) -> Self:
        """The pod's ServiceAccount; `url` overrides where to bootstrap. Raises CredentialsError."""
        if url:
            bootstrap = _split_url(url, "the configured API server URL")[1]
        else:
            host, port = (
                environ.get("KUBERNETES_SERVICE_HOST", ""),
                environ.get("KUBERNETES_SERVICE_PORT", "443"),
            )
            if not host or not port.isdigit():
                raise CredentialsError(
                    "KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set: this is no pod",
                    "run in a pod, or name a kubeconfig",
                )
            bootstrap = Address(host, int(port))
        token = FileText(directory / "token", "ServiceAccount token")
        ca = FileText(directory / "ca.crt", "cluster CA")
        token.read()
        ca.read()
        return cls(bootstrap, ca=ca, token=token)

    @classmethod
    def kubeconfig(cls, path: Path, context: str = "") -> Self:
        """The user and cluster of a kubeconfig's current (or named) context. Raises CredentialsError."""
        document = _load_kubeconfig(path)
        name = context or document.get("current-context") or ""
        chosen = _named(document, "contexts", "context", name, path)
        cluster = _named(document, "clusters", "cluster", chosen.get("cluster", ""), path)
        user = _named(document, "users", "user", chosen.get("user", ""), path)
        for plugin in ("exec", "auth-provider"):
            if plugin in user:
                raise CredentialsError(
                    f"kubeconfig {path}: the user signs in by {plugin!r}, which the agent does not run",
                    "use a client certificate or a token",
                )
        if cluster.get("insecure-skip-tls-verify"):
            raise CredentialsError(
                f"kubeconfig {path}: insecure-skip-tls-verify is not supported",
                "give certificate-authority(-data)",
            )
        scheme, bootstrap = _split_url(cluster.get("server", ""), f"kubeconfig {path}: cluster.server")
        folder = path.parent
        certificate = _material(user, "client-certificate", folder)
        key = _material(user, "client-key", folder)
        token: FileText | str = user.get("token", "")
        if user.get("tokenFile"):
            token = FileText(folder / user["tokenFile"], "token")
        made = cls(
            bootstrap,
            scheme=scheme,
            bootstrap_name=cluster.get("tls-server-name") or bootstrap.host,
            ca=_material(cluster, "certificate-authority", folder),
            token=token,
            client_certificate=(certificate, key) if certificate and key else None,
        )
        made.tls()
        return made


def _split_url(url: str, what: str) -> tuple[str, Address]:
    try:
        parts = urlsplit(url)
        if parts.scheme not in ("https", "http") or not parts.hostname:
            raise ValueError("not an http(s) URL")
        return parts.scheme, Address(parts.hostname, parts.port or (443 if parts.scheme == "https" else 80))
    except ValueError as error:
        raise CredentialsError(f"{what} {url!r} is unusable: {error}", "give https://HOST:PORT") from error


def _load_kubeconfig(path: Path) -> dict[str, Any]:
    import yaml  # noqa: PLC0415 - a pod has no kubeconfig, and need not carry a YAML parser for it

    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise CredentialsError(f"kubeconfig {path} cannot be read: {error}") from error
    if not isinstance(document, dict):
        raise CredentialsError(f"kubeconfig {path} is not a kubeconfig: no mapping at its top")
    return document


def _named(document: dict[str, Any], group: str, kind: str, name: str, path: Path) -> dict[str, Any]:
    for item in document.get(group) or ():
        if isinstance(item, dict) and item.get("name") == name and isinstance(item.get(kind), dict):
            found: dict[str, Any] = item[kind]
            return found
    raise CredentialsError(f"kubeconfig {path} has no {kind} named {name!r}")


def _material(section: dict[str, Any], key: str, folder: Path) -> str:
    """PEM text that is inline in base64 or in a file beside the kubeconfig; empty when there is none."""
    try:
        if section.get(f"{key}-data"):
            return base64.b64decode(section[f"{key}-data"], validate=True).decode("ascii")
        if section.get(key):
            return Path(folder, section[key]).read_text(encoding="ascii")
    except (OSError, binascii.Error, UnicodeDecodeError) as error:
        raise CredentialsError(f"kubeconfig: {key} cannot be read: {error}") from error
    return ""


def _load_pair(context: ssl.SSLContext, certificate: str, key: str) -> None:
    """OpenSSL takes a client's key from files only; ours lives in a private directory for that moment."""
    with tempfile.TemporaryDirectory(prefix="handover-") as folder:
        pair = Path(folder, "client.pem")
        pair.touch(mode=0o600)
        pair.write_text(f"{certificate}\n{key}\n", encoding="ascii")
        context.load_cert_chain(pair)
