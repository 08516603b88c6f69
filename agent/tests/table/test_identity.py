"""Numbers of Service ports: the same after a restart, never shared."""

import pytest
from handover_agent import identity
from handover_agent.identity import Identities, candidates

pytestmark = pytest.mark.unit


def test_a_service_port_has_the_same_number_in_every_process() -> None:
    assert Identities().number("default/web:http/TCP") == Identities().number("default/web:http/TCP")
    assert 0 < Identities().number("default/web:http/TCP") < 1 << 32


def test_two_ports_whose_hashes_meet_get_different_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "candidates", lambda service: iter([7, 7, len(service)]))
    numbers = Identities()
    assert [numbers.number("a"), numbers.number("bb"), numbers.number("a")] == [7, 2, 7]


def test_after_a_restart_each_keeps_the_number_that_the_kernel_has_for_it() -> None:
    second = list(candidates("default/web:http/TCP"))[1]
    numbers = Identities()
    assert numbers.adopt("default/web:http/TCP", second)
    assert numbers.number("default/web:http/TCP") == second


def test_a_number_that_was_another_services_is_not_adopted() -> None:
    numbers = Identities()
    assert not numbers.adopt("default/web:http/TCP", next(candidates("default/other:http/TCP")))
    taken = next(candidates("default/web:http/TCP"))
    assert numbers.adopt("default/web:http/TCP", taken)
    assert not numbers.adopt("default/web:http/TCP", list(candidates("default/web:http/TCP"))[1])


def test_forgotten_ports_free_their_numbers() -> None:
    numbers = Identities()
    numbers.number("a")
    numbers.number("b")
    numbers.keep({"b"})
    assert len(numbers) == 1
    assert numbers.adopt("a", next(candidates("a")))


def test_when_all_candidates_are_taken_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "candidates", lambda _: iter([7]))
    numbers = Identities()
    numbers.number("a")
    with pytest.raises(RuntimeError, match="no free number for b"):
        numbers.number("b")
