"""kube-proxy's DaemonSet is put back as it was. The samples are what a real API server made of each case.

They are recorded by e2e/tests/operator/test_daemonset.py, which does the same with the server itself.
"""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from handover_operator import drain
from handover_operator.affinity import EXPRESSION, has_ours, pruned, with_ours, without_ours

from e2e.fakeapi import patched

pytestmark = pytest.mark.unit

SAMPLES = sorted(Path(__file__).parents[1].joinpath("samples").glob("daemonset-*.json"))
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
LINUX = {"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]}
ARM = {"key": "kubernetes.io/arch", "operator": "In", "values": ["arm64"]}


def sample(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    content = json.loads(path.read_text())
    return content["before"], content["prepared"]


def named(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    return sample(next(path for path in SAMPLES if name in path.name))


def terms(*terms: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "nodeAffinity": {
            REQUIRED: {"nodeSelectorTerms": [{"matchExpressions": expressions} for expressions in terms]}
        }
    }


def test_there_are_samples_of_every_way_in_which_a_daemonset_comes_to_be() -> None:
    assert len(SAMPLES) >= 12


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_what_is_applied_is_exactly_what_the_server_then_has(path: Path) -> None:
    before, prepared = sample(path)
    body = drain.preparation(before)
    assert body["metadata"]["uid"] == before["metadata"]["uid"]
    assert body["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]
    assert (
        prepared["metadata"]["annotations"][drain.ANNOTATION]
        == body["metadata"]["annotations"][drain.ANNOTATION]
    )
    assert drain.is_in_force(prepared)
    assert not drain.is_in_force(before)
    again = drain.preparation(prepared)
    assert again["spec"] == body["spec"], "a second preparation asks for the same"
    assert again["metadata"]["annotations"] == body["metadata"]["annotations"], "the record is kept"


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_a_restoration_gives_the_spec_that_was(path: Path) -> None:
    before, prepared = sample(path)
    back = drain.restoration(prepared)
    if not back.operations:
        assert "b2" in path.name, "only fields that were nobody's fall back by being given up"
        return
    after = patched(prepared, back.operations)
    assert after["spec"] == before["spec"]
    assert not drain.is_prepared(after)
    assert back.operations[0]["op"] == "test", "nothing is written over a newer version"


@pytest.mark.parametrize(
    ("name", "manager"),
    [
        ("a1", "kubectl-client-side-apply"),
        ("c1", "kubeadm"),
        ("b1", drain.MANAGER),  # an Apply's claim cannot be handed back
    ],
)
def test_fields_are_put_back_under_their_owners_name(name: str, manager: str) -> None:
    _, prepared = named(name)
    assert drain.restoration(prepared).manager == manager


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_without_its_record_our_change_goes_all_the_same(path: Path) -> None:
    before, prepared = sample(path)
    del prepared["metadata"]["annotations"][drain.ANNOTATION]
    assert drain.is_unrecorded(prepared)
    back = drain.restoration(prepared)
    if not back.operations:
        # Given up, they fall back to what they were: a rolling update, and no affinity.
        assert before["spec"].get("updateStrategy", {}).get("type", "RollingUpdate") == "RollingUpdate"
        assert not pruned(before["spec"]["template"]["spec"].get("affinity"))
        return
    after = patched(prepared, back.operations)["spec"]
    assert after["updateStrategy"] == before["spec"]["updateStrategy"]
    affinity = [pruned(spec["template"]["spec"].get("affinity")) or None for spec in (after, before["spec"])]
    assert affinity[0] == affinity[1], "but for what stood empty in it"
    assert not drain.is_unrecorded(before)


def test_without_a_record_there_is_nothing_to_restore() -> None:
    before, _ = named("c2")
    assert drain.restoration(before) == drain.Restoration()
    assert not drain.remains(before)


def test_a_strategy_that_somebody_changed_meanwhile_is_left_to_them() -> None:
    _, prepared = named("c2")
    prepared["spec"]["updateStrategy"] = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 5}}
    after = patched(prepared, drain.restoration(prepared).operations)
    assert after["spec"]["updateStrategy"]["rollingUpdate"] == {"maxUnavailable": 5}
    assert "affinity" not in after["spec"]["template"]["spec"]


def test_an_affinity_that_somebody_added_meanwhile_stays() -> None:
    _, prepared = named("c2")
    prepared["spec"]["template"]["spec"]["affinity"]["podAffinity"] = {"theirs": True}
    after = patched(prepared, drain.restoration(prepared).operations)
    assert after["spec"]["template"]["spec"]["affinity"] == {"podAffinity": {"theirs": True}}


def test_our_change_without_its_record_is_not_taken_for_theirs() -> None:
    before, prepared = named("a3")
    del prepared["metadata"]["annotations"][drain.ANNOTATION]
    found = drain.original_of(prepared)
    assert found.affinity == before["spec"]["template"]["spec"]["affinity"]
    assert found.update_type == "RollingUpdate"


@pytest.mark.parametrize(
    "record",
    ["", "{", "[]", '"text"', "{}", '{"version": 2}', '{"version":1,"affinity":3,"updateStrategy":{}}'],
)
def test_a_record_that_cannot_be_read_is_for_a_person(record: str) -> None:
    _, prepared = named("c1")
    prepared["metadata"]["annotations"][drain.ANNOTATION] = record
    for attempt in (drain.restoration, drain.preparation):
        with pytest.raises(drain.RecordError, match="remove the annotation"):
            attempt(prepared)


@pytest.mark.parametrize(
    ("affinity", "wanted"),
    [
        (None, terms([EXPRESSION])),
        ({}, terms([EXPRESSION])),
        (terms([LINUX]), terms([LINUX, EXPRESSION])),
        (terms([LINUX], [ARM]), terms([LINUX, EXPRESSION], [ARM, EXPRESSION])),
        (terms([LINUX, EXPRESSION], [ARM]), terms([LINUX, EXPRESSION], [ARM, EXPRESSION])),
    ],
)
def test_every_alternative_keeps_away_from_drained_nodes(affinity: Any, wanted: Any) -> None:
    given = deepcopy(affinity)
    made = with_ours(affinity)
    assert made == wanted
    assert affinity == given, "the argument is left alone"
    assert has_ours(made)
    assert with_ours(made) == made


def test_a_term_that_selects_nothing_does_not_begin_to_select() -> None:
    affinity = {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [{}, {"matchExpressions": [LINUX]}]}}}
    made = with_ours(affinity)
    assert made["nodeAffinity"][REQUIRED]["nodeSelectorTerms"][0] == {}
    assert has_ours(made)


def test_one_alternative_without_our_expression_lets_pods_back() -> None:
    assert not has_ours(terms([LINUX, EXPRESSION], [ARM]))


def test_taking_ours_away_leaves_what_is_theirs() -> None:
    rich = {**terms([LINUX], [ARM]), "podAntiAffinity": {"theirs": True}}
    assert without_ours(with_ours(rich)) == rich
    assert without_ours(with_ours(None)) is None
