"""The model remembers what was last seen and tells which Services changed."""

import pytest
from handover_agent.model import Model, NotListed
from tests.fakes.objects import endpoint_json, service, slice_

pytestmark = pytest.mark.unit

WEB_SLICE = slice_(endpoints=[endpoint_json("10.1.1.1")])


@pytest.fixture
def model() -> Model:
    """Has default/web with one slice, and nothing dirty."""
    model = Model()
    model.services_sink.replace([service()])
    model.slices_sink.replace([WEB_SLICE])
    assert model.take_dirty() == {"default/web"}
    return model


def test_it_is_complete_only_after_both_lists() -> None:
    model = Model()
    model.services_sink.put(service())
    assert not model.complete
    model.services_sink.replace([])
    with pytest.raises(NotListed, match="EndpointSlices not listed"):
        model.take_dirty()
    model.slices_sink.replace([])
    assert model.complete


def test_an_event_that_changes_nothing_of_interest_wakes_nobody(model: Model) -> None:
    model.services_sink.put(service(labels={"app": "new-label"}))
    model.slices_sink.put(WEB_SLICE)
    model.slices_sink.remove(slice_("default/never-seen"))
    model.services_sink.remove(service("default/never-seen"))
    assert not model.changed.is_set()
    assert model.take_dirty() == set()


def test_a_changed_service_is_dirty_once(model: Model) -> None:
    model.services_sink.put(service(ip="10.96.0.99"))
    assert model.changed.is_set()
    assert model.take_dirty() == {"default/web"}
    assert not model.changed.is_set()
    assert model.take_dirty() == set()


def test_a_slice_makes_its_service_dirty(model: Model) -> None:
    model.slices_sink.put(slice_("default/web-2", endpoints=[endpoint_json("10.1.1.2")]))
    assert model.take_dirty() == {"default/web"}
    model.slices_sink.remove(WEB_SLICE)
    assert model.take_dirty() == {"default/web"}
    assert [s.name for s in model.slices("default/web")] == ["web-2"]


def test_a_slice_may_move_to_another_service(model: Model) -> None:
    model.slices_sink.put(slice_("default/web-1", "other", endpoints=[endpoint_json("10.1.1.1")]))
    assert model.take_dirty() == {"default/web", "default/other"}
    assert list(model.slices("default/web")) == []
    assert [s.name for s in model.slices("default/other")] == ["web-1"]


def test_a_slice_that_loses_its_service_label_is_dropped(model: Model) -> None:
    model.slices_sink.put(slice_("default/web-1", "", endpoints=[endpoint_json("10.1.1.1")]))
    assert model.take_dirty() == {"default/web"}
    assert list(model.slices("default/web")) == []


def test_a_new_list_replaces_all_and_marks_only_what_differs(model: Model) -> None:
    model.services_sink.put(service("default/other", "10.96.0.11"))
    model.take_dirty()
    model.services_sink.replace([service(), service("default/third", "10.96.0.12")])
    assert model.take_dirty() == {"default/other", "default/third"}
    model.slices_sink.replace([WEB_SLICE, slice_("default/third-1", "third")])
    assert model.take_dirty() == {"default/third"}
    model.slices_sink.replace([])
    assert model.take_dirty() == {"default/web", "default/third"}
    assert model.owners == {}


def test_each_change_is_a_new_revision(model: Model) -> None:
    before = model.revision
    model.services_sink.put(service(ip="10.96.0.99"))
    assert model.revision > before


@pytest.mark.parametrize(
    ("kind", "policy", "local", "port"),
    [
        ("LoadBalancer", "Local", True, 31000),
        ("LoadBalancer", "Cluster", False, 0),
        ("NodePort", "Local", True, 0),
    ],
)
def test_a_health_check_node_port_counts_for_a_load_balancer_with_the_local_policy(
    kind: str, policy: str, local: bool, port: int
) -> None:
    asked = service(type=kind, externalTrafficPolicy=policy, healthCheckNodePort=31000)
    assert (asked.external_local, asked.health_check_node_port) == (local, port)
