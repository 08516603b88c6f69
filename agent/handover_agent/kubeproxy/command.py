"""Runs one of the rule tools with text in and text out, in a fixed locale, with a deadline."""

import os
import subprocess
from collections.abc import Sequence

from handover_agent.kubeproxy.errors import ToolFailed

_PATH = "/usr/sbin:/sbin:/usr/bin:/bin"


def run(command: Sequence[str], given: str = "", deadline_s: float = 300) -> str:
    """The standard output of a command that succeeded. Raises ToolFailed."""
    env = {"PATH": f"{os.environ.get('PATH', '')}:{_PATH}", "LC_ALL": "C.UTF-8"}
    try:
        done = subprocess.run(
            command, input=given, capture_output=True, text=True, env=env, timeout=deadline_s, check=False
        )
    except FileNotFoundError as error:
        raise ToolFailed(command, "the program is not installed in the agent's image") from error
    except subprocess.TimeoutExpired as error:
        raise ToolFailed(
            command, f"no end after {deadline_s:.0f} s; is another program holding the lock?"
        ) from error
    if done.returncode != 0:
        raise ToolFailed(command, f"exit code {done.returncode}: {done.stderr or done.stdout}")
    return done.stdout
