"""Which client stays with which backend, as people see it."""

import json
import struct

import pytest
from handover_agent.entries import Affinity, Client, unpack_client
from handover_agent.showing.affinity import Rules, judge, listing
from handover_agent.table import Backend, ip_bytes

pytestmark = pytest.mark.unit

ONE, TWO = Backend(ip_bytes("10.244.0.5"), 8080), Backend(ip_bytes("10.244.1.5"), 8080)
POD, ADDRESS = Client(None, 4026), Client(ip_bytes("192.0.2.7"), None)
S = 1_000_000_000
NOW = 100_000 * S
NAMES = {7: "default/web:http/TCP", 8: "default/old:http/TCP"}
RULES = {7: Rules(10_800, frozenset({ONE}))}


def entry(client: Client, backend: Backend = ONE, idle_s: int = 0, service_id: int = 7) -> Affinity:
    return Affinity(client, service_id, backend, NOW - idle_s * S)


def state(of: Affinity) -> str:
    return judge([of], NAMES, RULES, {}, NOW)[0].state


def test_an_entry_shows_how_long_it_lasts_and_the_pod_by_its_addresses() -> None:
    stays = judge(
        [entry(POD, idle_s=65)], NAMES, RULES, {4026: (ip_bytes("10.244.0.9"), ip_bytes("fd00::9"))}, NOW
    )
    assert listing(stays).text() == (
        "SERVICE                CLIENT               BACKEND           IDLE   LEFT    STATE\n"
        "default/web:http/TCP   10.244.0.9,fd00::9   10.244.0.5:8080   1m5s   2h58m   valid"
    )
    (item,) = json.loads(listing(stays).json())["items"]
    assert item["client"] == {
        "address": None,
        "netns_cookie": 4026,
        "pod_addresses": ["10.244.0.9", "fd00::9"],
    }
    assert (item["idle_s"], item["left_s"]) == (65.0, 10_735.0)


def test_a_namespace_without_a_known_address_is_shown_by_its_cookie() -> None:
    assert judge([entry(POD)], NAMES, RULES, {}, NOW)[0].client == "netns 4026"
    assert judge([entry(ADDRESS)], NAMES, RULES, {}, NOW)[0].client == "192.0.2.7"


@pytest.mark.parametrize("cookie", [1, 4026, 1 << 32, (7 << 32) | 5])
def test_a_client_is_a_namespace_by_both_halves_of_its_cookie(cookie: int) -> None:
    assert unpack_client(struct.pack("=Q8x", cookie)) == Client(None, cookie)
    assert unpack_client(ip_bytes("192.0.2.7")) == ADDRESS


def test_the_nodes_own_processes_are_one_client_by_name() -> None:
    assert judge([entry(POD)], NAMES, RULES, {}, NOW, own_netns=4026)[0].client == "the node itself"


def test_an_entry_that_does_not_count_any_more_says_why() -> None:
    assert state(entry(POD, idle_s=10_800)) == "valid"
    assert state(entry(POD, idle_s=10_801)) == "expired"
    assert state(entry(POD, TWO)) == "backend gone"
    assert state(entry(POD, service_id=8)) == "unused"


def test_without_entries_it_says_why_there_may_be_none() -> None:
    assert listing([]).text().startswith("No client stays with a backend")
    assert "No affinity entry contains 'x'" in listing([], "x").text()
