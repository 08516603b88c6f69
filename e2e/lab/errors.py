"""What can go wrong in the lab, each saying what was tried, on what, and what to do about it."""

from collections.abc import Sequence


class LabError(Exception):
    """Something the lab needs is not so; `hint` tells the person at the keyboard what to do."""

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what if not hint else f"{what}\n  -> {hint}")
        self.what = what
        self.hint = hint


class CommandError(LabError):
    """A program that the lab ran ended with an error; the end of its output is in the message."""

    def __init__(self, argv: Sequence[str], returncode: int, output: str) -> None:
        tail = "\n".join(output.strip().splitlines()[-15:])
        super().__init__(f"`{' '.join(argv)}` ended with status {returncode}:\n{tail}")
        self.argv = tuple(argv)
        self.returncode = returncode
        self.output = output


class Terminated(KeyboardInterrupt):
    """SIGTERM, raised as an exception so that it unwinds (and cleans up) exactly as Ctrl-C does."""
