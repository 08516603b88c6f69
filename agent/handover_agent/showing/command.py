"""What a command of the family is made of: its words for --help, its options, and what it answers."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from handover_agent.settings import Settings


class CannotShow(Exception):
    """A command cannot show what it was asked for: says what was tried, on what, and what would help. Exit status 1."""


class WrongUsage(Exception):
    """An argument cannot be meant: says what is wrong with it and what would be right. Exit status 2."""


class Answer(Protocol):
    """What a command found, for people and for programs."""

    @property
    def notes(self) -> Sequence[str]:
        """What the reader must know beside it: what could not be found out, and what to do."""

    @property
    def well(self) -> bool:
        """Whether all of it is as it should be: decides the exit status."""

    def text(self) -> str: ...
    def json(self) -> str: ...


def _nothing(_: argparse.ArgumentParser) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Command:
    """One command that looks and changes nothing."""

    name: str
    summary: str
    """For the list of commands, in lower case and without a full stop."""
    description: str
    """For its own --help: what is shown, in which words, and what to do with it."""
    show: Callable[[argparse.Namespace, Settings], Answer]
    flags: Callable[[argparse.ArgumentParser], None] = _nothing
    """Adds the options that only this command has."""


def only(what: str) -> Callable[[argparse.ArgumentParser], None]:
    """The argument that narrows a listing: rows in which the text occurs."""

    def add(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("only", nargs="?", default="", metavar="TEXT", help=f"only {what} with this text")

    return add
