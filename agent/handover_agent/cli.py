"""The command line: run the agent, or look at this node as a person would.

Everything but `run` works without the agent and without an API server: from pinned maps, rules and the
journal. What looks and changes nothing is in `showing`, a module for each command.
"""

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence

from handover_agent.cleaning import CleanupRefused, clean
from handover_agent.logs import configure
from handover_agent.settings import Settings, SettingsError, add_flags
from handover_agent.showing import COMMANDS
from handover_agent.showing.command import CannotShow, Command, WrongUsage
from handover_agent.state import AnotherAgent

log = logging.getLogger(__name__)

LOCAL = ("pins", "cgroup", "cgroup_search", "state_dir", "proxy_health_port", "health_port")
_EPILOG = (
    "What stands under `settings` or `where to look` can also be given as an environment variable: HANDOVER_ and the "
    "option's name in capitals, with `_` for `-`. "
    "Exit status: 0, done and as it should be; 1, it is not, or it could not be found out (stderr says what); "
    "2, wrong usage."
)


def parser() -> argparse.ArgumentParser:
    """All commands and options."""
    top = argparse.ArgumentParser(
        prog="handover-agent",
        description="Serves a node's Services with eBPF in kube-proxy's place, and tells how it is doing.",
        epilog="`handover-agent COMMAND --help` says what a command shows and what its words mean. "
        + _EPILOG,
    )
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    run = _command(commands, "run", "run the agent (what its pod does)", ())
    run.set_defaults(act=_run)
    for shown in COMMANDS:
        command = _command(commands, shown.name, shown.summary, LOCAL, shown.description)
        shown.flags(command)
        command.add_argument(
            "-o", "--output", choices=("table", "json"), default="table", help="for people, or for programs"
        )
        command.set_defaults(act=_showing(shown))
    cleaning = _command(
        commands,
        "cleanup",
        "remove everything of ours from this node (the agent must not be running)",
        LOCAL,
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
        return _fail(error, status=2)
    act: Callable[[argparse.Namespace, Settings], int] = options.act
    try:
        return act(options, settings)
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130


def _command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    text: str,
    flags: tuple[str, ...],
    description: str = "",
) -> argparse.ArgumentParser:
    described = description or f"{text[0].upper()}{text[1:]}."
    made = commands.add_parser(name, help=text, description=described, epilog=_EPILOG)
    add_flags(made.add_argument_group("where to look" if flags else "settings"), flags)
    return made


def _showing(shown: Command) -> Callable[[argparse.Namespace, Settings], int]:
    """The answer on stdout, everything else on stderr, so that the answer can be piped on."""

    def act(options: argparse.Namespace, settings: Settings) -> int:
        configure(settings.log_format, "error")  # the answer says what matters
        try:
            answer = shown.show(options, settings)
        except CannotShow as error:
            return _fail(error, command=shown.name)
        except WrongUsage as error:
            return _fail(error, command=shown.name, status=2)
        print(answer.json() if options.output == "json" else answer.text())
        sys.stdout.flush()
        if options.output != "json":
            for note in answer.notes:
                print(f"note: {note}", file=sys.stderr)
        return 0 if answer.well else 1

    return act


def _run(_: argparse.Namespace, settings: Settings) -> int:
    from handover_agent.apierrors import ApiError  # noqa: PLC0415 - the other commands start faster without
    from handover_agent.health.own import OwnPortInUse  # noqa: PLC0415
    from handover_agent.node import NoCgroup2  # noqa: PLC0415
    from handover_agent.runtime import Agent  # noqa: PLC0415

    configure(settings.log_format, settings.log_level)

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


def _cleanup(options: argparse.Namespace, settings: Settings) -> int:
    configure(settings.log_format, settings.log_level)
    try:
        for done in clean(settings, force=options.force):
            print(done)
    except CleanupRefused as error:
        return _fail(error)
    return 0


def _fail(error: object, *, command: str = "", status: int = 1) -> int:
    print(f"handover-agent{command and f' {command}'}: {error}", file=sys.stderr)
    return status
