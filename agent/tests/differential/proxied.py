"""kube-proxy's own rules for many random clusters at once: one run of the real kube-proxy in nftables mode."""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from handover_agent.kubeproxy import nftables
from handover_agent.objects import is_ipv4
from tests.differential import setting
from tests.differential.generating import Cluster
from tests.differential.nft import Table
from tests.differential.packets import Endings, Packet
from tests.differential.setting import Json, Setting
from tests.kubeproxy import cluster, recording
from tests.node.netns import run


class Rules:
    """Both of kube-proxy's tables, read once."""

    def __init__(self, tables: dict[bool, Table]) -> None:
        self._tables = tables  # by: is it IPv4

    def endings(self, packet: Packet) -> Endings:
        """Every way in which kube-proxy's rules let the packet end."""
        return self._tables[is_ipv4(packet.destination)].endings(packet)


def binary() -> Path:
    """The kube-proxy to run; tests that need it are skipped where there is none."""
    found = recording.binary()
    assert found is not None
    return found


@contextmanager
def kube_proxy(of: Setting, clusters: Iterable[Cluster], executable: Path, scratch: Path) -> Iterator[None]:
    """kube-proxy in the network namespace that the caller is in; its rules stay when it has gone."""
    chosen = list(clusters)
    objects: dict[str, Sequence[Json]] = {
        "services": [service for one in chosen for service in one.services],
        "endpointslices": [each for one in chosen for each in one.slices],
        "nodes": [of.node],
        "servicecidrs": [cluster.service_cidr()],
    }
    file = scratch / "objects.json"
    file.write_text(json.dumps(objects))
    with recording.kube_proxy(executable, "", "nftables", objects=file, more=of.configuration):
        yield


def rules() -> Rules:
    """The rules in force in the network namespace that the caller is in."""
    local = setting.Setting().node_info.local_addresses
    return Rules(
        {
            ipv4: Table(nftables.listing_json((family, "kube-proxy")) or [], local)
            for family, ipv4 in (("ip", True), ("ip6", False))
        }
    )


def devices() -> None:
    """The node's devices and addresses, in the network namespace that the caller is in."""
    run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "outside")
    for own in (*setting.PRIMARY, *setting.SECOND):
        if ":" in own:
            run("ip", "addr", "add", f"{own}/64", "dev", "eth0", "nodad")
        else:
            run("ip", "addr", "add", f"{own}/24", "dev", "eth0")
    for name in ("eth0", "outside"):
        run("ip", "link", "set", name, "up")
