"""A client stays with its server, for as long as it is wanted."""

import time
from collections.abc import Mapping
from typing import Any

import pytest

from e2e.behaviours.people import SERVER
from e2e.behaviours.service import HTTP, Service, Where
from e2e.behaviours.sides import FAMILIES, Side
from e2e.behaviours.stage import CLIENT, HOST, OUTSIDE, Stage
from e2e.trial import until

pytestmark = pytest.mark.e2e

SERVERS = {"kind": SERVER}
ALL = {"server-here", "server-next", "server-last"}
CLIENT_IP: Mapping[str, Any] = {"sessionAffinity": "ClientIP"}
NONE: Mapping[str, Any] = {"sessionAffinity": "None", "sessionAffinityConfig": None}
ENOUGH = 20  # three servers in turn, and twenty times the same: once in 10⁹


def for_s(seconds: int) -> Mapping[str, Any]:
    """Affinity that ends after so long."""
    return {**CLIENT_IP, "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": seconds}}}


def servers_of(stage: Stage, who: str, where: Where, side: Side, family: int, times: int) -> set[str]:
    """Who answers a client that asks so often."""
    return {str(a.get("by", a)) for a in stage.ask(who, "tcp", side, family, where, times=times)}


def stay(stage: Stage, whos: tuple[str, ...], where: Where) -> None:
    """Return when everybody is answered by one server only."""
    for who in whos:
        for side in stage.sides:
            for family in FAMILIES:
                until(
                    f"{who} on {side} stays with one server, IPv{family}",
                    lambda who=who, side=side, family=family: (  # type: ignore[misc]
                        len(servers_of(stage, who, where, side, family, ENOUGH)) == 1
                    ),
                    30,
                    lambda who=who, side=side, family=family: servers_of(stage, who, where, side, family, 5),  # type: ignore[misc]
                )


def both(service: Service) -> list[tuple[tuple[str, ...], Where]]:
    """The addresses, and who asks there."""
    return [((CLIENT, HOST), service.cluster()), ((CLIENT, OUTSIDE), service.node())]


def test_affinity_holds_and_may_be_switched_on_and_off(stage: Stage) -> None:
    service = stage.service("sticky", SERVERS, type="NodePort", ports=[HTTP], **CLIENT_IP)
    for whos, where in both(service):
        stay(stage, whos, where)
    service.patch({"spec": NONE})
    for whos, where in both(service):
        stage.expect(whos, where, ALL)
    service.patch({"spec": CLIENT_IP})
    for whos, where in both(service):
        stay(stage, whos, where)


def test_affinity_ends_with_its_time_out(stage: Stage) -> None:
    seconds = 1
    service = stage.service("forgetful", SERVERS, type="NodePort", ports=[HTTP], **for_s(seconds))
    cases = [
        (who, where, side, family)
        for whos, where in both(service)
        for who in whos
        for side in stage.sides
        for family in FAMILIES
    ]
    for whos, where in both(service):
        stay(stage, whos, where)
    seen: dict[int, set[str]] = {number: set() for number in range(len(cases))}

    def all_moved() -> bool:
        time.sleep(2 * seconds)  # what is waited for is this time itself
        for number, (who, where, side, family) in enumerate(cases):
            if len(seen[number]) < 2:
                seen[number] |= servers_of(stage, who, where, side, family, 1)
        return all(len(found) > 1 for found in seen.values())

    until(
        "everybody has another server once",
        all_moved,
        60,
        lambda: [(cases[n][0], str(cases[n][2]), f) for n, f in seen.items()],
    )


def test_the_addresses_of_a_service_share_it(stage: Stage) -> None:
    service = stage.service("shared", SERVERS, type="NodePort", ports=[HTTP], **CLIENT_IP)
    for _, where in both(service):
        stay(stage, (CLIENT,), where)
    for side in stage.sides:
        for family in FAMILIES:
            found = {
                address: servers_of(stage, CLIENT, where, side, family, 1)
                for address, where in (("ClusterIP", service.cluster()), ("NodePort", service.node()))
            }
            assert found["ClusterIP"] == found["NodePort"], (str(side), family, found)
