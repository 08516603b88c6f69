"""Who serves the UDP Services on this node, whatever policies, hints and readiness say; kept up Service by Service.

kube-proxy asks exactly this before it takes a flow away (pkg/proxy/conntrack/cleanup.go), so that a change of a Service
does not disturb flows that work.
"""

from collections.abc import Collection, Mapping

from msgspec.structs import replace

from handover_agent.compile import NodeInfo, compile_service
from handover_agent.model import Model
from handover_agent.objects import Service, Slice
from handover_agent.table import Backend, FrontendKey, Protocol

Serving = Mapping[FrontendKey, Collection[Backend]]


def is_gone(frontend: Backend, backend: Backend, serving: Serving) -> bool:
    """Whether a flow of datagrams to a frontend leads to a backend that serves no more, while another one does."""
    backends = serving.get(FrontendKey(frontend.address, frontend.port, Protocol.UDP), ())
    return bool(backends) and backend not in backends


def serving_of(
    service: Service, slices: Collection[Slice], node: NodeInfo
) -> dict[FrontendKey, frozenset[Backend]]:
    """The Service's UDP frontends on this node, each with all its serving endpoints."""
    if not any(port.protocol is Protocol.UDP for port in service.ports):
        return {}
    anywhere = replace(service, internal_local=False, external_local=False, source_ranges=())
    rows, _ = compile_service(anywhere, [_all_ready(each) for each in slices], node)
    return {row.key: frozenset(row.entry.backends) for row in rows if row.key.protocol is Protocol.UDP}


class ServingUdp:
    """The same of all Services of a model. Where two claim one frontend, the endpoints of both count."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._changed = model.follow()
        self._node: NodeInfo | None = None
        self._keys: dict[str, frozenset[FrontendKey]] = {}
        self._claims: dict[FrontendKey, dict[str, frozenset[Backend]]] = {}

    def now(self, node: NodeInfo) -> Serving:
        """As it is now. Raises NotListed."""
        self._model.require_complete()
        if node != self._node:
            self._node = node
            self._changed.update(self._model.services)
        for name in self._changed:
            service = self._model.services.get(name)
            self._update(name, serving_of(service, self._model.slices(name), node) if service else {})
        self._changed.clear()
        return {key: _all(claims) for key, claims in self._claims.items()}

    def _update(self, name: str, fresh: dict[FrontendKey, frozenset[Backend]]) -> None:
        for key in self._keys.pop(name, frozenset()) - fresh.keys():
            claims = self._claims[key]
            del claims[name]
            if not claims:
                del self._claims[key]
        for key, backends in fresh.items():
            self._claims.setdefault(key, {})[name] = backends
        if fresh:
            self._keys[name] = frozenset(fresh)


def _all(claims: Mapping[str, frozenset[Backend]]) -> frozenset[Backend]:
    return next(iter(claims.values())) if len(claims) == 1 else frozenset().union(*claims.values())


def _all_ready(slice_: Slice) -> Slice:
    return replace(
        slice_,
        endpoints=tuple(replace(each, ready=True, zone_hints=(), node_hints=()) for each in slice_.endpoints),
    )
