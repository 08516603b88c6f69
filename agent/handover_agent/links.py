"""Programs attached to a cgroup by pinned links: one for each hook, next to whatever others attach there.

A pinned link outlives the agent. Its program is swapped in one step; detaching takes effect when the call
returns.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from handover_agent.bpfsys import (
    Descriptor,
    LinkInfo,
    link_create,
    link_detach,
    link_info,
    link_update,
    obj_get,
    pin,
    program_id,
)
from handover_agent.hooks import HOOKS, PROGRAMS, Hook


def read_links(directory: Path) -> dict[str, LinkInfo]:
    """Hook → its link, for every link that is attached to a cgroup."""
    found = {hook.name: _info(directory / hook.name) for hook in HOOKS}
    return {name: info for name, info in found.items() if info and info.cgroup_id}


def read_programs(directory: Path) -> dict[str, int]:
    """Name → id of each program pinned there. Empty when the directory is not there."""
    ids = {}
    for hook in PROGRAMS:
        try:
            with obj_get(directory / hook.name) as program:
                ids[hook.name] = program_id(program.fd)
        except FileNotFoundError:
            continue
    return ids


def attach(directory: Path, programs: Path, cgroup: Path) -> None:
    """Make every hook of `cgroup` run its program of `programs`; what already does is left alone."""
    directory.mkdir(mode=0o700, exist_ok=True)
    cgroup_id = cgroup.stat().st_ino
    for hook in HOOKS:
        path = directory / hook.name
        info = _info(path)
        if info and info.cgroup_id != cgroup_id:  # its cgroup was removed, or another one is wanted now
            _detach(path, info)
            info = None
        with obj_get(programs / hook.name) as program:
            if info:
                _swap(path, program, info)
            else:
                _create(path, program, cgroup, hook)


def swap(directory: Path, programs: Path) -> None:
    """Make every link that there is run the program of the directory `programs`."""
    for hook in HOOKS:
        info = _info(directory / hook.name)
        if info and info.cgroup_id:
            with obj_get(programs / hook.name) as program:
                _swap(directory / hook.name, program, info)


def detach(directory: Path, hooks: Sequence[Hook] = HOOKS) -> None:
    """Detach hooks, the last attached first; their programs do not run any more when this returns."""
    for hook in reversed(hooks):
        info = _info(directory / hook.name)
        if info:
            _detach(directory / hook.name, info)


def _create(path: Path, program: Descriptor, cgroup: Path, hook: Hook) -> None:
    descriptor = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY)
    with (
        Descriptor(descriptor) as opened,
        link_create(program.fd, opened.fd, hook.attach_type, f"{hook.name} at {cgroup}") as link,
    ):
        pin(link.fd, path)


def _swap(path: Path, program: Descriptor, info: LinkInfo) -> None:
    if program_id(program.fd) != info.program_id:
        with obj_get(path) as link:
            link_update(link.fd, program.fd, str(path))


def _detach(path: Path, info: LinkInfo) -> None:
    if info.cgroup_id:
        with obj_get(path) as link:
            link_detach(link.fd, str(path))
    path.unlink()


def _info(path: Path) -> LinkInfo | None:
    try:
        with obj_get(path) as link:
            return link_info(link.fd)
    except FileNotFoundError:
        return None
