"""What has to change for the kernel's frontends to be the wanted ones, in the order in which it may be done.

1. Backends into regions that nobody points at.
2. Frontends that exist are flipped to their new regions, each in one atomic update.
3. Frontends that nobody wants go; their traffic is the packet path's from then on.
4. New frontends come, with room made by the third step; refusals of what is at no port last, as they are
   the least missed where there is no room.
5. Regions that nobody points at any more rest.

So no frontend ever points at a region that is unfinished, or that has become somebody else's.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from handover_agent.table import Backend, Entry, FrontendKey, FrontendValue, Table


@dataclass(slots=True, eq=False)
class Region:
    """A slice of the backend array and what it holds; `slots` is None where that is not to be trusted."""

    offset: int
    size: int
    slots: tuple[Backend, ...] | None
    users: int = 0  # frontends that point here


@dataclass(frozen=True, slots=True)
class Held:
    """A frontend as the kernel has it. `region` is None for one without backends."""

    value: FrontendValue
    region: Region | None

    def serves(self, entry: Entry) -> bool:
        """Whether it does what is wanted (its number is compared by who gives out numbers)."""
        slots = self.region.slots if self.region is not None else ()
        return (
            slots == entry.slots
            and self.value.count == len(entry.backends)
            and self.value.serving == entry.serving
            and self.value.flags == entry.flags
            and self.value.affinity_timeout_s == entry.affinity_timeout_s
        )


@dataclass(frozen=True, slots=True)
class Changes:
    """The keys to act on, in order of their steps."""

    flips: list[FrontendKey] = field(default_factory=list)
    deletes: list[FrontendKey] = field(default_factory=list)
    inserts: list[FrontendKey] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.flips or self.deletes or self.inserts)


def changes(
    have: Mapping[FrontendKey, Held],
    want: Table,
    number: Callable[[str], int],
    keys: Iterable[FrontendKey] | None = None,
) -> Changes:
    """The difference, of all frontends or of `keys` only. `numbers` has a number for every wanted Service
    port.
    """
    result, refusals = Changes(), list[FrontendKey]()
    for key in keys if keys is not None else [*want, *(key for key in have if key not in want)]:
        held, entry = have.get(key), want.get(key)
        if entry is None:
            if held is not None:
                result.deletes.append(key)
        elif held is None:
            (result.inserts if key.port else refusals).append(key)
        elif held.value.service_id != number(entry.service) or not held.serves(entry):
            result.flips.append(key)
    result.inserts.extend(refusals)
    return result


def tell(
    found: Changes, have: Mapping[FrontendKey, Held], want: Table, number: Callable[[str], int]
) -> list[str]:
    """A difference, one readable line for each frontend."""
    return [
        *(f"{key} is missing: {want[key].service}" for key in found.inserts),
        *(f"{key} is not wanted by any Service" for key in found.deletes),
        *(f"{key} {_unlike(have[key], want[key], number)}" for key in found.flips),
    ]


def _unlike(held: Held, entry: Entry, number: Callable[[str], int]) -> str:
    if held.region is not None and held.region.slots is None:
        return "points at a region that is another one's, or none"
    value = held.value
    slots = held.region.slots if held.region and held.region.slots else ()
    has, serves = slots[: value.count], slots[value.count :]
    if has != entry.backends:
        return f"has backends [{_join(has)}] instead of [{_join(entry.backends)}]"
    wants = entry.slots[len(entry.backends) :]
    if serves != wants:
        return f"has [{_join(serves)}] to keep their flows instead of [{_join(wants)}]"
    return (
        f"has flags {value.flags!r}, affinity {value.affinity_timeout_s} s, number {value.service_id} "
        f"instead of {entry.flags!r}, {entry.affinity_timeout_s} s, {number(entry.service)}"
    )


def _join(backends: Iterable[Backend]) -> str:
    return " ".join(str(backend) for backend in backends)
