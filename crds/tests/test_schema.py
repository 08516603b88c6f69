"""What the API server would refuse must not leave the generator."""

from datetime import datetime
from typing import Any, Literal

import pytest
from handover_api import schema
from handover_api.base import Model
from handover_api.duration import Duration
from handover_api.resources import NODE_MIGRATION, PROXY_MIGRATION, RESOURCES, Resource, definition
from pydantic import Field

pytestmark = pytest.mark.unit

FORBIDDEN = {"$ref", "$defs", "title", "const", "oneOf", "allOf", "definitions"}


def root_of(resource: Resource) -> dict[str, Any]:
    version = definition(resource)["spec"]["versions"][0]
    root: dict[str, Any] = version["schema"]["openAPIV3Schema"]
    return root


def node_at(resource: Resource, path: str) -> dict[str, Any]:
    return dict(schema.walk(root_of(resource)))[path]


@pytest.mark.parametrize("resource", RESOURCES, ids=lambda resource: resource.kind)
def test_every_node_has_a_type_and_nothing_that_a_structural_schema_forbids(resource: Resource) -> None:
    for path, node in schema.walk(root_of(resource)):
        assert not FORBIDDEN & node.keys(), path
        assert ("type" in node) != (node.get("x-kubernetes-int-or-string") is True), path
        assert node.get("type") != "null", path
        assert node.get("default", "something") is not None, path
        assert not ("properties" in node and "additionalProperties" in node), path


@pytest.mark.parametrize("resource", RESOURCES, ids=lambda resource: resource.kind)
def test_a_default_reaches_the_bottom_only_when_every_parent_has_one(resource: Resource) -> None:
    def check(node: dict[str, Any], path: str, reachable: bool) -> None:
        for name, child in node.get("properties", {}).items():
            below = f"{path}.{name}"
            there = reachable and (name in node.get("required", []) or "default" in child)
            assert reachable or "default" not in child, f"{below}: its default is never applied"
            check(child, below, there)

    check(root_of(resource)["properties"]["spec"], "spec", True)


@pytest.mark.parametrize("resource", RESOURCES, ids=lambda resource: resource.kind)
def test_the_server_fills_nothing_into_a_status(resource: Resource) -> None:
    status = root_of(resource)["properties"]["status"]
    assert [path for path, node in schema.walk(status) if "default" in node] == []


def test_conditions_are_merged_by_type() -> None:
    conditions = node_at(PROXY_MIGRATION, "status.conditions")
    assert conditions["x-kubernetes-list-type"] == "map"
    assert conditions["x-kubernetes-list-map-keys"] == ["type"]
    assert "type" in conditions["items"]["required"]


def test_max_unavailable_is_a_number_or_a_text() -> None:
    node = node_at(PROXY_MIGRATION, "spec.rollout.maxUnavailable")
    assert node["anyOf"] == [{"type": "integer"}, {"type": "string"}]
    assert node["x-kubernetes-int-or-string"] is True
    assert node["default"] == 1


def test_the_daemonset_and_the_node_cannot_be_exchanged() -> None:
    for resource, path in ((PROXY_MIGRATION, "spec.kubeProxy"), (NODE_MIGRATION, "spec.nodeName")):
        rules = [rule["rule"] for rule in node_at(resource, path)["x-kubernetes-validations"]]
        assert "self == oldSelf" in rules


def test_every_duration_says_how_to_write_one() -> None:
    for path in ("spec.rollout.soak", "spec.deadline.sole", "spec.gates.probes.timeout"):
        node = node_at(PROXY_MIGRATION, path)
        assert "pattern" not in node
        assert any("30s, 1m30s" in rule["message"] for rule in node["x-kubernetes-validations"])


def test_printer_columns_point_at_fields_that_exist() -> None:
    for resource in RESOURCES:
        paths = dict(schema.walk(root_of(resource)))
        for column in resource.columns:
            path = column.json_path.removeprefix(".")
            assert path in paths or path == "metadata.creationTimestamp", column.name


def test_an_optional_field_loses_its_null_and_keeps_its_description() -> None:
    class Sample(Model):
        since: datetime | None = Field(default=None, description="Since when.")

    node = schema.of(Sample)["properties"]["since"]
    assert node == {"description": "Since when.", "type": "string", "format": "date-time"}


def test_a_literal_becomes_an_enumeration() -> None:
    class Sample(Model):
        kind: Literal["only"] = "only"

    assert schema.of(Sample)["properties"]["kind"]["enum"] == ["only"]


def test_a_union_that_kubernetes_does_not_know_is_refused_with_its_path() -> None:
    class Sample(Model):
        wild: int | list[str]

    with pytest.raises(schema.UnsupportedSchemaError, match=r"Sample\.wild.*int \| str"):
        schema.of(Sample)


def test_an_optional_duration_is_still_checked_as_a_duration() -> None:
    class Sample(Model):
        pause: Duration | None = None

    rules = [schema.DURATION_RULE, schema.DURATION_BOUND]
    assert schema.of(Sample)["properties"]["pause"]["x-kubernetes-validations"] == rules


def test_a_rule_for_a_field_that_is_not_there_is_an_error() -> None:
    with pytest.raises(schema.UnsupportedSchemaError, match="nowhere"):
        schema.add_rules({"type": "object", "properties": {}}, {"nowhere": [{"rule": "true"}]})
