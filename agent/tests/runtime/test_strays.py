"""UDP clients of gone endpoints are looked for wherever they may be held."""

from collections.abc import Iterable

import pytest
from handover_agent.conntrack import Pass, Serving
from handover_agent.footing import KernelConntrack, KernelDatapath
from handover_agent.model import NotListed
from handover_agent.strays import Strayed, Strays
from handover_agent.table import Backend, FrontendKey, Protocol, ip_bytes

pytestmark = pytest.mark.unit

SERVING: Serving = {
    FrontendKey(ip_bytes("10.96.0.10"), 53, Protocol.UDP): {Backend(ip_bytes("10.1.1.1"), 53)}
}


class Conntrack(KernelConntrack):
    """Finds three stale entries each time."""

    def __init__(self) -> None:
        self.looked = 0

    async def reconcile_udp(self) -> int:
        self.looked += 1
        return 3


class Datapath(KernelDatapath):
    """Finds a flow each time it looks, and two sockets when it is asked for them while there may be any."""

    def __init__(self) -> None:
        self.asked: list[Serving] = []
        self.may_be_stranded = False

    async def forget_udp_flows(self, serving: Serving) -> int:
        self.asked.append(serving)
        return 1

    async def watch_stranded(self, serving: Serving) -> bool:
        self.asked.append(serving)
        return self.may_be_stranded

    async def keep_left(self, serving: Serving) -> int:
        self.asked.append(serving)
        return 0

    async def tell_stranded(self, serving: Serving) -> int:
        self.asked.append(serving)
        return 2


async def test_flows_are_ours_and_conntrack_only_where_kube_proxy_does_not_look() -> None:
    conntrack, datapath = Conntrack(), Datapath()
    strays = Strays(conntrack, datapath, lambda: SERVING)
    await strays.look(conntrack=False)
    assert strays.found == Strayed(entries=0, flows=1)
    assert conntrack.looked == 0
    await strays.look(conntrack=True)
    assert strays.found == Strayed(entries=3, flows=2)
    assert datapath.asked == [SERVING] * 6


async def test_sockets_are_asked_for_while_there_may_be_stranded_ones() -> None:
    datapath = Datapath()
    strays = Strays(Conntrack(), datapath, lambda: SERVING)
    for may_be, told in ((False, 0), (True, 4), (False, 4)):
        datapath.may_be_stranded = may_be
        await strays.look(conntrack=False)
        await strays.tell()
        await strays.tell()
        assert strays.found.sockets == told


async def test_what_hides_clients_from_kube_proxy_is_looked_for_but_stops_no_way_down(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[bool] = []
    told: list[Pass] = []

    def reconcile(_: Serving, *, untranslated: bool) -> Iterable[Pass]:
        asked.append(untranslated)
        return (Pass(True, 4, 0.1),)

    monkeypatch.setattr("handover_agent.footing.conntrack.reconcile_udp", reconcile)
    conntrack = KernelConntrack(lambda: SERVING, told.extend)
    assert await conntrack.reconcile_udp() == 4
    assert await conntrack.forget_untranslated_udp() == 4
    assert asked == [False, True]
    assert told == [Pass(True, 4, 0.1)] * 2

    def not_listed() -> Serving:
        raise NotListed("Services")

    assert await KernelConntrack(not_listed, told.extend).forget_untranslated_udp() == 0
