"""The whole way: every node climbs, Services come and go without kube-proxy, every node comes back,
nothing is lost.
"""

from errno import ECONNREFUSED

import pytest
from handover_api.base import Rung
from handover_api.proxymigration import Phase

from e2e import footprint, ports
from e2e.footprint import Footprint
from e2e.lab.images import BASE
from e2e.migration import Migration
from e2e.tests.migration import connected
from e2e.traffic import deploy
from e2e.trial import until

pytestmark = pytest.mark.e2e

HOOKS = {f"{hook}{version}" for hook in ("connect", "sendmsg", "recvmsg", "getpeername") for version in "46"}


def of_kube_proxy(found: Footprint) -> list[str]:
    """Rules that send traffic to Services, whoever's mode it is."""
    return [
        f"{where}: {line}"
        for where, lines in found.items()
        for line in lines
        if "KUBE-SVC" in line or "KUBE-SERVICES" in line or (" kube-proxy" in line and "nft" in where)
    ]


def expect(migration: Migration, addresses: list[str], expectation: str) -> None:
    """Send traffic to a Service, and return when every client saw it behave so; then it has to."""
    trial = migration.trial
    trial.traffic.targets(
        [{"name": "late", "address": a, "port": 80, "expect": expectation} for a in addresses]
    )
    until(
        f"every client has seen the Service {expectation}",
        trial.traffic.met,
        60,
        lambda: [(c.name, c.targets) for c in trial.traffic.report().clients],
    )
    trial.wait_for_requests(5_000)


def scale(migration: Migration, replicas: int) -> None:
    migration.kube.patch("Deployment", "late", {"spec": {"replicas": replicas}}, deploy.NAMESPACE)

    def there() -> bool:
        item = migration.kube.get("Deployment", "late", deploy.NAMESPACE)
        pods = migration.kube.list("Pod", deploy.NAMESPACE, "app=late")
        ready: int = item["status"].get("readyReplicas", 0)
        return ready == replicas == len(pods)

    until(f"the Service has {replicas} pods", there, 90)


def a_service_comes_and_goes(migration: Migration) -> None:
    migration.kube.apply(*deploy.late(BASE))
    scale(migration, 2)
    service = migration.kube.get("Service", "late", deploy.NAMESPACE)
    addresses: list[str] = service["spec"]["clusterIPs"]
    assert len(addresses) == 2, f"both families are wanted: {addresses}"
    expect(migration, addresses, "served")
    # A pod that is told to end goes on serving for a while, so that only a late table could lose anything.
    scale(migration, 1)
    # Nothing is asked of it while its last pod ends: before the news of that, nobody could answer.
    migration.trial.traffic.targets([])
    scale(migration, 0)
    expect(migration, addresses, "refused")
    migration.trial.traffic.targets([])
    scale(migration, 1)
    expect(migration, addresses, "served")
    migration.trial.traffic.targets([])
    migration.kube.delete("Service", "late", deploy.NAMESPACE)
    expect(migration, addresses, "gone")
    migration.trial.traffic.targets([])
    migration.kube.delete("Deployment", "late", deploy.NAMESPACE)
    until("its pods are gone", lambda: not migration.kube.list("Pod", deploy.NAMESPACE, "app=late"), 60)


def test_every_node_goes_up_and_back_and_services_come_and_go_without_kube_proxy(
    migration: Migration,
) -> None:
    nodes = [node.name for node in migration.trial.lab.nodes]
    started = footprint.record(migration.trial.lab, migration.kube)
    assert of_kube_proxy(started), "the check for kube-proxy's rules sees nothing, even now"
    answered = ports.answers(migration.trial)

    migration.ask("eBPF")
    status = migration.wait_for_phase(Phase.MIGRATED, within_s=60 + 60 * len(nodes))
    assert status.migrated == f"{len(nodes)}/{len(nodes)}"
    standings = {standing.node: standing.status for standing in migration.standings()}
    assert {name: s.rung for name, s in standings.items()} == dict.fromkeys(nodes, Rung.SOLE)
    assert {name: s.leftovers for name, s in standings.items()} == {name: [] for name in nodes}
    assert not migration.kube.list("Pod", "kube-system", "k8s-app=kube-proxy")

    up = footprint.record(migration.trial.lab, migration.kube)
    assert not of_kube_proxy(up)
    for name in nodes:
        attached = [line.split()[1] for line in up[f"{name}: BPF programs"]]
        assert set(attached) >= HOOKS, f"{name} has {attached}"

    a_service_comes_and_goes(migration)
    assert ports.answers(migration.trial) == answered, "load balancers and dashboards see a difference"
    for address, seen in connected.a_backend_goes_away(migration.trial, BASE).items():
        assert f"error {ECONNREFUSED}" in seen, f"a connected socket to {address} was not told: {seen}"

    migration.ask("KubeProxy")
    migration.wait_for_phase(Phase.REVERSED, within_s=60 + 60 * len(nodes))
    migration.wait_for_kube_proxy()
