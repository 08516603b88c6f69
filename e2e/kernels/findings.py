"""What machines said, as values, and the table that docs/kernels.md shows: pure."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

MARK = "HANDOVER "


@dataclass(frozen=True, slots=True)
class Program:
    """A program as a kernel took it."""

    name: str
    verified: int
    """Instructions that the verifier went through, over all branches."""
    instructions: int
    """Its length."""


@dataclass(frozen=True, slots=True)
class Findings:
    """What one kernel did with the datapath."""

    package: str
    release: str = ""
    lacking: tuple[str, ...] = ()
    loading_s: float = 0.0
    programs: tuple[Program, ...] = ()
    tried: tuple[str, ...] = ()
    """Which connections were, in words, whatever became of them."""
    problems: tuple[str, ...] = ()

    @property
    def well(self) -> bool:
        """Whether everything loaded and worked."""
        return bool(self.programs) and not self.problems


def read(package: str, said: Iterable[str]) -> Findings:
    """From a machine's console."""
    lines = (line.partition(MARK)[2] for line in said if MARK in line)
    documents: list[dict[str, Any]] = [json.loads(line) for line in lines]
    of: dict[str, list[dict[str, Any]]] = {}
    for document in documents:
        of.setdefault(document["kind"], []).append(document)
    problems = [document["text"] for document in of.get("error", ())]
    problems += [f"missing: {', '.join(d['missing'])}" for d in of.get("features", ()) if d["missing"]]
    problems += [f"module {d['name']}: {d['problem']}" for d in of.get("module", ())]
    problems += [_failed(d) for d in of.get("connection", ()) if not d["ok"]]
    problems += [f"handover-agent {d['name']}: {d['problem']}" for d in of.get("command", ()) if d["status"]]
    problems += [f"left after unloading: {d['left']}" for d in of.get("unloaded", ()) if d["left"]]
    if "unloaded" not in of and not problems:
        problems.append("it ended before everything was tried")
    return Findings(
        package=package,
        release=next((d["release"] for d in of.get("kernel", ())), ""),
        lacking=tuple(name for d in of.get("features", ()) for name in d["lacking"]),
        loading_s=next((d["seconds"] for d in of.get("loaded", ())), 0.0),
        programs=tuple(
            Program(d["name"], d["verified"], d["instructions"])
            for d in sorted(of.get("program", ()), key=lambda d: str(d["name"]))
        ),
        tried=tuple(d["what"] for d in of.get("connection", ())),
        problems=tuple(problems),
    )


def _failed(connection: dict[str, Any]) -> str:
    problem = connection.get("problem")
    return f"no connection {connection['what']}" + (f": {problem}" if problem else "")


def markdown(kernels: Sequence[Findings]) -> str:
    """Two tables: a line for each program with a pair of columns for each kernel, and a line for each attempt."""
    return "\n\n".join((_programs(kernels), _attempts(kernels)))


def _programs(kernels: Sequence[Findings]) -> str:
    names = sorted({program.name for kernel in kernels for program in kernel.programs})
    heads = [f"{kernel.release}: verified" + " | length" for kernel in kernels]
    lines = [f"| program | {' | '.join(heads)} |", "|---|" + "---:|---:|" * len(kernels)]
    for name in names:
        cells = [_cells(kernel, name) for kernel in kernels]
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def _attempts(kernels: Sequence[Findings]) -> str:
    """Of kernels on which all went well: a table with failures is never written."""
    tried = dict.fromkeys(what for kernel in kernels for what in kernel.tried)
    lines = [f"| a connection | {' | '.join(k.release for k in kernels)} |", "|---|" + "---|" * len(kernels)]
    lines.append("| (features that this kernel lacks) |" + "".join(f" {_lacking(k)} |" for k in kernels))
    for what in tried:
        lines.append(f"| {what} |" + "".join(" works |" if what in k.tried else " - |" for k in kernels))
    return "\n".join(lines)


def _lacking(kernel: Findings) -> str:
    return ", ".join(f"`{name}`" for name in kernel.lacking) or "none"


def _cells(kernel: Findings, name: str) -> str:
    program = next((p for p in kernel.programs if p.name == name), None)
    return f"{program.verified:,} | {program.instructions:,}" if program else "- | -"
