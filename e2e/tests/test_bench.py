"""The benchmark's arithmetic and what it writes, without a lab."""

import base64
import itertools
import json
import os
import signal
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest

from e2e.bench import crowd, goals, machine, mapmemory, planting, plot, report
from e2e.bench.__main__ import main
from e2e.bench.inside import client
from e2e.bench.processes import descendants, runs
from e2e.bench.proxies import start_times
from e2e.bench.results import (
    IPTABLES,
    NFTABLES,
    NONE,
    OURS,
    PACKET,
    Results,
    ResultsError,
    Sample,
    State,
)
from e2e.bench.turns import rotated
from e2e.trial import until

pytestmark = pytest.mark.unit

QUIET = State("connect", 10_000, 30.0, 1.5, 0.1)


def results(*samples: Sample) -> Results:
    found = Results({"commit": "abc", "kernel": "6.18"})
    found.add(samples, QUIET)
    return found


def verdict(found: Results, start: str) -> goals.Verdict:
    return next(v for v in goals.verdicts(found) if v.what.startswith(start))


def test_a_ratio_is_of_values_of_one_round_so_that_a_slow_round_slows_nobody() -> None:
    assert goals.paired([10.0, 22.0, 400.0], [10.0, 20.0, 400.0]) == 1.0


def test_a_connect_that_is_a_tenth_slower_than_without_a_proxy_misses_the_goal() -> None:
    slow = results(
        Sample("connect", 10_000, NONE, (40.0, 50.0)), Sample("connect", 10_000, OURS, (44.0, 55.0))
    )
    found = verdict(slow, "TCP connect p50, against no proxy")
    assert (found.found, found.reached) == ("1.10", False)


def test_a_goal_is_judged_at_the_largest_size_that_was_measured_and_says_which() -> None:
    short = results(
        Sample("connect", 1_000, NONE, (40.0,)),
        Sample("connect", 1_000, OURS, (40.0,)),
        Sample("connect", 1_000, IPTABLES, (80.0,)),
    )
    found = verdict(short, "TCP connect p50, against kube-proxy iptables")
    assert (found.what.endswith("1,000 Services"), found.found, found.reached) == (True, "0.50", True)


def test_what_was_not_measured_is_neither_reached_nor_missed() -> None:
    found = results(Sample("connect", 10_000, NONE, (40.0,)), Sample("connect", 10_000, OURS, (40.0,)))
    packet = [v for v in goals.verdicts(found) if "packet path" in v.what]
    assert {(v.found, v.reached) for v in packet} == {("not measured", None)}
    assert verdict(found, "the same, 10,000 against 10,000").reached is None


def test_sizes_are_compared_through_what_no_proxy_took_beside_them() -> None:
    found = results(
        Sample("connect", 10, NONE, (40.0,)),
        Sample("connect", 10, OURS, (40.0,)),
        Sample("connect", 30_000, NONE, (80.0,)),  # the machine was twice as slow at that hour
        Sample("connect", 30_000, OURS, (82.0,)),
    )
    growth = verdict(found, "the same, 30,000 against 10")
    assert (growth.found, growth.reached) == ("1.02", True)


def test_throughput_has_to_be_high_and_memory_low() -> None:
    found = results(
        Sample("stream-put", 10_000, NONE, (1e9,)),
        Sample("stream-put", 10_000, OURS, (0.99e9,)),
        Sample("memory", 10_000, OURS, (151.0,)),
    )
    assert verdict(found, "bytes/s of one connection (put), socket").reached is True
    assert [v.reached for v in goals.verdicts(found) if v.what == "agent's memory, 10,000 Services"] == [
        False
    ]


def test_results_are_the_same_after_a_restart(tmp_path: Path) -> None:
    found = results(Sample("connect", 10, OURS, (1.5, 2.0)), Sample("connect", 10, PACKET, note="not served"))
    found.save(tmp_path / "results.json")
    again = Results.resume(tmp_path / "results.json", {"commit": "abc"}, ["commit"])
    assert (again.samples, again.states, again.about) == (found.samples, found.states, found.about)
    assert again.done("connect", 10_000)
    assert not again.done("connect", 10)


def test_a_run_does_not_go_on_with_the_figures_of_other_code(tmp_path: Path) -> None:
    results(Sample("connect", 10, OURS, (1.5,))).save(tmp_path / "results.json")
    with pytest.raises(ResultsError, match=r"'abc' then, 'def' now.*--fresh"):
        Results.resume(tmp_path / "results.json", {"commit": "def"}, ["commit"])


@pytest.mark.parametrize("text", ["", "{}", '{"format": 0}', '{"format": 1, "samples": 3}'])
def test_a_file_that_holds_no_results_is_refused_with_what_to_do(tmp_path: Path, text: str) -> None:
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(ResultsError, match="--fresh"):
        Results.load(tmp_path / "results.json")


def test_a_step_that_is_measured_again_replaces_what_it_found_before() -> None:
    found = results(Sample("connect", 10, OURS, (1.0,)))
    found.add([Sample("connect", 10, OURS, (2.0,))], QUIET)
    assert [s.values for s in found.samples] == [(2.0,)]
    assert len(found.states) == 1


def test_the_table_has_the_median_and_the_ratio_to_no_proxy() -> None:
    found = report.markdown(
        results(
            Sample("connect", 10_000, NONE, (40.0, 41.0, 42.0)),
            Sample("connect", 10_000, OURS, (40.0, 41.0, 42.0)),
            Sample("connect", 10_000, NFTABLES, (80.0, 82.0, 84.0)),
            Sample("connect", 10_000, PACKET, note="not measured: this way does not serve it"),
        )
    )
    assert "| TCP connect p50, µs | 10,000 | 41.0 |  |  | 82.0 (2.00) | 41.0 (1.00) |  |" in found
    assert (
        "- TCP connect p50, µs: packet at 10,000 Services: not measured: this way does not serve it" in found
    )
    assert "commit: abc" in found
    assert "| connect | 10,000 | 30 | 1.5 | 0.10 |" in found


def test_the_docs_keep_what_stands_around_the_table(tmp_path: Path) -> None:
    document = tmp_path / "benchmark.md"
    document.write_text(f"# Title\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    report.put_into(document, "new")
    assert document.read_text() == f"# Title\n{report.BEGIN}\nnew\n{report.END}\nafter\n"


def test_a_document_without_a_place_for_the_table_is_left_alone(tmp_path: Path) -> None:
    document = tmp_path / "benchmark.md"
    document.write_text(f"# Title\n{report.END}\n{report.BEGIN}\n")
    with pytest.raises(ResultsError, match="must have the lines"):
        report.put_into(document, "new")


def test_the_plot_has_a_line_for_each_way_that_was_measured_and_stays_inside_its_panel() -> None:
    found = results(
        *(Sample("connect", size, NONE, (40.0,)) for size in (10, 1_000)),
        *(Sample("connect", size, OURS, (float(value),)) for size, value in ((10, 38), (1_000, 300))),
    )
    picture = ElementTree.fromstring(plot.svg(found))
    drawn = list(picture.iter("{http://www.w3.org/2000/svg}polyline"))
    assert [line.get("stroke") for line in drawn] == [plot.COLOURS[NONE], plot.COLOURS[OURS]]
    for line in drawn:
        for point in (line.get("points") or "").split():
            x, y = map(float, point.split(","))
            assert 0 <= x <= 300
            assert 0 <= y <= 240


def test_a_plot_of_nothing_and_of_one_size_can_be_drawn() -> None:
    ElementTree.fromstring(plot.svg(Results()))
    ElementTree.fromstring(plot.svg(results(Sample("connect", 10, NONE, (40.0,)))))


def test_the_crowds_addresses_differ_and_are_valid() -> None:
    addresses = [crowd.cluster_ip(index) for index in range(30_000)]
    assert len(set(addresses)) == 30_000
    assert addresses[0] == "10.96.64.1"
    assert all(int(part) < 255 for address in addresses for part in address.split("."))
    with pytest.raises(ValueError, match="48000"):
        crowd.cluster_ip(crowd.MOST)


@pytest.mark.parametrize("services", [1, 10, 499, 500, 501, 30_000])
def test_a_sample_is_spread_over_the_crowd_and_has_its_last_service(services: int) -> None:
    found = crowd.sample(services)
    assert found[-1] == services - 1
    assert len(set(found)) == len(found) == min(services, 500)
    assert all(0 <= index < services for index in found)
    gaps = {after - before for before, after in itertools.pairwise(found)}
    assert not gaps or max(gaps) - min(gaps) <= 1


def test_endpoints_that_flap_change_with_every_write() -> None:
    written: dict[str, int] = {}
    for item in itertools.islice(crowd.flapping(3, ["a", "b"], "n1"), 12):
        count = len(item["endpoints"])
        assert count != written.get(item["metadata"]["name"], 2)
        written[item["metadata"]["name"]] = count


def test_every_way_begins_a_round_in_its_turn() -> None:
    assert [rotated(["a", "b", "c"], number) for number in range(4)] == [
        ["a", "b", "c"],
        ["b", "c", "a"],
        ["c", "a", "b"],
        ["a", "b", "c"],
    ]


def test_a_start_is_timed_by_what_the_agent_said() -> None:
    lines = [
        {"message": "starting", "time": "2026-01-01T00:00:00.000Z"},
        {
            "message": "listed",
            "resource": "pods kube-system",
            "seconds": 0.5,
            "time": "2026-01-01T00:00:00.600Z",
        },
        {"message": "listed", "resource": "services", "seconds": 0.75, "time": "2026-01-01T00:00:02.000Z"},
        {
            "message": "listed",
            "resource": "endpointslices.discovery.k8s.io",
            "seconds": 1.0,
            "time": "2026-01-01T00:00:02.250Z",
        },
        {"message": "programs loaded", "seconds": 1.5, "time": "2026-01-01T00:00:03.800Z"},
        {"message": "maps filled", "seconds": 0.2, "time": "2026-01-01T00:00:04.000Z"},
    ]
    log = "\n".join(["Traceback", *map(json.dumps, lines), "{}", "3"])
    assert start_times(log) == {"sync": 2.75, "list": 1.0, "load": 1.5, "fill": 0.2}
    assert start_times("\n".join(map(json.dumps, lines[:-1]))) == {}


def test_only_maps_count_as_map_memory() -> None:
    assert mapmemory.parse("pos:\t0\nmap_type:\t1\nmax_entries:\t9\nmemlock:\t4096\n") == 4096
    assert mapmemory.parse("prog_type:\t3\nprog_jited:\t1\nmemlock:\t4096\n") == 0


def test_whom_a_process_started_is_known_until_all_have_ended() -> None:
    with subprocess.Popen(["sh", "-c", "sleep 600 & sleep 600 & wait"]) as shell:
        try:
            until("both are there", lambda: len(descendants(shell.pid)) == 2, 10)
            started = descendants(shell.pid)
            assert all(map(runs, started))
        finally:
            for pid in descendants(shell.pid):
                os.kill(pid, signal.SIGKILL)
    until("all have ended", lambda: not any(map(runs, [shell.pid, *started])), 10)


def test_waiting_for_disks_is_not_being_busy() -> None:
    ticks = machine._TICKS
    text = f"cpu  {ticks} {ticks} {ticks} 500 900 0 {ticks} 0 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n"
    assert machine.parse_stat(text) == 4.0
    assert machine.parse_usage("usage_usec 1500000\nuser_usec 1\n") == 1.5


def test_others_are_charged_with_what_the_lab_did_not_take() -> None:
    before, after = machine.Busy(10.0, 100.0, 50.0), machine.Busy(20.0, 112.0, 57.0)
    assert after.others_since(before) == pytest.approx(0.5)


def test_a_client_answers_a_question_that_cannot_be_answered() -> None:
    question = json.dumps(
        {"do": "until", "targets": [["127.0.0.1", 1]], "wanted": True, "limit_s": 0, "pause_s": 0}
    )
    answers = list(client.answer(question.encode()))
    assert answers[0] == {"looking": True}
    assert "TimeoutError" in answers[-1]["error"]


@pytest.mark.parametrize(("failing", "told"), [(0, 0), (2, 2), (3, None)])
def test_a_hundredth_of_the_connections_may_fail(
    failing: int, told: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter([OSError(101, "Network is unreachable")] * failing + [float(n) for n in range(400)])

    def connect_us(_: tuple[str, int]) -> float:
        time = next(times)
        if isinstance(time, OSError):
            raise time
        return time

    monkeypatch.setattr(client, "connect_us", connect_us)
    question = json.dumps({"do": "connect", "targets": [["10.96.64.1", 80]], "count": 200})
    first = next(client.answer(question.encode()))
    if told is None:
        assert "Network is unreachable" in first["error"]
    else:
        assert first["failed"] == told
        assert first["p50"] == pytest.approx(20 + 100, abs=2)


@pytest.mark.parametrize("sizes", [["10", "10"], ["1000", "10"], ["0"], ["48001"]])
def test_sizes_that_cannot_be_measured_are_refused_before_anything_happens(
    sizes: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["--output", str(tmp_path), "--sizes", *sizes]) == 2
    assert "--sizes must be ascending" in capsys.readouterr().err


def test_what_is_planted_is_the_seed_with_its_own_name_address_and_uid() -> None:
    labels = crowd.of_service("crowd-00000")
    seed = planting.Seed(
        {
            **crowd.member(0),
            "metadata": {"name": "crowd-00000", "namespace": "crowd", "uid": "u", "resourceVersion": "7"},
        },
        {
            **crowd.endpoints(0, ["10.244.1.2"], "n1"),
            "metadata": {"name": "crowd-00000", "namespace": "crowd", "uid": "v", "labels": labels},
        },
        {
            "kind": "IPAddress",
            "metadata": {"name": crowd.cluster_ip(0), "uid": "w"},
            "spec": {"parentRef": {"resource": "services", "namespace": "crowd", "name": "crowd-00000"}},
        },
    )
    writes = list(planting.writes(seed, [251, 7]))
    assert len(writes) == 2 * planting.WRITES
    planted = {
        base64.b64decode(write.body["key"]).decode(): json.loads(base64.b64decode(write.body["value"]))
        for write in writes
    }
    assert list(planted)[:3] == [
        "/registry/ipaddresses/10.96.65.2",
        "/registry/endpointslices/crowd/crowd-00251",
        "/registry/services/specs/crowd/crowd-00251",
    ]
    address, endpoints, service = list(planted.values())[:3]
    assert address["spec"]["parentRef"] == {
        "resource": "services",
        "namespace": "crowd",
        "name": "crowd-00251",
    }
    assert endpoints["metadata"]["labels"] == crowd.of_service("crowd-00251")
    assert endpoints["endpoints"] == seed.slice["endpoints"]
    assert service["spec"]["clusterIPs"] == [service["spec"]["clusterIP"]] == ["10.96.65.2"]
    assert service["spec"]["ports"] == seed.service["spec"]["ports"]
    uids = {item["metadata"]["uid"] for item in planted.values()}
    assert len(uids) == len(planted)
    assert not uids & {"u", "v", "w"}
    assert not any("resourceVersion" in item["metadata"] for item in planted.values())
