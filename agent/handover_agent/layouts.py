"""What the maps of earlier layouts looked like, and what becomes of their entries in ours. Pure.

A `Step` leads from one layout to the next: how each map of the older one is shaped, and for each that is another in
the newer one what becomes of its entries. Maps that are not named as changed are the very same for both. Steps are
chained, so that an agent takes over from every layout that it has a chain of steps for, and from no other.

Some things are the same in every layout, and have to stay so: the first two bytes of `settings` say whether new connections
are accepted, keys of `reverse`, `forward` and `sockets` begin with the socket's cookie, and programs leave alone what
they know nothing about. See docs/adr/0021.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from handover_agent.bpfmap import MapType
from handover_agent.entries import Direction, Flow, unpack_flow
from handover_agent.layout import place_as_backend, place_of

Entry = tuple[bytes, bytes]
Converter = Callable[[bytes, bytes], Entry]
"""An entry of the older layout → the same in the newer one. Raises CannotConvert. Arrays keep their keys."""

Mark = tuple[int, int, int]
"""In an array map: which index, which byte of its value, and the bits to be set there."""

SOCKETS = ("reverse", "forward", "sockets")
"""Entries of one socket, which refer to each other: where one of these maps changes, all change hands together."""
COOKIE_BYTES = 8


class CannotConvert(ValueError):
    """An entry says something that the newer layout has no words for."""


class NoWay(Exception):
    """There is no chain of steps from one layout to the other."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What the kernel says about a map."""

    type: int
    key_bytes: int
    value_bytes: int


@dataclass(frozen=True, slots=True)
class Derived:
    """An array that only the newer layout has, and that follows from another map: what an entry of that marks in it."""

    source: str
    marks: Callable[[bytes, bytes], Iterable[Mark]]


@dataclass(frozen=True, slots=True)
class Step:
    """From a layout to a newer one."""

    older: int
    newer: int
    shapes: Mapping[str, Shape]
    """Every map of the older one."""
    changed: Mapping[str, Converter | None]
    """Maps that the newer one has in another shape, or with another meaning. None: it begins empty, which `settings`
    may not.
    """
    derived: Mapping[str, Derived] = field(default_factory=dict)
    """Maps that begin with what follows from others. Bits are only ever set in them."""


_DIRECTION_AT = 37  # struct flow_key


def _frontend_place(key: bytes, _: bytes) -> Iterable[Mark]:
    group, byte, bit = place_of(key[:16])
    return ((group, byte, 1 << bit),)


def _flow_places(key: bytes, value: bytes) -> Iterable[Mark]:
    """Of the frontend and the backend: in the key is what a packet is for, or who answers, in the value the other."""
    forward = key[_DIRECTION_AT] == Direction.FORWARD
    frontend, backend = (key[16:32], value[:16]) if forward else (value[:16], key[:16])
    return tuple((group, byte, 1) for group, byte, _ in (place_of(frontend), place_as_backend(backend)))


_LAYOUT_2 = {
    "settings": Shape(MapType.ARRAY, 4, 8),
    "frontends": Shape(MapType.HASH, 20, 20),
    "backends": Shape(MapType.ARRAY, 4, 20),
    "reverse": Shape(MapType.LRU_HASH, 32, 44),
    "forward": Shape(MapType.LRU_HASH, 32, 24),
    "sockets": Shape(MapType.LRU_HASH, 8, 20),
    "affinity": Shape(MapType.LRU_HASH, 24, 32),
    "counters": Shape(MapType.PERCPU_ARRAY, 4, 8),
    "flows": Shape(MapType.LRU_HASH, 40, 48),
    "fragments": Shape(MapType.LRU_HASH, 40, 32),
    "sources": Shape(MapType.LPM_TRIE, 24, 4),
    "clients": Shape(MapType.HASH, 16, 8),
    "work": Shape(MapType.PERCPU_ARRAY, 4, 512),
}

STEPS: tuple[Step, ...] = (
    Step(
        2,
        3,
        _LAYOUT_2,
        changed={},
        derived={
            "addresses": Derived("frontends", _frontend_place),
            "flow_addresses": Derived("flows", _flow_places),
        },
    ),
)
"""Layout 1 was never released, and layout 2 is the first to be carried on. Layout 3 has places of addresses (known.h)."""


@dataclass(frozen=True, slots=True)
class Way:
    """A chain of steps as one."""

    older: int
    newer: int
    shapes: Mapping[str, Shape]
    changed: Mapping[str, tuple[Converter, ...] | None]
    derived: Mapping[str, Derived]
    """By entries of the oldest layout."""

    def read_flow(self, key: bytes, value: bytes) -> Flow:
        """An entry of the older layout's flows as what it says. Raises CannotConvert."""
        return unpack_flow(*self.convert("flows", key, value))

    def convert(self, name: str, key: bytes, value: bytes) -> Entry:
        """An entry of a map in the newer layout. Raises CannotConvert."""
        for converter in self.changed.get(name) or ():
            key, value = converter(key, value)
        return key, value


def way(older: str, newer: str, steps: tuple[Step, ...] | None = None) -> Way:
    """How to get from a layout to a newer one. Raises NoWay."""
    known = {str(step.older): step for step in (STEPS if steps is None else steps)}
    chain: list[Step] = []
    at = older
    while at != newer:
        if at not in known or len(chain) > len(known):
            raise NoWay(f"no way leads from layout {older} to {newer}")
        chain.append(known[at])
        at = str(known[at].newer)
    if not chain:
        raise NoWay(f"layout {older} is the same")
    changed = _together(_composed(chain), chain[0].shapes)
    return Way(chain[0].older, chain[-1].newer, chain[0].shapes, changed, _derived(chain))


def _composed(chain: list[Step]) -> dict[str, tuple[Converter, ...] | None]:
    changed: dict[str, tuple[Converter, ...] | None] = {}
    for step in chain:
        for name, converter in step.changed.items():
            before = changed.get(name, ())
            changed[name] = None if before is None or converter is None else (*before, converter)
    return changed


def _derived(chain: list[Step]) -> dict[str, Derived]:
    found: dict[str, Derived] = {}
    for number, step in enumerate(chain):
        before = _composed(chain[: number + 1])
        for name, derived in step.derived.items():
            found[name] = Derived(derived.source, _converted(before.get(derived.source) or (), derived.marks))
    return found


def _converted(
    converters: tuple[Converter, ...], marks: Callable[[bytes, bytes], Iterable[Mark]]
) -> Callable[[bytes, bytes], Iterable[Mark]]:
    def converting(key: bytes, value: bytes) -> Iterable[Mark]:
        for converter in converters:
            key, value = converter(key, value)
        return marks(key, value)

    return converting


def _together(
    changed: dict[str, tuple[Converter, ...] | None], shapes: Mapping[str, Shape]
) -> dict[str, tuple[Converter, ...] | None]:
    if changed.keys() & set(SOCKETS):
        changed |= {name: () for name in SOCKETS if name in shapes and name not in changed}
    return changed
