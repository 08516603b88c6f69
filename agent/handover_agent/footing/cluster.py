"""What the API server says of this node's kube-proxy."""

from handover_api.nodemigration import KubeProxySelector

from handover_agent.apiserver import PODS, Client
from handover_agent.wish import DEFAULT_SELECTOR, pod_query


class ApiCluster:
    """`ports.Cluster`: kube-proxy's pods on this node, listed anew at each call."""

    def __init__(self, client: Client, node: str) -> None:
        self._client, self._node = client, node
        self.selector = KubeProxySelector(selector=DEFAULT_SELECTOR)

    def direct(self) -> bool:
        return self._client.direct

    async def kube_proxy_pods(self, *, fresh: bool = True) -> list[str]:
        """Those that have not ended. Not `fresh`: as the API server's cache has them, which may be somewhat behind, for
        who asks again and again.
        """
        pods = await self._client.list_objects(
            PODS,
            pod_query(self.selector, self._node),
            self.selector.namespace,
            resource_version="" if fresh else "0",
        )
        return [
            f"pod {pod['metadata']['namespace']}/{pod['metadata']['name']}"
            for pod in pods
            if (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed")
        ]
