"""The little of the Kubernetes API that the demo and the tests need, spoken from the lab's fabric.

Waiting means asking many times a minute, and a kubectl for each question costs more than what is measured
here.
"""

import contextlib
import http.client
import json
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from e2e.netns import Inside

Object = dict[str, Any]

_JSON = "application/json"
_APPLY = "application/apply-patch+yaml"
_MERGE = "application/merge-patch+json"
_STRATEGIC = "application/strategic-merge-patch+json"
_TIMEOUT_S = 30.0
_PORT = 6443

# kind → where it is found: the API's path, the plural, and whether it belongs to a namespace.
_KINDS = {
    "Namespace": ("api/v1", "namespaces", False),
    "Node": ("api/v1", "nodes", False),
    "Pod": ("api/v1", "pods", True),
    "Service": ("api/v1", "services", True),
    "ConfigMap": ("api/v1", "configmaps", True),
    "Event": ("api/v1", "events", True),
    "Deployment": ("apis/apps/v1", "deployments", True),
    "DaemonSet": ("apis/apps/v1", "daemonsets", True),
    "EndpointSlice": ("apis/discovery.k8s.io/v1", "endpointslices", True),
    "IPAddress": ("apis/networking.k8s.io/v1", "ipaddresses", False),
    "ProxyMigration": ("apis/handover.dev/v1alpha1", "proxymigrations", False),
    "NodeMigration": ("apis/handover.dev/v1alpha1", "nodemigrations", False),
}


class KubeError(Exception):
    """The API server did not answer, or refused: says what was asked, and the server's own message."""

    def __init__(self, asked: str, status: int, message: str) -> None:
        super().__init__(f"{asked}: {f'{status} ' if status else ''}{message}")
        self.status, self.message = status, message


def path(kind: str, name: str = "", namespace: str = "") -> str:
    """Where an object is, or all of a kind (of one namespace)."""
    base, plural, namespaced = _KINDS[kind]
    where = f"/namespaces/{quote(namespace)}" if namespaced and namespace else ""
    return f"/{base}{where}/{plural}" + (f"/{quote(name)}" if name else "")


def path_of(item: Mapping[str, Any]) -> str:
    """Where an object belongs by its own words."""
    metadata = item["metadata"]
    return path(item["kind"], metadata["name"], metadata.get("namespace", ""))


class Kube:
    """A client of one API server, with the lab's administrator's certificate."""

    def __init__(self, fabric: Inside, address: str, pki: Path) -> None:
        self._fabric, self._address = fabric, address
        self._tls = ssl.create_default_context(cafile=str(pki / "ca.crt"))
        self._tls.load_cert_chain(pki / "admin.crt", pki / "admin.key")

    def get(self, kind: str, name: str, namespace: str = "") -> Object:
        """An object. Raises KubeError."""
        return self._json("GET", path(kind, name, namespace))

    def find(self, kind: str, name: str, namespace: str = "") -> Object | None:
        """An object, or None when there is none."""
        try:
            return self.get(kind, name, namespace)
        except KubeError as error:
            if error.status == 404:
                return None
            raise

    def list(self, kind: str, namespace: str = "", labels: str = "") -> list[Object]:
        """All objects of a kind, in one namespace or in all, of those labels."""
        query = f"?labelSelector={quote(labels)}" if labels else ""
        items: list[Object] = self._json("GET", path(kind, namespace=namespace) + query)["items"]
        return items

    def apply(self, *items: Mapping[str, Any], manager: str = "e2e") -> None:
        """Server-side apply. Raises KubeError, also for what admission refuses."""
        for item in items:
            self._json("PATCH", f"{path_of(item)}?fieldManager={manager}&force=true", item, _APPLY)

    def apply_status(self, item: Mapping[str, Any], manager: str) -> None:
        """Server-side apply of an object's status. Raises KubeError."""
        address = f"{path_of(item)}/status?fieldManager={manager}&force=true"
        self._json("PATCH", address, item, _APPLY)

    def create(self, item: Mapping[str, Any]) -> Object:
        """Create an object. Raises KubeError."""
        return self._json("POST", f"{path_of(item).rpartition('/')[0]}?fieldManager=e2e", item)

    def patch(self, kind: str, name: str, patch: Mapping[str, Any], namespace: str = "") -> Object:
        """Change an object by a merge patch. Raises KubeError."""
        return self._json("PATCH", path(kind, name, namespace), patch, _MERGE)

    def patch_status(self, kind: str, name: str, patch: Mapping[str, Any], namespace: str = "") -> Object:
        """Change an object's status by a strategic merge patch. Raises KubeError."""
        return self._json("PATCH", f"{path(kind, name, namespace)}/status", patch, _STRATEGIC)

    def delete(self, kind: str, name: str, namespace: str = "", *, grace_s: int | None = None) -> None:
        """Begin to delete an object; nothing happens when there is none."""
        body = {} if grace_s is None else {"gracePeriodSeconds": grace_s}
        try:
            self._json("DELETE", path(kind, name, namespace), body)
        except KubeError as error:
            if error.status != 404:
                raise

    def evict(self, pod: str, namespace: str) -> None:
        """Evict a pod, as a drain does. Raises KubeError, also when a disruption budget forbids it."""
        metadata = {"name": pod, "namespace": namespace}
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": metadata}
        self._json("POST", f"{path('Pod', pod, namespace)}/eviction", eviction)

    def log(self, pod: str, namespace: str, *, previous: bool = False, lines: int = 2000) -> str:
        """The end of what a pod's only container printed."""
        query = f"?tailLines={lines}" + ("&previous=true" if previous else "")
        return self._fabric.call(self._request, "GET", path("Pod", pod, namespace) + f"/log{query}").decode()

    def raw(self, address: str) -> str:
        """Any path, as text."""
        return self._fabric.call(self._request, "GET", address).decode()

    def _json(self, method: str, address: str, body: object = None, content: str = _JSON) -> Object:
        answer: Object = json.loads(self._fabric.call(self._request, method, address, body, content))
        return answer

    @contextlib.contextmanager
    def line(self) -> Iterator["Line"]:
        """A connection that is kept, for who has very much to say."""
        line = Line(self._fabric.call(self._connect))
        try:
            yield line
        finally:
            line.close()

    def _connect(self) -> http.client.HTTPSConnection:
        """Runs in the fabric's namespace: what comes later of the connection may happen anywhere."""
        connection = self._connection()
        try:
            connection.connect()
        except OSError as error:
            raise KubeError("connect", 0, f"{type(error).__name__}: {error}") from error
        return connection

    def _connection(self) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(self._address, _PORT, timeout=_TIMEOUT_S, context=self._tls)

    def _request(self, method: str, address: str, body: object = None, content: str = _JSON) -> bytes:
        """Runs in the fabric's namespace."""
        connection = self._connection()
        try:
            return _exchange(connection, method, address, body, content)
        finally:
            connection.close()


class Line:
    """A connection to the API server that is kept."""

    def __init__(self, connection: http.client.HTTPSConnection) -> None:
        self._connection = connection

    def patch(self, kind: str, name: str, patch: Mapping[str, Any], namespace: str = "") -> None:
        """Change an object by a merge patch. Raises KubeError; after that, another line is needed."""
        _exchange(self._connection, "PATCH", path(kind, name, namespace), patch, _MERGE)

    def close(self) -> None:
        """Hang up."""
        self._connection.close()


def _exchange(
    connection: http.client.HTTPSConnection, method: str, address: str, body: object, content: str
) -> bytes:
    asked = f"{method} {address}"
    payload = None if body is None else json.dumps(body)
    try:
        connection.request(method, address, payload, {"Content-Type": content, "Accept": _JSON})
        response = connection.getresponse()
        data = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise KubeError(asked, 0, f"{type(error).__name__}: {error}") from error
    if response.status >= 300:
        raise KubeError(asked, response.status, _message(data))
    return data


def _message(data: bytes) -> str:
    with contextlib.suppress(ValueError, AttributeError):
        return str(json.loads(data).get("message"))
    return data.decode(errors="replace")[:500]
