"""What people and Prometheus see of a running agent: names on disk, logs, metrics."""

import json
import logging
from datetime import UTC, datetime
from pathlib import Path

import pytest
from handover_agent.logs import Json, Text
from handover_agent.metrics import Exporter, Figures, registry
from handover_agent.names import NamesFile
from handover_agent.strays import Strayed
from handover_agent.sync import Sync
from handover_api.base import Rung
from handover_api.nodemigration import NodeMigrationStatus, ProbeResult, Probes
from prometheus_client.exposition import generate_latest

pytestmark = pytest.mark.unit


def test_names_are_written_only_when_they_change(tmp_path: Path) -> None:
    path = tmp_path / "names.json"
    names = NamesFile(path)
    names.write({7: "default/web:http/TCP"})
    written = path.stat().st_ino
    names.write({7: "default/web:http/TCP"})
    assert path.stat().st_ino == written
    assert NamesFile(path).read() == {7: "default/web:http/TCP"}
    names.remove()
    names.remove()
    assert NamesFile(path).read() == {}
    path.write_text("[")
    assert NamesFile(path).read() == {}


def record(**fields: object) -> logging.LogRecord:
    made = logging.LogRecord("handover_agent.x", logging.WARNING, __file__, 1, "probes %s", ("failed",), None)
    vars(made).update(fields)
    return made


def test_log_lines_have_their_fields_and_quote_what_needs_it() -> None:
    line = Text().format(record(node="n1", error="no answer"))
    assert line.partition(" ")[2] == 'warning probes failed node=n1 error="no answer"'
    document = json.loads(Json().format(record(node="n1", failures=3)))
    assert (document["message"], document["node"], document["failures"]) == ("probes failed", "n1", 3)


def test_metrics_tell_rung_pressure_probes_and_counters() -> None:
    at = datetime(2026, 5, 1, tzinfo=UTC)
    figures = Figures(
        status=NodeMigrationStatus(
            rung=Rung.SOLE,
            old_flows=3,
            probes=Probes(
                latest=ProbeResult(at=at, path="ebpf", attempts=50, failures=1, p99_microseconds=2000)
            ),
        ),
        sync=Sync(
            open=True, in_sync=True, frontends=25, backends=50, last_synced=at, failed=9, full={"backends": 7}
        ),
        fill_ratios={"frontends": 0.25, "backends": 1.0},
        counters={"error_region": 2},
        strays=Strayed(entries=4, flows=5, sockets=6),
    )
    text = generate_latest(registry(Exporter(lambda: figures))).decode()
    for line in (
        "handover_rung 3.0",
        'handover_rung_info{rung="Sole"} 1.0',
        'handover_map_pressure_ratio{map="frontends"} 0.25',
        'handover_map_full{map="frontends"} 0.0',
        'handover_map_full{map="backends"} 7.0',
        "handover_frontends_failed 9.0",
        "handover_old_flows 3.0",
        'handover_probe_failures{path="ebpf",round="latest"} 1.0',
        'handover_probe_seconds{path="ebpf",quantile="0.99",round="latest"} 0.002',
        'handover_datapath_total{counter="error_region"} 2.0',
        "handover_conntrack_udp_deleted_total 4.0",
        "handover_flows_udp_deleted_total 5.0",
        "handover_sockets_told_total 6.0",
    ):
        assert line in text.splitlines()
