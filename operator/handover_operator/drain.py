"""kube-proxy's DaemonSet, changed so that a node's label drains it, and put back exactly as it was.

Change and record are one write, so there is no moment with the one and without the other: whoever finds the
annotation can restore. Should somebody have removed it, what is ours is taken away all the same, and the rest is as
it stands. Pure: dicts in, patches out.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from handover_operator import affinity as terms
from handover_operator.ownership import FieldOwner, manages, owners

Json = dict[str, Any]

ANNOTATION = "handover.dev/original"
MANAGER = "handover-operator"

_ON_DELETE = "OnDelete"
_DEFAULT_TYPE = "RollingUpdate"
_TYPE = ("spec", "updateStrategy", "type")
_AFFINITY = ("spec", "template", "spec", "affinity")
_VERSION = 1


class RecordError(Exception):
    """The record of the original cannot be read; only a person can say what it should be."""


@dataclass(frozen=True, slots=True)
class Original:
    """What stood in the DaemonSet's fields before the first change, and who owned them."""

    update_type: str
    affinity: Json | None
    type_owner: FieldOwner | None = None
    affinity_owner: FieldOwner | None = None

    @property
    def manager(self) -> str:
        """Under whose name to put the fields back, so that the ownership is the old one too."""
        for owner in (self.affinity_owner, self.type_owner):
            if owner is not None and owner.updates:
                return owner.manager
        return MANAGER

    def text(self) -> str:
        """As the annotation holds it."""
        return json.dumps(
            {
                "version": _VERSION,
                "updateStrategy": {"type": self.update_type},
                "affinity": self.affinity,
                "owners": {
                    "updateStrategy": _owner_json(self.type_owner),
                    "affinity": _owner_json(self.affinity_owner),
                },
            },
            sort_keys=True,
            separators=(",", ":"),
        )


@dataclass(frozen=True, slots=True)
class Restoration:
    """A JSON patch, and the field manager to send it as."""

    operations: tuple[Mapping[str, Any], ...] = ()
    manager: str = MANAGER


def is_prepared(daemon_set: Mapping[str, Any]) -> bool:
    """Whether the record is there."""
    return ANNOTATION in (daemon_set["metadata"].get("annotations") or {})


def is_in_force(daemon_set: Mapping[str, Any]) -> bool:
    """Whether a labelled node is drained, and nothing else restarts by our doing."""
    return _type_of(daemon_set) == _ON_DELETE and terms.has_ours(_affinity_of(daemon_set))


def is_unrecorded(daemon_set: Mapping[str, Any]) -> bool:
    """Whether it is in force by our doing, and the record is gone."""
    return not is_prepared(daemon_set) and is_in_force(daemon_set) and manages(daemon_set, MANAGER)


def preparation(daemon_set: Mapping[str, Any]) -> Json:
    """The body to apply: our fields and the record. An existing record is kept. Raises RecordError."""
    original = recorded(daemon_set) if is_prepared(daemon_set) else original_of(daemon_set)
    metadata = daemon_set["metadata"]
    return {
        "metadata": {
            **_identity(metadata),
            "resourceVersion": metadata["resourceVersion"],
            "annotations": {ANNOTATION: original.text()},
        },
        "spec": {
            "updateStrategy": {"type": _ON_DELETE},
            "template": {
                "spec": {"affinity": terms.required_terms(terms.with_ours(_affinity_of(daemon_set)))}
            },
        },
    }


def restoration(daemon_set: Mapping[str, Any]) -> Restoration:
    """The JSON patch that puts the original back.

    Without operations when there is nothing to put back: nothing of ours, or only fields that nobody owned before, which
    fall back to what they were when we give them up. A field that somebody else has changed meanwhile keeps their
    value; only what is ours leaves it. Raises RecordError.
    """
    prepared = is_prepared(daemon_set)
    if not prepared and not is_unrecorded(daemon_set):
        return Restoration()
    original = recorded(daemon_set) if prepared else original_of(daemon_set)
    if _was_nobodys(original) and is_in_force(daemon_set) and manages(daemon_set, MANAGER):
        return Restoration()
    operations: list[Mapping[str, Any]] = [
        {
            "op": "test",
            "path": "/metadata/resourceVersion",
            "value": daemon_set["metadata"]["resourceVersion"],
        }
    ]
    # rollingUpdate stays beside OnDelete, so the type is all that has to go back.
    if _type_of(daemon_set) == _ON_DELETE and original.update_type != _ON_DELETE:
        operations.append(
            {"op": "replace", "path": "/spec/updateStrategy/type", "value": original.update_type}
        )
    operations += _affinity_back(_affinity_of(daemon_set), original.affinity)
    if prepared:
        operations.append({"op": "remove", "path": f"/metadata/annotations/{ANNOTATION.replace('/', '~1')}"})
    return Restoration(tuple(operations), original.manager)


def remains(daemon_set: Mapping[str, Any]) -> bool:
    """Whether we still claim fields; after the patch, applying `nothing_of_ours` ends that."""
    return manages(daemon_set, MANAGER)


def nothing_of_ours(daemon_set: Mapping[str, Any]) -> Json:
    """The empty apply: we give up every claim, and fields that nobody else claims go or get their default."""
    metadata = daemon_set["metadata"]
    return {"metadata": {**_identity(metadata), "resourceVersion": metadata["resourceVersion"]}}


def original_of(daemon_set: Mapping[str, Any]) -> Original:
    """What to record, from a DaemonSet without a record.

    Should our change be there without its record (somebody removed that), it is not taken for theirs.
    """
    type_owners = owners(daemon_set, _TYPE)
    update_type = _type_of(daemon_set)
    if update_type == _ON_DELETE and type_owners and all(o.manager == MANAGER for o in type_owners):
        update_type = _DEFAULT_TYPE
    affinity = _affinity_of(daemon_set)
    if terms.mentions_ours(affinity):
        affinity = terms.without_ours(affinity)
    return Original(update_type, affinity, _foreign(type_owners), _foreign(owners(daemon_set, _AFFINITY)))


def recorded(daemon_set: Mapping[str, Any]) -> Original:
    """The record. Raises RecordError when it is none of ours."""
    text = daemon_set["metadata"]["annotations"][ANNOTATION]
    try:
        record = json.loads(text)
        if record["version"] != _VERSION:
            raise ValueError(f"version {record['version']}")
        affinity = record["affinity"]
        if affinity is not None and not isinstance(affinity, dict):
            raise TypeError("affinity is no object")
        return Original(
            update_type=str(record["updateStrategy"]["type"]),
            affinity=affinity,
            type_owner=_owner_of(record["owners"]["updateStrategy"]),
            affinity_owner=_owner_of(record["owners"]["affinity"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        metadata = daemon_set["metadata"]
        raise RecordError(
            f"the annotation {ANNOTATION} of DaemonSet {metadata['namespace']}/{metadata['name']} cannot be "
            f"read ({type(error).__name__}: {error}). Set updateStrategy and affinity as they should be, and "
            "remove the annotation."
        ) from error


def _affinity_back(present: Json | None, original: Json | None) -> list[Mapping[str, Any]]:
    if not terms.mentions_ours(present):
        return []  # somebody took it away already, and whatever stands there is theirs
    left = terms.without_ours(present)
    # The record is exact down to what stands empty in it; it is right unless somebody changed more meanwhile.
    target = original if (left or None) == (terms.pruned(original) or None) else left
    path = "/" + "/".join(_AFFINITY)
    return [
        {"op": "remove", "path": path} if target is None else {"op": "add", "path": path, "value": target}
    ]


def _was_nobodys(original: Original) -> bool:
    owned = original.type_owner is not None or original.affinity_owner is not None
    return not owned and original.affinity is None and original.update_type == _DEFAULT_TYPE


def _identity(metadata: Mapping[str, Any]) -> Json:
    return {name: metadata[name] for name in ("name", "namespace", "uid")}


def _type_of(daemon_set: Mapping[str, Any]) -> str:
    return str((daemon_set["spec"].get("updateStrategy") or {}).get("type") or _DEFAULT_TYPE)


def _affinity_of(daemon_set: Mapping[str, Any]) -> Json | None:
    affinity: Json | None = daemon_set["spec"]["template"]["spec"].get("affinity")
    return affinity


def _foreign(found: list[FieldOwner]) -> FieldOwner | None:
    """The owner to remember: one that can be handed its claim back before one that cannot."""
    others = [owner for owner in found if owner.manager != MANAGER]
    return min(others, key=lambda owner: not owner.updates, default=None)


def _owner_json(owner: FieldOwner | None) -> Json | None:
    return None if owner is None else {"manager": owner.manager, "operation": owner.operation}


def _owner_of(value: Any) -> FieldOwner | None:
    return None if value is None else FieldOwner(str(value["manager"]), str(value["operation"]))
