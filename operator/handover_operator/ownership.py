"""Who owns a field of an object, as managedFields say it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class FieldOwner:
    """One manager's claim on a field."""

    manager: str
    operation: str  # Apply, or Update for everything else

    @property
    def updates(self) -> bool:
        """It wrote by create, update or patch; such a claim can be handed back, an Apply's cannot."""
        return self.operation == "Update"


def owners(item: Mapping[str, Any], path: Sequence[str]) -> list[FieldOwner]:
    """Everybody who owns a field or anything below it; the main resource only, not status."""
    found = []
    for entry in item.get("metadata", {}).get("managedFields") or []:
        node: Any = entry.get("fieldsV1", {})
        for name in path:
            node = node.get(f"f:{name}") if isinstance(node, Mapping) else None
        if node is not None and not entry.get("subresource"):
            found.append(FieldOwner(entry.get("manager", ""), entry.get("operation", "")))
    return found


def manages(item: Mapping[str, Any], manager: str) -> bool:
    """Whether a manager has any claim left that it made by apply."""
    return any(
        entry.get("manager") == manager and entry.get("operation") == "Apply"
        for entry in item.get("metadata", {}).get("managedFields") or []
    )
