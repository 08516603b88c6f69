"""The health check ports of Services: whether this node has an endpoint of its own for them.

A load balancer that keeps clients' addresses (externalTrafficPolicy: Local) must send to nodes with an endpoint
only, and asks each node at the Service's healthCheckNodePort. The answer is kube-proxy's to the letter: status,
header and body, one server per family, at the addresses where NodePorts are reached.
"""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from aiohttp import web

from handover_agent.compile import NodeInfo
from handover_agent.health.answering import answer_at
from handover_agent.health.listening import NotListening, listen_at
from handover_agent.health.local import IPV4, IPV6, HealthCheck
from handover_agent.objects import is_ipv4
from handover_agent.table import ip_text

log = logging.getLogger(__name__)

Places = Mapping[str, Sequence[str]]
"""Family → the addresses to listen at."""

EVERYWHERE: Places = {IPV4: ("0.0.0.0",), IPV6: ("::",)}


def places(node: NodeInfo) -> Places:
    """Where this node's health check ports are: as kube-proxy has it, where NodePorts are."""
    if not node.node_port_addresses:
        return EVERYWHERE
    at = [(IPV4 if is_ipv4(address) else IPV6, ip_text(address)) for address in node.node_ports_at]
    return {family: [text for of, text in at if of == family] for family in (IPV4, IPV6)}


def answer(service: str, endpoints: int, healthy: bool) -> web.Response:
    """What kube-proxy answers for a Service ("namespace/name") with so many endpoints here."""
    namespace, _, name = service.partition("/")
    said = {
        "service": {"namespace": namespace, "name": name},
        "localEndpoints": endpoints,
        "serviceProxyHealthy": healthy,
    }
    return web.Response(
        status=200 if endpoints and healthy else 503,
        body=json.dumps(said, indent="\t").encode(),
        headers={
            "Content-Type": "application/json",
            "X-Content-Type-Options": "nosniff",
            "X-Load-Balancing-Endpoint-Weight": str(endpoints),
        },
    )


@dataclass(slots=True)
class _Open:
    """The servers of one Service."""

    check: HealthCheck
    at: tuple[tuple[str, str], ...]  # family, address
    runners: list[web.ServerRunner] = field(default_factory=list)

    async def close(self) -> None:
        for runner in self.runners:
            await runner.cleanup()
        self.runners.clear()


class ServicePorts:
    """The servers that are wanted now. Calls must not overlap."""

    def __init__(self, healthy: Callable[[], bool], failed: Callable[[str, int, NotListening], None]) -> None:
        self._healthy, self._failed = healthy, failed
        self._open: dict[str, _Open] = {}
        self._failing: set[str] = set()

    @property
    def services(self) -> frozenset[str]:
        """Whose ports are open."""
        return frozenset(self._open)

    async def follow(self, checks: Mapping[str, HealthCheck], places: Places) -> None:
        """Open, close and update until these are served. What cannot be opened is told, and tried by the next call.

        Whoever is on its way out closes first, so that another Service may have its port.
        """
        for service, served in list(self._open.items()):
            check = checks.get(service)
            if check is None or check.port != served.check.port or _where(check, places) != served.at:
                await self._open.pop(service).close()
                log.info("health check closed", extra={"service": service, "port": served.check.port})
        self._failing &= checks.keys()
        for service, check in checks.items():
            if service in self._open:
                self._open[service].check = check
            else:
                await self._start(service, check, places)

    async def close(self) -> None:
        """Close them all. Idempotent."""
        while self._open:
            _, served = self._open.popitem()
            await served.close()

    async def _start(self, service: str, check: HealthCheck, places: Places) -> None:
        served = _Open(check, _where(check, places))
        try:
            for family, address in served.at:
                await self._serve(service, served, family, address)
        except NotListening as error:
            await served.close()
            if service not in self._failing:
                log.warning("health check not served", extra={"service": service, "error": str(error)})
            self._failing.add(service)
            self._failed(service, check.port, error)
            return
        except BaseException:
            await served.close()
            raise
        self._open[service] = served
        self._failing.discard(service)
        log.info("health check opened", extra={"service": service, "port": check.port})

    async def _serve(self, service: str, served: _Open, family: str, address: str) -> None:
        async def handle(_: web.BaseRequest) -> web.StreamResponse:
            return answer(service, served.check.endpoints.get(family, 0), self._healthy())

        listening = listen_at(address, served.check.port)
        runner = web.ServerRunner(web.Server(handle, access_log=None), shutdown_timeout=0.1)
        await answer_at(listening, runner)
        served.runners.append(runner)


def _where(check: HealthCheck, places: Places) -> tuple[tuple[str, str], ...]:
    return tuple((family, address) for family in check.endpoints for address in places.get(family, ()))
