"""What the Local traffic policies mean on this node: whose health check port says what, and who finds nobody.

kube-proxy derives this anew with every sync, from all Services. Here only what changed is looked at again, since
these figures must not cost more than the table itself.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TypeVar

from handover_agent.endpoints import local_set, usable
from handover_agent.model import Model
from handover_agent.objects import Service, Slice, is_ipv4

T = TypeVar("T")

IPV4, IPV6 = "IPv4", "IPv6"


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """A Service's health check port on this node."""

    port: int
    endpoints: Mapping[str, int]
    """Family → ready endpoints on this node. A family that the Service does not have is missing."""


@dataclass(frozen=True, slots=True)
class Unreached:
    """Ports of a Service that have endpoints, but none here, by the policy that asks for one here."""

    internal: Mapping[str, int]
    external: Mapping[str, int]


_NOBODY = Unreached({}, {})


def health_check(service: Service, slices: Collection[Slice], node: str) -> HealthCheck | None:
    """The Service's health check on this node; None when it asks for none.

    As in kube-proxy, an address counts once however many ports it serves, and terminating endpoints, which
    traffic may still fall back to, do not count: a load balancer should look for another node.
    """
    if service.skipped or not service.health_check_node_port:
        return None
    ready: dict[str, set[bytes]] = {family: set() for family in _families(service)}
    for family, addresses in ready.items():
        for port in service.ports:
            for endpoint, _ in usable(port, slices, family == IPV4):
                if endpoint.ready and endpoint.node == node:
                    addresses.add(endpoint.address)
    return HealthCheck(
        service.health_check_node_port, {family: len(found) for family, found in ready.items()}
    )


def unreached(service: Service, slices: Collection[Slice], node: str) -> Unreached:
    """How many of the Service's ports are dropped here, because their policy is Local."""
    if service.skipped or not (service.internal_local or service.external_local):
        return _NOBODY
    internal: dict[str, int] = {}
    external: dict[str, int] = {}
    for family in _families(service):
        for port in service.ports:
            endpoints = usable(port, slices, family == IPV4)
            if endpoints and not local_set(endpoints, node):
                if service.internal_local:
                    internal[family] = internal.get(family, 0) + 1
                if service.external_local:
                    external[family] = external.get(family, 0) + 1
    return Unreached(internal, external)


class LocalPolicies:
    """Both, for all Services of a model; `refresh` when something changed."""

    def __init__(self, model: Model, node: str) -> None:
        self._model, self._node = model, node
        self._changed = model.follow()
        self.checks: dict[str, HealthCheck] = {}
        """Service → its health check."""
        self._unreached: dict[str, Unreached] = {}

    @property
    def complete(self) -> bool:
        """Whether everything has been listed: before that, nothing may be concluded from what is missing."""
        return self._model.complete

    def refresh(self) -> None:
        """Look again at what changed since the last time."""
        names = list(self._changed)
        self._changed.clear()
        for name in names:
            service, slices = self._model.services.get(name), self._model.slices(name)
            check = health_check(service, slices, self._node) if service else None
            nobody = unreached(service, slices, self._node) if service else _NOBODY
            _keep(self.checks, name, check)
            _keep(self._unreached, name, nobody if nobody != _NOBODY else None)

    def totals(self) -> dict[tuple[str, str], int]:
        """(policy, family) → ports that are dropped here."""
        found = {(policy, family): 0 for policy in ("internal", "external") for family in (IPV4, IPV6)}
        for each in self._unreached.values():
            for policy, counts in (("internal", each.internal), ("external", each.external)):
                for family, count in counts.items():
                    found[policy, family] += count
        return found


def _families(service: Service) -> list[str]:
    found = [is_ipv4(address) for address in service.cluster_ips]
    return [family for family, ipv4 in ((IPV4, True), (IPV6, False)) if ipv4 in found]


def _keep(into: dict[str, T], name: str, value: T | None) -> None:
    if value is None:
        into.pop(name, None)
    else:
        into[name] = value
