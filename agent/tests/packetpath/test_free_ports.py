"""Which ports the kernel may masquerade by."""

import pytest
from handover_agent.packetpath.rules import USUAL, free_ports, transaction

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("served", "expected"),
    [
        ((), USUAL),
        ((30000, 31000, 32767), USUAL),
        ((53, 80, 1023), USUAL),
        ((29999,), range(30000, 61000)),
        ((1024,), range(1025, 61000)),
        ((20000,), range(20001, 61000)),
        ((20000, 40000), range(40001, 61000)),
        ((20000, 30000, 45000), range(1024, 20000)),
        ((5000, 10000, 25000, 30000, 40000, 50000, 60000), range(10001, 25000)),
        ((2000, 65000), range(2001, 61000)),
        (range(1024, 60999), range(60999, 61000)),
    ],
)
def test_the_usual_ports_are_taken_if_nobody_asks_there_else_the_most_in_a_row(
    served: tuple[int, ...], expected: range
) -> None:
    assert free_ports(served) == expected


def test_a_node_that_serves_everywhere_masquerades_by_the_usual_ports() -> None:
    assert free_ports(range(1, 65536)) == USUAL


def test_all_three_protocols_are_masqueraded_by_them() -> None:
    assert transaction(range(2000, 3000)).count("masquerade to :2000-2999 fully-random") == 3
