"""What the demo says is what was measured: phases by the nodes' rungs, a table that adds up, a verdict
that can fail.
"""

from collections import Counter

import pytest
from handover_api.base import Rung
from handover_api.nodemigration import Fault, KubeProxyFacts, NodeMigrationStatus

from e2e.demo import phases, summary
from e2e.demo.screen import Lines, Picture, traffic
from e2e.standings import Standing, standings
from e2e.traffic.client.ledger import bucket
from e2e.traffic.report import Client, Phase, Report, Stream

pytestmark = pytest.mark.unit


def node(name: str, wanted: Rung, rung: Rung) -> Standing:
    return Standing(name, wanted, NodeMigrationStatus(rung=rung))


@pytest.mark.parametrize(
    ("nodes", "phase"),
    [
        ([], "baseline"),
        ([("n1", "Standby", "Standby"), ("n2", "Standby", "Standby")], "baseline"),
        ([("n1", "Shadow", "Standby"), ("n2", "Standby", "Standby")], "n1 on its way up"),
        ([("n1", "Sole", "Serving"), ("n2", "Standby", "Standby")], "n1 on its way up"),
        ([("n1", "Sole", "Sole"), ("n2", "Standby", "Standby")], "soak"),
        ([("n1", "Sole", "Sole"), ("n2", "Serving", "Shadow")], "n2 on its way up"),
        ([("n1", "Sole", "Sole"), ("n2", "Sole", "Sole")], "soak"),
    ],
)
def test_the_phase_is_whose_way_up_it_is(nodes: list[tuple[str, str, str]], phase: str) -> None:
    standing = [node(name, Rung(wanted), Rung(rung)) for name, wanted, rung in nodes]
    assert phases.on_the_way_up(standing) == phase


def stream(lost: int = 0) -> Stream:
    return Stream(
        opened=10,
        asked=100 + lost,
        answered=100,
        lost=Counter({"connect-timeout": lost} if lost else {}),
        connect=Counter({bucket(400): 10}),
        request=Counter({bucket(600): 98, bucket(9000): 2}),
    )


def report(lost: int = 0, names: tuple[str, ...] = ("start", "baseline", "n1 on its way up")) -> Report:
    found = [Phase(name, 10.0, {"tcp4 new": stream(), "dns4 fresh connected": stream()}) for name in names]
    found[-1].streams["tcp4 new"] = stream(lost)
    return Report(tuple(found), (Client("n1/pod", 60, 60, lost, 1.0),), ())


def test_the_table_has_a_row_for_each_phase_and_one_for_all() -> None:
    table = summary.rows(report())
    assert [row[0] for row in table] == ["baseline", "n1 on its way up", "all phases", "from outside"]
    assert table[0][2:6] == ("20", "200", "0", "0")
    assert table[2][2:4] == ("40", "400")
    assert table[0][6:] == ("0.4 ms", "0.4 ms", "0.6 ms", "9.2 ms")
    text = summary.plain(summary.HEADER, table)
    assert len({line.index("  ") > 0 for line in text.splitlines()}) == 1


def test_what_came_from_outside_has_a_row_of_its_own_in_which_a_loss_shows() -> None:
    found = report()
    found.phases[1].streams["udp4 fresh connected to NodePort (Local)"] = stream(lost=2)
    found.phases[2].streams["tcp6 held to load balancer (Cluster)"] = stream()
    *_, everything, outside = summary.rows(found)
    assert outside[:5] == ("from outside", "20", "20", "202", "2")
    assert everything[2:5] == ("60", "602", "2")


def test_nothing_lost_and_nothing_left_is_well() -> None:
    assert summary.verdict(report(), ["baseline", "n1 on its way up"], "") == []


def test_one_loss_is_not_well() -> None:
    assert summary.verdict(report(lost=1), [], "") == [
        "lost in 'n1 on its way up': tcp4 new: {'connect-timeout': 1}"
    ]


def test_what_is_lost_while_servers_and_clients_come_up_is_not_counted() -> None:
    assert summary.verdict(report(lost=3, names=("start",)), [], "") == []
    assert report(lost=3, names=("start",)).lost == 0


def test_a_phase_that_was_not_seen_is_not_well() -> None:
    assert summary.verdict(report(), ["soak"], "") == ["the phase 'soak' was never seen"]


def test_an_attempt_without_an_end_is_not_well() -> None:
    unended = report()
    unended.phases[1].streams["tcp4 new"].asked += 1
    assert summary.verdict(unended, [], "") == ["no end known of 1 requests in 'baseline'"]


def test_a_leftover_is_not_well() -> None:
    assert "+table inet handover" in summary.verdict(report(), [], "+table inet handover")[0]


def test_a_phase_outside_of_the_story_is_shown_when_something_was_lost_in_it() -> None:
    assert [row[0] for row in summary.rows(report(lost=1, names=("baseline", "interlude")))] == [
        "baseline",
        "interlude",
        "all phases",
        "from outside",
    ]


def test_lines_are_printed_for_what_changed_and_not_again(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines()
    picture = Picture("baseline", "Migrating", [node("n1", Rung.SHADOW, Rung.STANDBY)], report(), 3000.0)
    lines.show(picture)
    first = capsys.readouterr().out
    assert "n1: Standby → Shadow" in first
    assert "3000 requests/s, lost 0" in first
    lines.show(picture)
    assert capsys.readouterr().out == ""
    lines.show(Picture("baseline", "Migrating", [node("n1", Rung.SHADOW, Rung.SHADOW)], report(), 1.0))
    assert "n1: Shadow;" in capsys.readouterr().out


def test_the_traffic_line_counts_losses_of_all_phases() -> None:
    assert "60 connections held" in traffic(Picture("baseline", "", [], report(lost=2), 1.0))
    assert "lost 2" in traffic(Picture("baseline", "", [], report(lost=2), 1.0))


def test_a_standing_is_read_from_a_nodemigration_and_says_its_fault() -> None:
    item = {
        "metadata": {"name": "n1"},
        "spec": {"nodeName": "n1", "rung": "Sole"},
        "status": {
            "rung": "Serving",
            "kubeProxy": {"running": False, "rules": 40},
            "fault": {"reason": "PortTaken", "message": "10256 is held", "since": "2026-01-01T00:00:00Z"},
        },
    }
    (found,) = standings([item])
    assert str(found) == (
        "n1: Serving → Sole; kube-proxy is gone, 40 rules, 0 translated, 0 old; -; PortTaken: 10256 is held"
    )
    assert found.moving
    assert found.status.kube_proxy == KubeProxyFacts(running=False, rules=40)
    assert isinstance(found.status.fault, Fault)
