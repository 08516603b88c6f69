"""What frontends were a moment ago."""

import pytest
from handover_agent.lately import Lately
from handover_agent.table import Entry, FrontendKey, Protocol, ip_bytes

pytestmark = pytest.mark.unit

WEB, DNS = (FrontendKey(ip_bytes(f"10.96.0.{n}"), 80, Protocol.TCP) for n in (1, 2))
ONE, TWO = (Entry((), name) for name in ("default/one:/TCP", "default/two:/TCP"))


def test_everything_within_the_time_is_told_and_nothing_older() -> None:
    now = [0.0]
    lately = Lately(lambda: now[0])
    lately.note({WEB: ONE})
    now[0] = 5.0
    lately.note({WEB: None, DNS: TWO})
    assert lately.within(10) == {WEB: [None, ONE], DNS: [TWO]}
    assert lately.within(2) == {WEB: [None], DNS: [TWO]}
    now[0] = 12.0
    assert lately.within(10) == {WEB: [None], DNS: [TWO]}


def test_what_is_older_than_anybody_asks_for_is_forgotten() -> None:
    now = [0.0]
    lately = Lately(lambda: now[0])
    lately.note({WEB: ONE})
    now[0] = 3600.0
    lately.note({DNS: TWO})
    assert lately.within(7200) == {DNS: [TWO]}
