"""The maps as a person reads them: pure, but for `load_rows`, which reads the pins."""

from collections.abc import Sequence
from dataclasses import dataclass

from handover_agent.datapath import Datapath, NotLoaded
from handover_agent.names import NamesFile
from handover_agent.settings import Settings
from handover_agent.table import Backend, FrontendFlags, FrontendKey, FrontendValue


@dataclass(frozen=True, slots=True)
class Row:
    """A frontend as the kernel has it."""

    service: str
    key: FrontendKey
    value: FrontendValue
    backends: tuple[Backend, ...]


def load_rows(settings: Settings) -> list[Row] | str:
    """Everything that the pinned maps hold, by Service; or why they cannot be read."""
    datapath = Datapath(settings.pins, settings.cgroup or settings.cgroup_search)
    names = NamesFile(settings.state_dir / "names.json").read()
    try:
        maps = datapath.maps()
    except NotLoaded as error:
        return f"{error} (this node stands on Standby: kube-proxy serves)"
    except OSError as error:
        return f"the maps pinned in {settings.pins} cannot be read: {error}"
    with maps:
        rows = [
            Row(
                names.get(value.service_id, f"#{value.service_id}"),
                key,
                value,
                tuple(maps.read_backends(value.offset, value.count)) if value.count else (),
            )
            for key, value in maps.read_frontends().items()
        ]
    return sorted(rows, key=lambda row: (row.service, row.key))


def services(rows: Sequence[Row], wanted: str) -> tuple[Sequence[str], list[list[object]]]:
    """Header and rows of `handover-agent services`."""
    return ("SERVICE", "FRONTEND", "BACKENDS", "FLAGS"), [
        [row.service, str(row.key), len(row.backends), _flags(row.value)]
        for row in rows
        if wanted in row.service
    ]


def backends(rows: Sequence[Row], wanted: str) -> tuple[Sequence[str], list[list[object]]]:
    """Header and rows of `handover-agent backends`."""
    return ("SERVICE", "FRONTEND", "BACKEND"), [
        [row.service, str(row.key), str(backend)]
        for row in rows
        if wanted in row.service
        for backend in row.backends
    ]


def table_text(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Columns, left-aligned, as kubectl prints them."""
    lines = [list(header), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "   ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _flags(value: FrontendValue) -> str:
    names = [flag.name.lower() for flag in FrontendFlags if flag and flag in value.flags and flag.name]
    if value.affinity_timeout_s:
        names.append(f"{value.affinity_timeout_s}s")
    return ",".join(names) or "-"
