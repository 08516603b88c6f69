"""Who answers at a socket that listens already (`listening`)."""

import socket

from aiohttp import web


async def answer_at(listening: socket.socket, runner: web.BaseRunner) -> None:
    """Have the runner answer there, until its `cleanup`. If it cannot, nobody listens any more."""
    try:
        await runner.setup()
        await web.SockSite(runner, listening).start()
    except BaseException:
        listening.close()
        await runner.cleanup()
        raise
