"""The maps of layout 2 are taken over: they do not know yet where addresses have their places (bpf/known.h)."""

import inspect
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest
from handover_agent import bpfbatch, layouts, takeover
from handover_agent.bpfsys import obj_get
from handover_agent.datapath import Datapath
from handover_agent.known import groups
from handover_agent.layout import (
    KNOWN_GROUP_BYTES,
    KNOWN_GROUPS,
    LAYOUT,
    map_specs,
    place_as_backend,
    place_of,
)
from handover_agent.layouts import Shape
from handover_agent.table import ip_bytes
from tests.datapath import layout2, older, taking_over
from tests.datapath.compiling import compiled_once
from tests.datapath.node import NODES, PODS, PORT, Answer, Connection, Namespaces, text
from tests.datapath.pods import TCP, VIPS, Pod
from tests.datapath.rig import SIZES, Rig
from tests.datapath.taking_over import settled, take_over
from tests.datapath.test_packets import FAMILIES, KINDS, MASQUERADE, NODE_PORT, at

pytestmark = [pytest.mark.datapath, pytest.mark.usefixtures("no_compiler")]


@pytest.fixture(scope="module")
def compiled_then(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    sources = tmp_path_factory.mktemp("layout2")
    layout2.sources(sources)
    return compiled_once(pytestconfig, sources, inspect.getsource(layout2) + inspect.getsource(older))


@pytest.fixture
def net(own_net: Namespaces) -> Namespaces:
    return own_net


@pytest.fixture
def serving(own: Datapath, net: Namespaces, compiled_then: dict[str, bytes]) -> Datapath:
    """The older programs serve."""
    taking_over.serve(own, layout2.as_older(compiled_then), layout2.specs(SIZES))
    return own


def places(maps: Path, name: str) -> Mapping[int, bytes]:
    """Group → its bytes, of those that are not empty."""
    with obj_get(maps / name) as opened:
        found = enumerate(bpfbatch.read_array(opened.fd, 0, KNOWN_GROUPS, KNOWN_GROUP_BYTES))
    return {group: content for group, content in found if any(content)}


def of_flows(*ends: tuple[str, str]) -> Mapping[int, bytes]:
    """What `places` tells of flows between these frontends and backends: a byte for each."""
    found: dict[int, bytearray] = {}
    for frontend, backend in ends:
        for group, byte, _ in (place_of(ip_bytes(frontend)), place_as_backend(ip_bytes(backend))):
            found.setdefault(group, bytearray(KNOWN_GROUP_BYTES))[byte] = 1
    return {group: bytes(content) for group, content in found.items()}


def test_the_maps_are_what_the_step_from_layout_2_says_they_are() -> None:
    (step,) = (step for step in layouts.STEPS if step.older == layout2.NUMBER)
    shapes = {spec.name: Shape(spec.type, spec.key_bytes, spec.value_bytes) for spec in layout2.specs(SIZES)}
    assert step.shapes == shapes
    assert {spec.name for spec in map_specs(SIZES)} - shapes.keys() == {*step.derived, "stranded"}


def test_connections_of_every_kind_go_on_and_new_ones_are_served_all_the_time(
    serving: Datapath, net: Namespaces, own_pod: Pod, bpffs: Path
) -> None:
    assert {path.name for path in (bpffs / "own" / "maps-2").iterdir()} == {
        spec.name for spec in layout2.specs(SIZES)
    }
    taking_over.go_on_and_are_served(serving, net, own_pod, bpffs)


@FAMILIES
@KINDS
def test_frontends_and_flows_of_before_are_found(
    own: Datapath, net: Namespaces, compiled_then: dict[str, bytes], bpffs: Path, family: int, kind: int
) -> None:
    vip, unused = VIPS[family]
    node_port, maps = NODES[family], bpffs / "own" / f"maps-{LAYOUT}"
    with layout2.as_older(compiled_then):
        own.load_maps(layout2.specs(SIZES))
        own.attach()
        with Rig(own) as rig:
            rig.expose(vip, 80, at(family, "c"))
            rig.expose(node_port, NODE_PORT, at(family, "a"), MASQUERADE)
            rig.expose(unused, 80, at(family, "b"))
    with (
        net.connect("a", kind, vip, 80) as inner,
        net.connect("client", kind, node_port, NODE_PORT) as outer,
    ):
        said = inner.ask(), outer.ask()
        take_over(own)
        settled(own, bpffs)
        assert places(maps, "addresses") == groups(map(ip_bytes, (vip, node_port, unused)))
        ends = (vip, PODS["c"][family]), (node_port, PODS["a"][family])
        assert places(maps, "flow_addresses") == of_flows(*ends)
        assert (inner.ask(), outer.ask()) == said
        assert net.ask("a", kind, unused, 80).server == text(PODS["b"][family], PORT)
        with Rig(own, maps) as rig:
            rig.withdraw(vip, 80)
            rig.withdraw(node_port, NODE_PORT)
            rig.forget_places()
        if kind == TCP:  # datagrams need their frontend
            assert (inner.ask(), outer.ask()) == said, "what goes to a flow is found without its frontend"


@KINDS
def test_a_flow_that_begins_after_places_were_written_is_found_too(
    serving: Datapath, net: Namespaces, monkeypatch: pytest.MonkeyPatch, kind: int
) -> None:
    really = takeover.change_over
    with ExitStack() as stack:
        late: list[tuple[Connection, Answer]] = []

        def begin(older: Path, newer: Path) -> None:
            asking = stack.enter_context(net.connect("client", kind, NODES[4], NODE_PORT))
            late.append((asking, asking.ask()))
            really(older, newer)

        monkeypatch.setattr(takeover, "change_over", begin)
        take_over(serving)
        [(asking, said)] = late
        assert asking.ask() == said
