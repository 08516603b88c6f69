"""What people and programs see of the maps."""

import json

import pytest
from handover_agent import layout
from handover_agent.layout import Sizes, map_specs
from handover_agent.showing.counting import MEANINGS, Kind, meaning
from handover_agent.showing.drops import drops
from handover_agent.showing.fill import ABOUT, Fill, listing, memory_bytes
from handover_agent.showing.frontends import Held, backends, services
from handover_agent.showing.listing import ago, bytes_text
from handover_agent.table import (
    Backend,
    FrontendFlags,
    FrontendKey,
    FrontendValue,
    Protocol,
    Scope,
    ip_bytes,
)

pytestmark = pytest.mark.unit

AFFINITY = FrontendFlags.AFFINITY
HELD = [
    Held(
        "default/web:http/TCP",
        FrontendKey(ip_bytes("10.96.0.10"), 80, Protocol.TCP),
        FrontendValue(0, 2, 7, AFFINITY, 10800),
        (Backend(ip_bytes("10.244.0.5"), 8080), Backend(ip_bytes("10.244.1.5"), 8080)),
    ),
    Held(
        "default/web:http/TCP",
        FrontendKey(ip_bytes("192.0.2.1"), 30080, Protocol.TCP, Scope.EXTERNAL),
        FrontendValue(2, 1, 7, FrontendFlags.MASQUERADE | AFFINITY, 10800),
        (Backend(ip_bytes("10.244.0.5"), 8080),),
    ),
    Held(
        "kube-system/dns:dns/UDP",
        FrontendKey(ip_bytes("fd00::a"), 53, Protocol.UDP),
        FrontendValue(0, 0, 8, FrontendFlags.REFUSE),
        (),
    ),
]


def test_services_are_a_table_as_kubectl_prints_it() -> None:
    assert services(HELD).text() == (
        "SERVICE                   FRONTEND              SCOPE      BACKENDS   FLAGS\n"
        "default/web:http/TCP      TCP/10.96.0.10:80     internal   2          affinity=10800s\n"
        "default/web:http/TCP      TCP/192.0.2.1:30080   external   1          affinity=10800s,masquerade\n"
        "kube-system/dns:dns/UDP   UDP/[fd00::a]:53      internal   0          refuse"
    )


def test_a_script_gets_the_parts_of_a_frontend_and_never_cuts_them_out_of_text() -> None:
    (first, *_), notes = (document := json.loads(services(HELD).json()))["items"], document["notes"]
    assert first == {
        "service": "default/web:http/TCP",
        "frontend": {"address": "10.96.0.10", "port": 80, "protocol": "TCP", "scope": "internal"},
        "flags": ["affinity"],
        "affinity_timeout_s": 10800,
        "backends": 2,
        "draining": 0,
    }
    assert notes == []


def test_backends_are_listed_one_by_one_for_the_service_that_was_asked_for() -> None:
    shown = backends(HELD, "10.96.0.10")
    assert [row.cells[-2] for row in shown.rows] == ["10.244.0.5:8080", "10.244.1.5:8080"]


def test_backends_that_keep_their_flows_only_are_told_apart() -> None:
    chosen, draining = (Backend(ip_bytes(f"10.244.{n}.7"), 53) for n in (0, 1))
    dns = FrontendKey(ip_bytes("10.96.0.10"), 53, Protocol.UDP)
    value = FrontendValue(4, 1, 9, serving=2)
    shown = [Held("kube-system/dns:dns/UDP", dns, value, (chosen,), (draining,))]
    assert [row.cells[-2:] for row in backends(shown).rows] == [
        ("10.244.0.7:53", "chosen"),
        ("10.244.1.7:53", "draining"),
    ]
    assert [row.cells[-2] for row in backends(shown, "draining").rows] == ["10.244.1.7:53"]
    (row,) = services(shown).rows
    assert row.cells[3] == "1"


def test_a_backends_address_finds_the_services_that_it_serves() -> None:
    assert [row.cells[1] for row in backends(HELD, "10.244.1.5").rows] == ["TCP/10.96.0.10:80"]


def test_a_flag_finds_the_services_that_have_it() -> None:
    assert [row.cells[0] for row in services(HELD, "refuse").rows] == ["kube-system/dns:dns/UDP"]


def test_an_empty_table_says_why_it_is_empty() -> None:
    assert (
        services([], "").text()
        == "The maps are empty: no Service of the cluster has a frontend on this node."
    )
    assert (
        services(HELD, "nothing").text()
        == "Nothing here contains 'nothing'; without an argument, all is shown."
    )
    assert json.loads(services(HELD, "nothing").json()) == {"items": [], "notes": []}


def test_drops_show_what_matters_and_the_worst_first() -> None:
    counts = {"connect_translated": 900, "refused": 7, "error_frontend_empty": 1, "drop_left": 0}
    shown = drops(counts, {"refused": "Calls that were refused"})
    assert [row.cells[:3] for row in shown.rows] == [
        ("error", "error_frontend_empty", "1"),
        ("refused", "refused", "7"),
    ]
    assert shown.text().splitlines()[-1].startswith("  → `handover-agent services refuse` lists")
    everything = drops(counts, {}, everything=True)
    assert [row.document["counter"] for row in everything.rows] == [
        "error_frontend_empty",
        "drop_left",
        "refused",
        "connect_translated",
    ]


def test_no_drops_are_said_to_be_none() -> None:
    assert drops({"refused": 0}, {}).text() == (
        "Nothing was dropped, refused or missed since the maps were made."
    )
    assert drops({}, {}, during_s=2.5).text() == "Nothing was dropped, refused or missed in 2.5 s."


def test_every_counter_of_the_datapath_has_a_kind_and_advice() -> None:
    assert set(MEANINGS) == set(layout.counter_names()), (
        "showing/counting.py says what follows from each counter"
    )


def test_what_is_advised_about_a_full_map_makes_it_larger() -> None:
    """Of these maps, none has its size from the agent's settings."""
    full = {name: each.do for name, each in MEANINGS.items() if name.endswith("_not_written")} | {
        "flow_repaired": MEANINGS["flow_repaired"].do
    }
    assert not any("settings" in do for do in full.values())
    by_conntrack = {name for name, do in full.items() if "nf_conntrack_max" in do and "down and up" in do}
    assert by_conntrack == full.keys() - {"error_fragment_not_written", "connected_not_written"}
    assert "`forward`" in full["error_forward_not_written"]
    assert f"{Sizes().fragments} datagrams" in full["error_fragment_not_written"]


def test_a_counter_that_is_new_is_shown_by_what_its_name_says() -> None:
    names = ("error_new", "drop_new", "refuse_new", "new")
    assert [meaning(name).kind for name in names] == [Kind.ERROR, Kind.DROPPED, Kind.REFUSED, Kind.MISSED]


def test_maps_tell_how_full_they_are_and_what_follows() -> None:
    specs = {spec.name: spec for spec in map_specs(Sizes())}
    shown = listing(
        [Fill(specs["frontends"], 95, 100, 1 << 20), Fill(specs["settings"], None, 1, None)], ("a note",)
    )
    assert shown.text() == (
        "MAP         KIND    USED   ROOM   FULL   MEMORY    HOLDS\n"
        "frontends   hash    95     100    95%    1.0 MiB   addresses at which Services are reached\n"
        "settings    array   -      1      -      -         whether new connections are accepted"
    )
    assert shown.notes[0] == "a note"
    assert shown.notes[1].startswith(
        "frontends is 95% full. When it is full, further Services are not served"
    )


def test_every_map_says_what_it_holds() -> None:
    assert {spec.name for spec in map_specs(Sizes())} == set(ABOUT)


def test_the_memory_of_a_map_is_what_the_kernel_says() -> None:
    assert memory_bytes("pos:\t0\nflags:\t02000002\nmap_type:\t1\nmemlock:\t5246976\n") == 5246976
    assert memory_bytes("pos:\t0\n") is None


def test_durations_and_sizes_are_short() -> None:
    assert [ago(s) for s in (-1, 4.9, 65, 3599, 10800, 11100, 187200)] == [
        "0s",
        "4s",
        "1m5s",
        "59m",
        "3h",
        "3h5m",
        "2d4h",
    ]
    assert [bytes_text(n) for n in (12, 2048, 5 << 20, 3 << 30)] == ["12 B", "2.0 KiB", "5.0 MiB", "3.0 GiB"]
