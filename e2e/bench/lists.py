"""An API server that has nothing but many Services with 4 endpoints each, for measuring what an agent makes of them.

Lists are rendered before anybody asks, so that what is measured is the agent. Through its watch of EndpointSlices it
tells as many changes per second as it is asked for, each of which gives a Service an address that nobody had before;
when each was sent is written to a file, on the clock that all processes of the machine share.

    python -m e2e.bench.lists --services 10000 --sent FILE      prints its port, then obeys lines "RATE SECONDS"
"""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aiohttp import web

ENDPOINTS = 4
_PAGE = 500
_NODES, _ZONES = 50, 3
_MANAGED = [
    {
        "manager": "kubectl-client-side-apply",
        "operation": "Update",
        "apiVersion": "v1",
        "time": "2026-01-01T00:00:00Z",
        "fieldsType": "FieldsV1",
        "fieldsV1": {
            "f:metadata": {
                "f:annotations": {".": {}, "f:kubectl.kubernetes.io/last-applied-configuration": {}}
            },
            "f:spec": {"f:internalTrafficPolicy": {}, "f:ports": {".": {}}, "f:selector": {}, "f:type": {}},
        },
    }
]


def cluster_ip(index: int) -> str:
    """Of a Service."""
    return f"10.{96 + (index >> 16)}.{index >> 8 & 255}.{index & 255}"


def fresh_address(change: int) -> str:
    """The address that a change brings: unlike every address that was there before."""
    return f"172.{16 + (change >> 16)}.{change >> 8 & 255}.{change & 255}"


def service(index: int) -> dict[str, Any]:
    """As `kubectl apply` makes one."""
    name, ip = f"service-{index:05}", cluster_ip(index)
    return {
        "metadata": _meta(name, index, {"app": name}),
        "spec": {
            "clusterIP": ip,
            "clusterIPs": [ip],
            "internalTrafficPolicy": "Cluster",
            "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack",
            "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080}],
            "selector": {"app": name},
            "sessionAffinity": "None",
            "type": "ClusterIP",
        },
        "status": {"loadBalancer": {}},
    }


def slice_of(index: int, changed: str = "") -> dict[str, Any]:
    """The EndpointSlice of a Service; `changed` replaces one of its addresses."""
    name = f"service-{index:05}"
    labels = {
        "kubernetes.io/service-name": name,
        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller",
    }
    first = index * ENDPOINTS
    addresses = [f"10.{128 + (n >> 16)}.{n >> 8 & 255}.{n & 255}" for n in range(first, first + ENDPOINTS)]
    if changed:
        addresses[0] = changed
    return {
        "metadata": {**_meta(f"{name}-x7k2p", index, labels), "generateName": f"{name}-"},
        "addressType": "IPv4",
        "endpoints": [
            {
                "addresses": [address],
                "conditions": {"ready": True, "serving": True, "terminating": False},
                "nodeName": f"node-{n % _NODES}",
                "zone": f"zone-{n % _ZONES}",
                "targetRef": {
                    "kind": "Pod",
                    "name": f"{name}-6d4cf56db6-{n:05}",
                    "namespace": "bench",
                    "uid": "6c1b7c5e-6c79-4d8a-9a39-1d4cf9f0d1b2",
                },
            }
            for n, address in enumerate(addresses)
        ],
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    }


def _meta(name: str, index: int, labels: dict[str, str]) -> dict[str, Any]:
    return {
        "name": name,
        "namespace": "bench",
        "uid": f"00000000-0000-4000-8000-{index:012}",
        "resourceVersion": "1",
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "labels": labels,
        "managedFields": _MANAGED,
    }


class Lists:
    """The pages and the watches."""

    def __init__(self, services: int, sent: Path) -> None:
        self.services, self._sent = services, sent.open("a", encoding="utf-8")
        self.port = 0
        self._pages = {
            "services": _rendered(service(index) for index in range(services)),
            "endpointslices": _rendered(slice_of(index) for index in range(services)),
        }
        self._watches: list[web.StreamResponse] = []
        self._changes = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Lists, watches, and the API servers' own endpoints."""
        kind = request.path.rpartition("/")[2]
        if "watch" in request.query:
            return await self._watch(request, kind)
        if "namespaces/default" in request.path:
            return web.json_response({"metadata": {"resourceVersion": "1"}, "items": [self._own()]})
        pages = self._pages.get(kind, [[]])
        number = int(request.query.get("continue") or 0)
        follow = str(number + 1) if number + 1 < len(pages) else ""
        meta = json.dumps({"resourceVersion": "1", "continue": follow}).encode()
        body = b'{"kind":"List","metadata":' + meta + b',"items":[' + b",".join(pages[number]) + b"]}"
        return web.Response(body=body, content_type="application/json")

    async def _watch(self, request: web.Request, kind: str) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        if kind == "endpointslices":
            self._watches.append(response)
        await asyncio.Event().wait()
        return response

    async def change(self, rate: float, seconds: float) -> None:
        """Tell so many changes per second for so long, each of another Service."""
        began, count = time.monotonic(), int(rate * seconds)
        for number in range(count):
            await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
            self._changes += 1
            index, address = self._changes * 7919 % self.services, fresh_address(self._changes)
            line = json.dumps({"type": "MODIFIED", "object": slice_of(index, address)}).encode() + b"\n"
            self._sent.write(f"{address} {time.monotonic()}\n")
            for watch in self._watches:
                await watch.write(line)
        self._sent.flush()

    def _own(self) -> dict[str, Any]:
        return {
            "metadata": {"name": "kubernetes", "labels": {"kubernetes.io/service-name": "kubernetes"}},
            "ports": [{"name": "https", "port": self.port}],
            "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": True}}],
        }


def _rendered(objects: Iterator[dict[str, Any]]) -> list[list[bytes]]:
    items = [json.dumps(item, separators=(",", ":")).encode() for item in objects]
    return [items[start : start + _PAGE] for start in range(0, len(items), _PAGE)] or [[]]


async def serve(services: int, sent: Path) -> None:
    """Until standard input ends."""
    lists = Lists(services, sent)
    app = web.Application()
    app.router.add_get("/{path:.*}", lists.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    lists.port = runner.addresses[0][1]
    print(lists.port, flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        rate, seconds = map(float, line.split())
        await lists.change(rate, seconds)
        print("done", flush=True)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--services", type=int, required=True)
    parser.add_argument("--sent", type=Path, required=True)
    options = parser.parse_args()
    asyncio.run(serve(options.services, options.sent))


if __name__ == "__main__":
    main()
