"""A layout of the maps that never was, older than ours: programs, maps, and the step from there to ours.

The programs are ours, built from sources in which some structs have other fields, another order or another size. So they
do the same, and remember it differently.
"""

import shutil
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

import pytest
from handover_agent import bpffs, layout, layouts, loader
from handover_agent.layout import LAYOUT, MapSpec, Sizes, map_specs
from handover_agent.layouts import CannotConvert, Shape, Step
from handover_agent.table import FrontendFlags, FrontendValue
from tests.datapath.compiling import loading

NUMBER = 1

_FLOW_KEY, _OLDER_FLOW_KEY = struct.Struct("=16s16s2s2sBB2x"), struct.Struct("=16s16s2s2sHHI")
_FLOW, _OLDER_FLOW = struct.Struct("=20sIQII2s6s"), struct.Struct("=QIII20s2s6s8x")
_REVERSE, _OLDER_REVERSE = struct.Struct("=20s20sI"), struct.Struct("=I4x20s20s")
_AFFINITY_KEY, _OLDER_AFFINITY_KEY = struct.Struct("=16sI4x"), struct.Struct("=I4x16s")
_AFFINITY, _OLDER_AFFINITY = struct.Struct("=Q20sI"), struct.Struct("=QI20s")
_FRONTEND, _OLDER_FRONTEND = struct.Struct("=IIIII"), struct.Struct("=IIIIII")

# struct → how it was, in the order of the header
_STRUCTS = {
    "settings": "__u16 accepting; __u8 noting; __u8 node_only; __be32 own_ipv4; __u32 zero[2];",
    "frontend": "__u32 flags; __u32 offset; __u32 count; __u32 service_id; __u32 affinity_timeout_s; __u32 zero;",
    "reverse": "__u32 protocol; __u32 zero; struct endpoint frontend; struct endpoint next;",
    "affinity_key": "__u32 service_id; __u32 zero; struct address client;",
    "affinity": "__u64 last_used_ns; __u32 index; struct endpoint backend;",
    "flow_key": "struct address from; struct address to; __be16 from_port; __be16 to_port; __u16 protocol; "
    "__u16 direction; __u32 zero;",
    "flow": "__u64 last_seen_ns; __u32 service_id; __u32 proof; __u32 index; struct endpoint other; __be16 client_port; "
    "__u8 flags; __u8 answered; __u8 client_finished; __u8 backend_finished; __u8 reset; __u8 confused; __u32 spare[2];",
}
_BYTES = {
    "settings": (4, 16),
    "frontends": (20, 24),
    "reverse": (32, 48),
    "affinity": (24, 32),
    "flows": (44, 56),
}


def _flow(key: bytes, value: bytes) -> tuple[bytes, bytes]:
    *ends, protocol, direction, _ = _OLDER_FLOW_KEY.unpack(key)
    seen, service, proof, index, other, port, told = _OLDER_FLOW.unpack(value)
    if protocol > 255:
        raise CannotConvert(f"protocol {protocol} is not one of a byte")
    return _FLOW_KEY.pack(*ends, protocol, direction), _FLOW.pack(
        other, service, seen, proof, index, port, told
    )


def _reverse(key: bytes, value: bytes) -> tuple[bytes, bytes]:
    protocol, frontend, following = _OLDER_REVERSE.unpack(value)
    return key, _REVERSE.pack(frontend, following, protocol)


def _affinity(key: bytes, value: bytes) -> tuple[bytes, bytes]:
    service, client = _OLDER_AFFINITY_KEY.unpack(key)
    used, index, backend = _OLDER_AFFINITY.unpack(value)
    return _AFFINITY_KEY.pack(client, service), _AFFINITY.pack(used, backend, index)


def _frontend(key: bytes, value: bytes) -> tuple[bytes, bytes]:
    flags, *others, _ = _OLDER_FRONTEND.unpack(value)
    return key, _FRONTEND.pack(*others, flags)


def _settings(
    accepting: bool, own_ipv4: bytes = bytes(4), noting: bool = False, node_only: bool = False
) -> bytes:
    return struct.pack("=HBB4s8x", accepting, noting, node_only, own_ipv4)


def specs(sizes: Sizes) -> list[MapSpec]:
    """The maps of the older layout."""
    found = []
    for spec in map_specs(sizes):
        key, value = _BYTES.get(spec.name, (spec.key_bytes, spec.value_bytes))
        found.append(MapSpec(spec.name, spec.type, key, value, spec.max_entries, spec.flags))
    return found


STEP = Step(
    NUMBER,
    LAYOUT,
    {spec.name: Shape(spec.type, spec.key_bytes, spec.value_bytes) for spec in specs(Sizes())},
    {
        "settings": lambda key, value: (key, value[:8]),
        "frontends": _frontend,
        "reverse": _reverse,
        "affinity": _affinity,
        "flows": _flow,
        "work": None,
    },
)


def copied_sources(directory: Path) -> Path:
    """Our sources in `directory`/bpf, which is returned."""
    original = resources.files("handover_agent").joinpath("bpf")
    with resources.as_file(original) as path:
        return Path(shutil.copytree(path, directory / "bpf"))


def older_sources(directory: Path) -> None:
    """Our sources with the structs of the older layout, in `directory`/bpf."""
    header = copied_sources(directory) / "structs.h"
    text = header.read_text()
    for name, fields in _STRUCTS.items():
        start = text.index(f"struct {name} {{")
        text = f"{text[:start]}struct {name} {{ {fields} }}{text[text.index('};', start) + 1 :]}"
        check = text.index(f"_Static_assert(sizeof(struct {name}) ==")
        text = text[:check] + text[text.index("\n", check) + 1 :]
    header.write_text(text)


@contextmanager
def agent_of(number: int, compiled: dict[str, bytes]) -> Iterator[pytest.MonkeyPatch]:
    """This process is an agent with programs of its own, whose maps have a layout of this number; more may be patched."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (bpffs, layout):
            patch.setattr(module, "LAYOUT", number)
        patch.setattr(layouts, "STEPS", ())
        patch.setattr(loader, "version", lambda: "older")
        patch.setattr(loader, "load_programs", loading(compiled))
        yield patch


@contextmanager
def as_older(compiled: dict[str, bytes]) -> Iterator[None]:
    """This process is an agent of the older layout."""

    def pack(value: FrontendValue) -> bytes:
        numbers = (int(value.flags), value.offset, value.count, value.service_id, value.affinity_timeout_s, 0)
        return _OLDER_FRONTEND.pack(*numbers)

    def unpack(raw: bytes) -> FrontendValue:
        flags, offset, count, service, timeout, _ = _OLDER_FRONTEND.unpack(raw)
        return FrontendValue(offset, count, service, FrontendFlags(flags), timeout)

    with agent_of(NUMBER, compiled) as patch:
        patch.setattr(layout, "pack_frontend", pack)
        patch.setattr(layout, "pack_settings", _settings)
        patch.setattr(layout, "unpack_own_ipv4", lambda raw: raw[4:8])
        patch.setattr(layout, "unpack_noting", lambda raw: bool(raw[2]))
        patch.setattr(layout, "unpack_node_only", lambda raw: bool(raw[3]))
        patch.setattr(layout, "unpack_frontend", unpack)
        yield
