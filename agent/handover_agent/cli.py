"""The command line: run the agent, or look at this node as a person would.

Everything but `run` works without the agent and without an API server: from pinned maps, rules and the
journal.
"""

import argparse
import asyncio
import contextlib
import json
import logging
import signal
import sys
from collections.abc import Callable, Sequence

from handover_agent.checkup import check
from handover_agent.cleaning import CleanupRefused, clean
from handover_agent.logs import configure
from handover_agent.settings import Settings, SettingsError, add_flags
from handover_agent.showing import backends, load_rows, services, table_text

log = logging.getLogger(__name__)

_LOCAL = ("pins", "cgroup", "cgroup_search", "state_dir", "proxy_health_port", "health_port")
_EPILOG = "Each option can also be given as an environment variable: HANDOVER_ and its name in capitals."


def parser() -> argparse.ArgumentParser:
    """All commands and options."""
    top = argparse.ArgumentParser(
        prog="handover-agent",
        description="Serves a node's Services with eBPF in kube-proxy's place, and tells how it is doing.",
        epilog=_EPILOG,
    )
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    run = _command(commands, "run", "run the agent (what its pod does)", ())
    run.set_defaults(act=_run)
    for name, text, act in (
        (
            "services",
            "what this node's maps serve: frontends with their Service and number of backends",
            _services,
        ),
        ("backends", "the backends of each frontend", _backends),
    ):
        command = _command(commands, name, text, _LOCAL)
        command.add_argument("service", nargs="?", default="", help="only Services whose name contains this")
        command.add_argument("-o", "--output", choices=("table", "json"), default="table")
        command.set_defaults(act=act)
    checking = _command(
        commands, "check", "tell whether this node is as it should be; exit status 1 if not", _LOCAL
    )
    checking.add_argument("-o", "--output", choices=("table", "json"), default="table")
    checking.set_defaults(act=_check)
    cleaning = _command(
        commands,
        "cleanup",
        "remove everything of ours from this node (the agent must not be running)",
        _LOCAL,
    )
    cleaning.add_argument(
        "--force",
        action="store_true",
        help="also where kube-proxy's rules have been removed: puts the snapshot back first",
    )
    cleaning.set_defaults(act=_cleanup)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    options = parser().parse_args(arguments)
    try:
        settings = Settings.gather(options)
    except SettingsError as error:
        return _fail(error)
    configure(settings.log_format, settings.log_level)
    act: Callable[[argparse.Namespace, Settings], int] = options.act
    return act(options, settings)


def _command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    text: str,
    flags: tuple[str, ...],
) -> argparse.ArgumentParser:
    made = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.", epilog=_EPILOG)
    add_flags(made, flags)
    return made


def _run(_: argparse.Namespace, settings: Settings) -> int:
    from handover_agent.apierrors import ApiError  # noqa: PLC0415 - the other commands start faster without
    from handover_agent.health.own import OwnPortInUse  # noqa: PLC0415
    from handover_agent.node import NoCgroup2  # noqa: PLC0415
    from handover_agent.runtime import Agent, AnotherAgent  # noqa: PLC0415

    async def serve() -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await Agent(settings).run()

    try:
        asyncio.run(serve())
    except (SettingsError, ApiError, NoCgroup2, AnotherAgent, OwnPortInUse, OSError) as error:
        return _fail(error)
    log.info("stopped; what is in the kernel goes on serving")
    return 0


def _services(options: argparse.Namespace, settings: Settings) -> int:
    rows = load_rows(settings)
    if isinstance(rows, str):
        return _fail(rows)
    return _print(options, *services(rows, options.service))


def _backends(options: argparse.Namespace, settings: Settings) -> int:
    rows = load_rows(settings)
    if isinstance(rows, str):
        return _fail(rows)
    return _print(options, *backends(rows, options.service))


def _check(options: argparse.Namespace, settings: Settings) -> int:
    findings = check(settings)
    if options.output == "json":
        print(json.dumps([{"ok": f.ok, "what": f.what, "found": f.found} for f in findings], indent=2))
    else:
        for finding in findings:
            print(f"{'ok ' if finding.ok else 'BAD'}  {finding.what}: {finding.found}")
    return 0 if all(finding.ok for finding in findings) else 1


def _cleanup(options: argparse.Namespace, settings: Settings) -> int:
    try:
        for done in clean(settings, force=options.force):
            print(done)
    except CleanupRefused as error:
        return _fail(error)
    return 0


def _print(options: argparse.Namespace, header: Sequence[str], rows: Sequence[Sequence[object]]) -> int:
    if options.output == "json":
        names = [name.lower() for name in header]
        print(json.dumps([dict(zip(names, row, strict=True)) for row in rows], indent=2))
    else:
        print(table_text(header, rows))
    return 0


def _fail(*errors: object) -> int:
    for error in errors:
        print(f"handover-agent: {error}", file=sys.stderr)
    return 1
