"""Node affinity with one more expression: kube-proxy stays away from nodes that carry our label.

An affinity's terms are alternatives, so the expression has to go into each of them; and the list of terms is
one atomic value for server-side apply, so the terms that were there must be written again. Pure functions.
"""

from copy import deepcopy
from typing import Any

Json = dict[str, Any]

LABEL = "handover.dev/kube-proxy"
DRAINED = "drained"
EXPRESSION: Json = {"key": LABEL, "operator": "NotIn", "values": [DRAINED]}

_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"


def with_ours(affinity: Json | None) -> Json:
    """The affinity that also keeps pods off drained nodes; what was there stays in force."""
    result = deepcopy(affinity or {})
    terms = [_term_with_ours(term) for term in _terms(result)] or [{"matchExpressions": [EXPRESSION]}]
    result.setdefault("nodeAffinity", {})[_REQUIRED] = {"nodeSelectorTerms": terms}
    return deepcopy(result)


def required_terms(affinity: Json) -> Json:
    """Only the part of an affinity that we own: what an apply of ours must hold and nothing more."""
    return {"nodeAffinity": {_REQUIRED: affinity["nodeAffinity"][_REQUIRED]}}


def has_ours(affinity: Json | None) -> bool:
    """Whether no pod can come to a drained node."""
    terms = [term for term in _terms(affinity or {}) if _selects(term)]
    return bool(terms) and all(EXPRESSION in term.get("matchExpressions", []) for term in terms)


def mentions_ours(affinity: Json | None) -> bool:
    """Whether our expression is in any term."""
    return any(EXPRESSION in term.get("matchExpressions", []) for term in _terms(affinity or {}))


def without_ours(affinity: Json | None) -> Json | None:
    """The affinity without our expression, and without what stands empty because of that."""
    result = deepcopy(affinity or {})
    kept = []
    for term in _terms(result):
        expressions = [e for e in term.get("matchExpressions", []) if e != EXPRESSION]
        if expressions == term.get("matchExpressions", []):
            kept.append(term)
            continue
        left = {**term, "matchExpressions": expressions}
        if not expressions:
            del left["matchExpressions"]
        if left:
            kept.append(left)
    if kept:
        result["nodeAffinity"][_REQUIRED]["nodeSelectorTerms"] = kept
    else:
        result.get("nodeAffinity", {}).pop(_REQUIRED, None)
    return pruned(result) or None


def pruned(value: Any) -> Any:
    """A copy without anything empty, at any depth: `{nodeAffinity: {}}` and nothing mean the same."""
    if isinstance(value, dict):
        inner = {name: pruned(child) for name, child in value.items()}
        return {name: child for name, child in inner.items() if child not in ({}, [], None)}
    if isinstance(value, list):
        return [pruned(child) for child in value]
    return value


def _terms(affinity: Json) -> list[Json]:
    required = (affinity.get("nodeAffinity") or {}).get(_REQUIRED) or {}
    terms: list[Json] = required.get("nodeSelectorTerms") or []
    return terms


def _selects(term: Json) -> bool:
    # An empty term selects no node at all; with our expression in it, it would begin to.
    return bool(term.get("matchExpressions") or term.get("matchFields"))


def _term_with_ours(term: Json) -> Json:
    expressions = term.get("matchExpressions", [])
    if not _selects(term) or EXPRESSION in expressions:
        return term
    return {**term, "matchExpressions": [*expressions, EXPRESSION]}
