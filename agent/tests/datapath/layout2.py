"""Layout 2 of the maps as it was, before addresses had places (known.h) and stranded sockets were noted.

The programs are ours, built from sources in which any address may mean something, and that have no such maps.
"""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from handover_agent import bpffs, enlarging, layout, maps
from handover_agent.layout import MapSpec, Sizes, map_specs
from handover_agent.loader import programs
from tests.datapath.older import agent_of, copied_sources

NUMBER = 2
_NOT_YET = ("stranded", "addresses", "flow_addresses")

# What is said of an address's place, as C → what stands for it
_ANY_PLACE = {
    "may_be_frontend": "(void)place; return 1;",
    "may_have_flows": "(void)place; return 1;",
    "will_have_flows": "(void)place;",
}


def specs(sizes: Sizes) -> tuple[MapSpec, ...]:
    """The maps of layout 2."""
    return tuple(spec for spec in map_specs(sizes) if spec.name not in _NOT_YET)


def sources(directory: Path) -> None:
    """Our sources as they are for these maps, in `directory`/bpf."""
    bpf = copied_sources(directory)
    known = (bpf / "known.h").read_text()
    for name, body in _ANY_PLACE.items():
        known, found = re.subn(rf"({name}\([^)]*\)\n)\{{.*?\n\}}", rf"\1{{ {body} }}", known, flags=re.DOTALL)
        assert found == 1, name
    (bpf / "known.h").write_text(known)
    stranded = (bpf / "stranded.h").read_text()
    noting = "map_update(STRANDED, &packet->key, &frontend, BPF_NOEXIST)"
    assert noting in stranded
    (bpf / "stranded.h").write_text(stranded.replace(noting, "-EEXIST_"))
    consts = (bpf / "consts.h").read_text()
    numbers = "".join(f"MAP_{spec.name.upper()} = {n},\n" for n, spec in enumerate(specs(Sizes())))
    consts, found = re.subn(
        r"enum map_number \{.*?\}", f"enum map_number {{\n{numbers}}}", consts, flags=re.DOTALL
    )
    assert found == 1
    (bpf / "consts.h").write_text(consts)


class _NoPlaces:
    """Nobody writes down where addresses have their places."""

    def __init__(self, _: Path) -> None:
        pass

    def add(self, _: Iterable[bytes]) -> None:
        pass

    be = add

    def close(self) -> None:
        pass


@contextmanager
def as_older(compiled: dict[str, bytes]) -> Iterator[None]:
    """This process is an agent of layout 2."""
    with agent_of(NUMBER, compiled) as patch:
        for module in (bpffs, enlarging, layout, programs):
            patch.setattr(module, "map_specs", specs)
        patch.setattr(maps, "KnownAddresses", _NoPlaces)
        yield
