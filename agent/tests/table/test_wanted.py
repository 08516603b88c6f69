"""The table of a whole cluster: the same in whatever order events came, and one owner for each frontend."""

from typing import Any

import pytest
from handover_agent.compile import NodeInfo
from handover_agent.model import Model, NotListed
from handover_agent.objects import Service, Slice
from handover_agent.table import Entry, FrontendKey, ip_bytes
from handover_agent.wanted import Delta, WantedTable
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fakes.objects import endpoint_json, service, slice_
from tests.table.whole import compile_table

pytestmark = pytest.mark.unit

NODE = NodeInfo("a", "z1", local_addresses=frozenset({ip_bytes("192.168.0.1")}))


def listed(services: list[Service], slices: list[Slice] | None = None) -> Model:
    model = Model()
    model.services_sink.replace(services)
    model.slices_sink.replace(slices or [])
    return model


def owners(wanted: WantedTable) -> dict[str, str]:
    return {str(key): entry.service.partition(":")[0] for key, entry in wanted.table.items()}


def told(delta: Delta) -> dict[str, Entry | None]:
    """What changed, without the refusals of what is at no port."""
    return {str(key): entry for key, entry in delta.items() if key.port}


@pytest.mark.parametrize("missing", ["Services", "EndpointSlices"])
def test_nothing_is_compiled_before_both_kinds_were_listed(missing: str) -> None:
    model = Model()
    if missing == "EndpointSlices":
        model.services_sink.replace([service()])
    else:
        model.slices_sink.replace([])
    with pytest.raises(NotListed, match=missing):
        WantedTable(NODE).refresh(model)


def test_a_refresh_tells_what_changed_and_nothing_else() -> None:
    model = listed(
        [service(), service("default/two", "10.96.0.11")], [slice_(endpoints=[endpoint_json("10.1.1.1")])]
    )
    wanted = WantedTable(NODE)
    assert told(wanted.refresh(model)).keys() == {"TCP/10.96.0.10:80", "TCP/10.96.0.11:80"}
    assert wanted.refresh(model) == {}
    model.slices_sink.put(slice_(endpoints=[endpoint_json("10.1.1.2")]))
    ((key, entry),) = wanted.refresh(model).items()
    assert str(key) == "TCP/10.96.0.10:80"
    assert entry is not None
    assert [str(backend) for backend in entry.backends] == ["10.1.1.2:8080"]
    model.services_sink.remove(service("default/two", "10.96.0.11"))
    delta = wanted.refresh(model)
    assert {str(key): entry for key, entry in delta.items()} == {
        "TCP/10.96.0.11:80": None,
        "ANY/10.96.0.11:0": None,
    }


def test_a_refresh_tells_what_it_replaced() -> None:
    model = listed([service()], [slice_(endpoints=[endpoint_json("10.1.1.1")])])
    wanted = WantedTable(NODE)
    assert set(wanted.refresh(model)) == set(wanted.replaced)
    assert set(wanted.replaced.values()) == {None}
    ((key, first),) = ((k, entry) for k, entry in wanted.table.items() if k.port)
    model.slices_sink.put(slice_(endpoints=[endpoint_json("10.1.1.2")]))
    wanted.refresh(model)
    assert wanted.replaced == {key: first}
    second = wanted.table[key]
    model.services_sink.remove(service())
    wanted.refresh(model)
    assert wanted.replaced[key] == second
    wanted.refresh(model)
    assert wanted.replaced == {}


def test_a_policy_that_is_switched_adds_and_removes_what_is_for_arrivals_from_outside() -> None:
    external = {"externalIPs": ["198.51.100.1"]}
    model, wanted = listed([service(**external)]), WantedTable(NODE)
    wanted.refresh(model)
    model.services_sink.put(service(**external, externalTrafficPolicy="Local"))
    assert told(wanted.refresh(model)).keys() == {"TCP/198.51.100.1:80", "TCP/198.51.100.1:80 from outside"}
    model.services_sink.put(service(**external))
    assert told(wanted.refresh(model))["TCP/198.51.100.1:80 from outside"] is None
    model.services_sink.put(service(**external, externalTrafficPolicy="Local"))
    wanted.refresh(model)
    model.services_sink.remove(service())
    wanted.refresh(model)
    assert wanted.table == {}


def test_who_has_a_frontend_has_it_from_outside_too() -> None:
    external: dict[str, Any] = {"externalIPs": ["198.51.100.1"]}
    old = service("z/old", "10.96.0.1", created="2025-01-01T00:00:00Z", **external)
    new = service("a/new", "10.96.0.2", externalTrafficPolicy="Local", **external)
    for order in ([old, new], [new, old]):
        wanted = WantedTable(NODE)
        for each in order:
            wanted.update(each.key, each, [])
        assert "TCP/198.51.100.1:80 from outside" not in owners(wanted)
        wanted.update("z/old", None, [])
        assert owners(wanted)["TCP/198.51.100.1:80 from outside"] == "a/new"
        wanted.update("z/old", old, [])
        assert "TCP/198.51.100.1:80 from outside" not in owners(wanted)


def test_the_older_of_two_services_gets_a_frontend_that_both_claim() -> None:
    old = service("z/old", "10.96.0.1", created="2025-01-01T00:00:00Z", externalIPs=["198.51.100.1"])
    new = service("a/new", "10.96.0.2", created="2026-01-01T00:00:00Z", externalIPs=["198.51.100.1"])
    for order in ([old, new], [new, old]):
        wanted = WantedTable(NODE)
        for each in order:
            wanted.update(each.key, each, [])
        assert owners(wanted)["TCP/198.51.100.1:80"] == "z/old"


def test_of_two_services_of_one_age_the_name_decides() -> None:
    wanted = WantedTable(NODE)
    for name, ip in (("b/x", "10.96.0.1"), ("a/y", "10.96.0.2")):
        wanted.update(name, service(name, ip, externalIPs=["198.51.100.1"]), [])
    assert owners(wanted)["TCP/198.51.100.1:80"] == "a/y"


def test_a_cluster_ip_cannot_be_taken_by_an_older_services_external_ip() -> None:
    thief = service("a/thief", "10.96.0.1", created="2020-01-01T00:00:00Z", externalIPs=["10.96.0.2"])
    victim = service("b/victim", "10.96.0.2", created="2026-01-01T00:00:00Z")
    for order in ([thief, victim], [victim, thief]):
        wanted = WantedTable(NODE)
        for each in order:
            wanted.update(each.key, each, [])
        assert owners(wanted)["TCP/10.96.0.2:80"] == "b/victim"


def test_when_the_owner_goes_the_next_claimant_gets_the_frontend() -> None:
    wanted = WantedTable(NODE)
    for name, ip, year in (
        ("a/x", "10.96.0.1", 2024),
        ("a/y", "10.96.0.2", 2025),
        ("a/z", "10.96.0.3", 2026),
    ):
        wanted.update(
            name, service(name, ip, created=f"{year}-01-01T00:00:00Z", externalIPs=["198.51.100.1"]), []
        )
    for gone, next_owner in (("a/x", "a/y"), ("a/y", "a/z")):
        wanted.update(gone, None, [])
        assert owners(wanted)["TCP/198.51.100.1:80"] == next_owner
    wanted.update("a/z", None, [])
    assert owners(wanted) == {}


def test_who_asks_for_a_frontend_in_vain_is_known() -> None:
    wanted = WantedTable(NODE)
    for name, ip, year in (("a/new", "10.96.0.1", 2026), ("a/old", "10.96.0.2", 2025)):
        thing = service(name, ip, created=f"{year}-01-01T00:00:00Z", externalIPs=["198.51.100.1"])
        wanted.update(name, thing, [])
    assert [(str(d.key), d.loser, d.owner) for d in wanted.disputes()] == [
        ("TCP/198.51.100.1:80", "a/new", "a/old")
    ]
    wanted.update("a/old", None, [])
    assert wanted.disputes() == []


def test_a_service_that_was_made_anew_ranks_by_its_new_age() -> None:
    wanted = WantedTable(NODE)
    for name, ip, year in (
        ("a/x", "10.96.0.1", 2024),
        ("a/y", "10.96.0.2", 2025),
        ("a/x", "10.96.0.1", 2026),
    ):
        wanted.update(
            name, service(name, ip, created=f"{year}-01-01T00:00:00Z", externalIPs=["198.51.100.1"]), []
        )
    assert owners(wanted)["TCP/198.51.100.1:80"] == "a/y"


def test_a_change_of_the_node_compiles_all_again() -> None:
    model = listed([service(type="NodePort", ports=[{"name": "http", "port": 80, "nodePort": 30080}])])
    wanted = WantedTable(NODE)
    wanted.refresh(model)
    wanted.set_node(NodeInfo("a", "z1", local_addresses=frozenset({ip_bytes("192.168.0.2")})), model)
    delta = {str(key): entry is not None for key, entry in wanted.refresh(model).items()}
    assert delta == {"TCP/192.168.0.1:30080": False, "TCP/192.168.0.2:30080": True}


names = st.sampled_from(["a/x", "a/y", "b/x"])
services = st.builds(
    lambda name, ip, external, year, local, from_outside: service(
        name, f"10.96.0.{ip}", created=f"{year}-01-01T00:00:00Z", externalIPs=external,
        internalTrafficPolicy="Local" if local else "Cluster",
        externalTrafficPolicy="Local" if from_outside else "Cluster",
        ports=[{"name": "http", "port": 80, "nodePort": 30000 + ip}],
    ),
    names,
    st.integers(1, 3),
    st.lists(st.sampled_from(["198.51.100.1", "198.51.100.2", "10.96.0.1", "10.96.0.2"]), max_size=2),
    st.integers(2024, 2026),
    st.booleans(),
    st.booleans(),
)  # fmt: skip
slices = st.builds(
    lambda name, owner, ends: slice_(
        f"{owner.partition('/')[0]}/{name}", owner.partition("/")[2],
        [endpoint_json(f"10.1.1.{n}", at, ready=ready, serving=True, terminating=True)
         for n, at, ready in ends],
    ),
    st.sampled_from(["s1", "s2"]),
    names,
    st.lists(st.tuples(st.integers(1, 4), st.sampled_from(["a", "b"]), st.booleans()), max_size=3),
)  # fmt: skip
events = st.one_of(
    st.tuples(st.just("put service"), services),
    st.tuples(st.just("remove service"), services),
    st.tuples(st.just("put slice"), slices),
    st.tuples(st.just("remove slice"), slices),
    st.tuples(st.just("list services"), st.lists(services, max_size=3, unique_by=lambda s: s.key)),
    st.tuples(st.just("list slices"), st.lists(slices, max_size=3, unique_by=lambda s: s.key)),
    st.tuples(st.just("refresh"), st.none()),
)


@given(st.lists(events, max_size=30))
@settings(deadline=None)
def test_whatever_the_order_of_events_the_kept_table_is_the_one_compiled_from_nothing(
    history: list[tuple[str, object]],
) -> None:
    model, wanted = listed([]), WantedTable(NODE)
    followed: dict[FrontendKey, Entry] = {}
    act = {
        "put service": model.services_sink.put,
        "remove service": model.services_sink.remove,
        "put slice": model.slices_sink.put,
        "remove slice": model.slices_sink.remove,
        "list services": model.services_sink.replace,
        "list slices": model.slices_sink.replace,
    }
    for what, thing in [*history, ("refresh", None)]:
        if what != "refresh":
            act[what](thing)  # type: ignore[operator]
            continue
        for key, entry in wanted.refresh(model).items():
            if entry is None:
                followed.pop(key, None)  # it may have come and gone between two looks
            else:
                followed[key] = entry
        assert wanted.table == compile_table(model, NODE)
        assert followed == wanted.table, "the changes that were told do not add up to the table"
