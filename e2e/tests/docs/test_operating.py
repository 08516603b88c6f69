"""docs/operating.md explains every word that the code says to people, and what it tells them to do by hand is right."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from handover_agent.metrics import Exporter, Figures
from handover_agent.metrics import registry as registry_of
from handover_agent.sync import Sync
from handover_api.nodemigration import NodeMigrationStatus
from handover_operator.metrics import Metrics
from handover_operator.reasons import Reason
from prometheus_client import CollectorRegistry

from e2e.lab.paths import CHECKOUT

pytestmark = pytest.mark.unit

DOCUMENT = (CHECKOUT / "docs" / "operating.md").read_text(encoding="utf-8")
EXPLAINED = frozenset(
    name
    for cell in re.findall(r"^\| (.*?) \|", DOCUMENT, re.MULTILINE)
    for name in re.findall(r"`(\w+)`", cell)
)
"""What stands in the first column of some table."""
WHERE_THE_WHOLE_STANDS = frozenset(
    {
        Reason.MIGRATING,
        Reason.MIGRATED,
        Reason.PAUSED,
        Reason.ROLLING_BACK,
        Reason.REVERSING,
        Reason.REVERSED,
        Reason.DELETING,
    }
)
"""Told in a sentence: there is nothing to be done about these."""

AGENT = CHECKOUT / "agent" / "handover_agent"
SAMPLES = sorted((CHECKOUT / "operator" / "tests" / "samples").glob("daemonset-*.json"))


def reasons_of_faults() -> Iterator[tuple[str, str | None]]:
    """Each reason that the agent's code gives a fault, with its file; None where it is not written out there."""
    for path in sorted(AGENT.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            given = _reason_in(node)
            if given is not None:
                value = given.value if isinstance(given, ast.Constant) else None
                yield str(path.relative_to(AGENT)), value if isinstance(value, str) else None


def _reason_in(node: ast.AST) -> ast.expr | None:
    if not isinstance(node, ast.Call):
        return None
    called = getattr(node.func, "id", getattr(node.func, "attr", ""))
    if called in ("Blocked", "_block"):
        return node.args[0]
    if called == "Fault":
        return next(keyword.value for keyword in node.keywords if keyword.arg == "reason")
    return None


FAULTS = sorted({reason for _, reason in reasons_of_faults() if reason is not None})


def names_in(registry: CollectorRegistry) -> list[str]:
    """The metrics as they are scraped."""
    return [f"{m.name}_total" if m.type == "counter" else m.name for m in registry.collect()]


METRICS = [
    *names_in(Metrics().registry),
    *names_in(registry_of(Exporter(lambda: Figures(NodeMigrationStatus(), Sync())))),
]


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_of_the_operators_is_explained(reason: Reason) -> None:
    if reason in WHERE_THE_WHOLE_STANDS:
        assert f"`{reason}`" in DOCUMENT
    else:
        assert reason in EXPLAINED


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_of_the_agents_is_explained(fault: str) -> None:
    assert fault in EXPLAINED


def test_the_reasons_of_faults_are_written_out_where_they_are_given() -> None:
    assert {"KubeProxyReturned", "StepFailed", "NodeReplaced", "HealthPortInUse"} <= set(FAULTS)
    assert {file for file, reason in reasons_of_faults() if reason is None} == {"ladder/machine.py"}, (
        "the ladder tells on what others have raised; who else does not write a reason out hides it from this test"
    )


@pytest.mark.parametrize("metric", METRICS)
def test_every_metric_is_explained(metric: str) -> None:
    assert metric in EXPLAINED


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
def test_kube_proxys_daemonset_is_put_back_by_hand_as_it_was(sample: Path) -> None:
    recorded = json.loads(sample.read_text(encoding="utf-8"))
    before, changed = recorded["before"], recorded["prepared"]
    record = json.loads(changed["metadata"]["annotations"]["handover.dev/original"])

    found = re.search(r"--type json -p '(\[.*?\])'", DOCUMENT, re.DOTALL)
    assert found is not None
    operations: list[dict[str, Any]] = json.loads(found[1])
    for operation in operations:
        if operation["path"].endswith("/type"):
            operation["value"] = record["updateStrategy"]["type"]
        if operation["path"].endswith("/affinity") and record["affinity"] is not None:
            operation |= {"op": "add", "value": record["affinity"]}
        patch(changed, operation)

    assert changed["spec"] == before["spec"]
    assert "handover.dev/original" not in changed["metadata"].get("annotations", {})


def patch(item: dict[str, Any], operation: dict[str, Any]) -> None:
    """One operation of a JSON patch (RFC 6902) on an object."""
    *way, last = (part.replace("~1", "/") for part in operation["path"].split("/")[1:])
    for part in way:
        item = item[part]
    if operation["op"] == "remove":
        del item[last]
    else:
        item[last] = operation["value"]
