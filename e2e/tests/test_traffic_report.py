"""One report out of many: the books balance, phases of one name are one, quantiles are within their error."""

import json
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2e.netns import Inside
from e2e.traffic.client.control import Control
from e2e.traffic.client.ledger import Ledger, bucket, bucket_top
from e2e.traffic.client.loop import Loop
from e2e.traffic.collector import Address, Collector, CollectorError, ask
from e2e.traffic.report import Failure, merge, quantile_us

pytestmark = pytest.mark.unit


@given(st.integers(0, 10**10))
def test_a_bucket_holds_its_duration_within_its_error(microseconds: int) -> None:
    top = bucket_top(bucket(microseconds))
    assert microseconds <= top <= microseconds * 1.0625 + 1


@given(st.lists(st.integers(0, 10**7), min_size=1), st.sampled_from([0.5, 0.99, 1.0]))
def test_a_quantile_is_no_less_than_that_share_and_no_more_than_the_error_above_it(
    durations: list[int], share: float
) -> None:
    found = quantile_us(Counter(bucket(d) for d in durations), share)
    assert found is not None
    exact = sorted(durations)[max(0, -int(-share * len(durations) // 1) - 1)]
    assert exact <= found <= exact * 1.0625 + 1


def test_the_quantile_of_nothing_is_none() -> None:
    assert quantile_us({}, 0.5) is None


def client(name: str, ledger: Ledger) -> dict[str, Any]:
    data = {
        "client": name,
        "id": name,
        "at": ledger.phases[-1].began + 1,
        "cpu_s": 0.0,
        "held": 1,
        "held_wanted": 1,
        "lost": ledger.lost,
        "phases": ledger.as_json(0),
        "failures": list(ledger.failures),
        "targets": [],
    }
    return json.loads(json.dumps(data))  # type: ignore[no-any-return]


def test_clients_are_added_up_by_phase_and_a_name_that_comes_again_is_the_same_phase() -> None:
    reports = []
    for name in ("n1/pod", "n2/pod"):
        ledger = Ledger("baseline")
        for phase in ("soak", "n2 up", "soak"):
            ledger.enter(phase)
            tally = ledger.tally("tcp4 new")
            tally.asked += 2
            tally.connected(0.001)
            tally.answer(2.0)
            ledger.loss(tally, "tcp4 new", "reset", "10.96.0.1:80")
        reports.append(client(name, ledger))
    report = merge(reports)
    assert [phase.name for phase in report.phases] == ["baseline", "soak", "n2 up"]
    soak = report.phase("soak").streams["tcp4 new"]
    assert (soak.asked, soak.answered, soak.opened, soak.slow) == (8, 4, 4, 4)
    assert soak.lost == Counter({"reset": 4})
    assert soak.under_way == 0
    assert report.lost == 6
    assert len(report.failures) == 6
    with pytest.raises(KeyError, match="baseline, soak, n2 up"):
        report.phase("way back")


def test_a_client_that_is_gone_is_a_loss() -> None:
    failure = Failure(0.0, "n1/pod", "client", "client-gone", "10.244.1.2")
    assert merge([client("n1/pod", Ledger("soak"))], [("soak", failure)]).lost == 1


class FakeClient:
    """A control port with a ledger behind it, in a thread."""

    def __init__(self, name: str) -> None:
        self.name, self.id = name, name
        self.ledger = Ledger("start")
        self.loop = Loop()
        self.control = Control(self.loop, 0, self._answer)
        self.thread = threading.Thread(target=self.loop.run, daemon=True)
        self.thread.start()

    def _answer(self, method: str, path: str, query: dict[str, str], body: bytes) -> object:
        if method == "POST":
            self.ledger.enter(path.removeprefix("/phase/"))
            return {}
        if path != "/report":
            raise ValueError(f"{method} {path} is nothing that this client serves")
        first = int(query["from"])
        return {**client(self.name, self.ledger), "id": self.id, "phases": self.ledger.as_json(first)}

    def close(self) -> None:
        self.loop.every(1, lambda now: self.loop.stop())
        self.thread.join()
        self.control.close()

    @property
    def address(self) -> Address:
        return Address(self.name, "127.0.0.1", self.control.port)


class Here(Inside):
    """Calls where the test runs, so that no namespace is needed."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(4)


@pytest.fixture
def clients() -> Iterator[list[FakeClient]]:
    made = [FakeClient("n1/pod"), FakeClient("n2/pod")]
    yield made
    for one in made:
        one.close()


@pytest.fixture
def collector(clients: list[FakeClient]) -> Iterator[Collector]:
    with Here() as here:
        made = Collector(here, [one.address for one in clients], every_s=0.02)
        made.start()
        yield made
        made.close()


def test_the_collector_moves_every_client_to_a_phase_and_waits_for_its_last_attempts(
    clients: list[FakeClient], collector: Collector
) -> None:
    collector.phase("n1 up")
    tally = clients[0].ledger.tally("tcp4 new")
    tally.asked = 1
    collector.phase("soak")
    threading.Timer(0.2, lambda: tally.answer(0.2)).start()
    report = collector.settled("n1 up")
    assert report.phase("n1 up").total.answered == 1
    assert [phase.name for phase in report.phases] == ["start", "n1 up", "soak"]


def test_a_client_that_restarts_is_a_loss(clients: list[FakeClient], collector: Collector) -> None:
    collector.phase("soak")
    clients[1].id = "another"
    collector.poll()
    collector.poll()
    assert collector.report().phase("soak").lost() == {"client": {"client-restarted": 1}}


def test_a_client_that_refuses_says_why(clients: list[FakeClient]) -> None:
    with pytest.raises(CollectorError, match="n1/pod: GET /nothing: ValueError: GET /nothing is nothing"):
        ask(clients[0].address, "GET", "/nothing")
