"""Our maps over the kernel's: what is written is read, by batches and one by one, and as the fake says."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from handover_agent import bpfbatch, bpfmap, bpfsys
from handover_agent.bpfmap import MapType
from handover_agent.datapath import Datapath
from handover_agent.layout import Sizes, map_specs
from handover_agent.maps import PinnedMaps
from handover_agent.table import (
    Backend,
    FrontendFlags,
    FrontendKey,
    FrontendValue,
    MapFull,
    Maps,
    Protocol,
    Scope,
    ip_bytes,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.fakes.maps import FakeMaps

pytestmark = pytest.mark.datapath

CAPACITY = Sizes(frontends=12, backends=32, sockets=8, affinity=8)

ports = st.integers(1, 3)
keys = st.builds(
    FrontendKey,
    address=st.sampled_from([ip_bytes("10.96.0.1"), ip_bytes("fd00::1")]),
    port=ports,
    protocol=st.sampled_from(Protocol),
    scope=st.sampled_from(Scope),
)
values = st.builds(
    FrontendValue,
    offset=st.integers(0, 2**32 - 1),
    count=st.integers(0, 2**32 - 1),
    service_id=st.integers(0, 2**32 - 1),
    flags=st.sampled_from([FrontendFlags(bits) for bits in range(32)]),
    affinity_timeout_s=st.integers(0, 2**32 - 1),
)
some_backends = st.lists(
    st.builds(Backend, address=st.binary(min_size=16, max_size=16), port=st.integers(1, 65535)), max_size=8
)
operations = st.lists(
    st.one_of(
        st.tuples(st.just("write_frontends"), st.dictionaries(keys, values, max_size=6)),
        st.tuples(st.just("delete_frontends"), st.lists(keys, max_size=6)),
        st.tuples(st.just("write_backends"), st.integers(0, 40), some_backends),
        st.tuples(st.just("read_backends"), st.integers(0, 40), st.integers(0, 8)),
        st.tuples(st.just("read_frontends")),
    ),
    max_size=12,
)


@pytest.fixture
def maps(own: Datapath, bpffs: Path) -> Iterator[PinnedMaps]:
    """Maps without programs."""
    directory = bpffs / f"maps{os.getpid()}"
    directory.mkdir()
    for spec in map_specs(CAPACITY):
        with bpfmap.map_create(
            spec.type, spec.key_bytes, spec.value_bytes, spec.max_entries, spec.name, flags=spec.flags
        ) as made:
            bpfsys.pin(made.fd, directory / spec.name)
    with PinnedMaps(directory) as opened:
        yield opened
    for path in directory.iterdir():
        path.unlink()
    directory.rmdir()


def outcome(maps: Maps, operation: tuple[object, ...]) -> object:
    name, *arguments = operation
    try:
        return getattr(maps, str(name))(*arguments)
    except MapFull as full:
        return full.name, full.capacity


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
@given(operations)
def test_the_kernel_and_the_fake_agree(maps: PinnedMaps, steps: list[tuple[object, ...]]) -> None:
    maps.delete_frontends(maps.read_frontends())
    maps.write_backends(0, [Backend(bytes(16), 0)] * CAPACITY.backends)
    fake = FakeMaps(CAPACITY.frontends, CAPACITY.backends)
    fake.write_backends(0, [Backend(bytes(16), 0)] * CAPACITY.backends)
    for step in steps:
        expected, found = outcome(fake, step), outcome(maps, step)
        assert found == expected, step
        assert maps.read_frontends() == fake.read_frontends(), step
        if isinstance(found, tuple):  # what was written of a batch that failed is not specified
            return
    assert maps.read_backends(0, CAPACITY.backends) == fake.read_backends(0, CAPACITY.backends)


@pytest.fixture
def hash_map() -> Iterator[int]:
    with bpfmap.map_create(MapType.HASH, 20, 20, 20_000, "test") as made:
        yield made.fd


def entries(number: int) -> list[tuple[bytes, bytes]]:
    return [(n.to_bytes(20, "big"), (n * 7).to_bytes(20, "big")) for n in range(number)]


@pytest.mark.parametrize("writing", [True, False], ids=["write-batch", "write-single"])
@pytest.mark.parametrize("reading", [True, False], ids=["read-batch", "read-single"])
def test_batches_and_single_calls_do_the_same(hash_map: int, writing: bool, reading: bool) -> None:
    wanted = entries(9_001)  # more than two batches
    bpfbatch.write(hash_map, wanted, batch=writing)
    assert dict(bpfbatch.read_hash(hash_map, 20, 20, batch=reading)) == dict(wanted)
    missing = [(n + 1_000_000).to_bytes(20, "big") for n in range(3)]
    gone = [key for key, _ in wanted[::2]]
    bpfbatch.delete(hash_map, [missing[0], *gone[:2000], missing[1], *gone[2000:], missing[2]], batch=writing)
    assert dict(bpfbatch.read_hash(hash_map, 20, 20, batch=reading)) == dict(wanted[1::2])


@pytest.mark.parametrize("batch", [True, False])
@pytest.mark.parametrize(("start", "count"), [(0, 0), (0, 1), (0, 100), (1, 1), (37, 63), (99, 1)])
def test_any_part_of_an_array_is_read(start: int, count: int, batch: bool) -> None:
    with bpfmap.map_create(MapType.ARRAY, 4, 20, 100, "test") as array:
        content = [(n.to_bytes(4, sys.byteorder), n.to_bytes(20, "big")) for n in range(100)]
        bpfbatch.write(array.fd, content)
        read = bpfbatch.read_array(array.fd, start, count, 20, batch=batch)
        assert read == [value for _, value in content[start : start + count]]


def test_a_map_that_is_full_says_so_in_a_batch_and_singly(hash_map: int) -> None:
    for batch in (True, False):
        with pytest.raises(bpfsys.BpfError, match="Argument list too long"):
            bpfbatch.write(hash_map, entries(20_001), batch=batch)
