"""Structural schemas from pydantic models, because the API server refuses what pydantic writes.

pydantic speaks JSON Schema with `$ref`, `null` and titles; a CustomResourceDefinition wants one inlined tree
in which every node has a type. Everything here is a pure function of dicts, so that the rules can be read and
tested without a cluster.
"""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any

from pydantic import BaseModel

from handover_api import duration

Schema = dict[str, Any]

IS_DURATION = f"self.matches('{duration.PATTERN}')"

# Said in CEL instead of a pattern: the API server answers a failed pattern with the expression itself, and
# nobody learns from that what to write.
DURATION_RULE: Schema = {
    "rule": IS_DURATION,
    "message": "is no duration: write it as 30s, 1m30s or 500ms",
    "reason": "FieldValueInvalid",
}

LONGEST = "8760h"
"""A year: longer than anybody waits, and short enough to be added to a time."""

DURATION_BOUND: Schema = {
    "rule": f"!{IS_DURATION} || (self.matches('^([0-9]{{1,6}}(ms|s|m|h))+$') && duration(self) <= duration('{LONGEST}'))",
    "message": f"must be at most {LONGEST}, in numbers of at most 6 digits",
    "reason": "FieldValueInvalid",
}

_ORDER = ("description", "type", "format", "anyOf", "enum", "default")
_DROPPED = ("title", "$defs")
_INT_OR_STRING = {"integer", "string"}


class UnsupportedSchemaError(ValueError):
    """A model uses a construct that has no structural form."""


def of(model: type[BaseModel], *, defaults: bool = True) -> Schema:
    """The structural schema of a model, by the names that its fields have on the wire.

    With `defaults=False` the API server fills nothing in: right for a status, where a value that nobody
    observed must not appear. Raises UnsupportedSchemaError when a field cannot be expressed.
    """
    raw = model.model_json_schema(by_alias=True, mode="validation")
    return _structural(raw, raw.get("$defs", {}), model.__name__, defaults)


def add_rules(schema: Schema, rules: Mapping[str, list[Schema]]) -> Schema:
    """A copy of the schema with CEL rules added at dotted paths of properties; the empty path is the root."""
    result = deepcopy(schema)
    for path, added in rules.items():
        node = result
        for name in path.split(".") if path else []:
            if name not in node.get("properties", {}):
                raise UnsupportedSchemaError(f"a rule is meant for {path!r}, and there is no field {name!r}")
            node = node["properties"][name]
        node["x-kubernetes-validations"] = [*node.get("x-kubernetes-validations", []), *added]
    return result


def set_list_types(schema: Schema, types: Mapping[str, Schema]) -> Schema:
    """A copy of the schema in which the lists at dotted paths say how server-side apply merges them."""
    result = deepcopy(schema)
    for path, extra in types.items():
        node = result
        for name in path.split("."):
            node = node["properties"][name]
        if node.get("type") != "array":
            raise UnsupportedSchemaError(f"{path!r} should be a list, and is {node.get('type')!r}")
        node.update(extra)
    return result


def walk(schema: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    """Every node of a structural schema with its dotted path: `a.b`, `a[]` a list's items, `a{}` a map's."""
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from walk(child, f"{path}.{name}" if path else name)
    if isinstance(schema.get("items"), dict):
        yield from walk(schema["items"], f"{path}[]")
    if isinstance(schema.get("additionalProperties"), dict):
        yield from walk(schema["additionalProperties"], f"{path}{{}}")


def _structural(raw: Schema, defs: Mapping[str, Schema], path: str, defaults: bool) -> Schema:
    node = _resolve(raw, defs)
    node = _without_null(node, defs, path)
    for name in _DROPPED:
        node.pop(name, None)
    if "const" in node:
        node["enum"] = [node.pop("const")]
    if node.get("additionalProperties") is False or node.get("additionalProperties") is True:
        node.pop("additionalProperties")
    if not defaults or node.get("default", ...) is None:
        node.pop("default", None)
    if "anyOf" in node:
        node = _int_or_string(node, path)
    elif "type" not in node:
        raise UnsupportedSchemaError(f"{path}: no type; a structural schema needs one for every field")
    if node.get("type") == "integer":
        node.setdefault("format", "int64")
    if node.get("pattern") == duration.PATTERN:
        del node["pattern"]
        node["x-kubernetes-validations"] = [deepcopy(DURATION_RULE), deepcopy(DURATION_BOUND)]
    if "items" in node:
        node["items"] = _structural(node["items"], defs, f"{path}[]", defaults)
    if isinstance(node.get("additionalProperties"), dict):
        node["additionalProperties"] = _structural(
            node["additionalProperties"], defs, f"{path}{{}}", defaults
        )
    if "properties" in node:
        required = node.get("required", [])
        node["properties"] = {
            name: _with_parent_default(
                _structural(child, defs, f"{path}.{name}", defaults), defaults and name not in required
            )
            for name, child in node["properties"].items()
        }
    return {name: node[name] for name in sorted(node, key=_place)}


def _place(name: str) -> int:
    """Where a reader looks for a key: what it is first, what is inside it last."""
    return _ORDER.index(name) if name in _ORDER else len(_ORDER) + (name in ("properties", "items"))


def _resolve(raw: Schema, defs: Mapping[str, Schema]) -> Schema:
    """Put a referred-to schema in the place of its `$ref`; what stands beside the reference wins."""
    node = deepcopy(raw)
    while "$ref" in node:
        reference = node.pop("$ref")
        node = {**deepcopy(defs[reference.rsplit("/", 1)[-1]]), **node}
    return node


def _without_null(node: Schema, defs: Mapping[str, Schema], path: str) -> Schema:
    """Merge `anyOf: [X, null]` into X: in Kubernetes an optional field is left out, never null."""
    branches = [branch for branch in node.get("anyOf", []) if branch.get("type") != "null"]
    if "anyOf" not in node or len(branches) == len(node["anyOf"]):
        return node
    if len(branches) != 1:
        raise UnsupportedSchemaError(f"{path}: optional of several types has no structural form")
    siblings = {name: value for name, value in node.items() if name != "anyOf"}
    return {**_resolve(branches[0], defs), **siblings}


def _int_or_string(node: Schema, path: str) -> Schema:
    """The one union that Kubernetes knows: no type of its own, and a marker for kubectl and apply."""
    if {branch.get("type") for branch in node["anyOf"]} != _INT_OR_STRING:
        raise UnsupportedSchemaError(f"{path}: of all unions only int | str has a structural form")
    return {
        **node,
        "anyOf": [{"type": "integer"}, {"type": "string"}],
        "x-kubernetes-int-or-string": True,
    }


def _with_parent_default(node: Schema, wanted: bool) -> Schema:
    """Default an object to `{}`: the API server applies inner defaults only where the parent exists."""
    if wanted and "default" not in node and "properties" in node and not node.get("required"):
        node["default"] = {}
    return node
