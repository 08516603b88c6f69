"""Ports and questions for tests of the health servers."""

import socket

import aiohttp


def free_port() -> int:
    """A port that nobody has in either family just now."""
    with socket.socket(socket.AF_INET6) as sock:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(("::", 0))
        port: int = sock.getsockname()[1]
        return port


async def ask(port: int, path: str = "/", host: str = "127.0.0.1") -> tuple[int, str, dict[str, str]]:
    """Status, body and headers of an answer. Raises aiohttp.ClientConnectionError."""
    async with aiohttp.ClientSession() as session, session.get(f"http://{host}:{port}{path}") as response:
        return response.status, await response.text(), dict(response.headers)


async def refused(port: int, host: str = "127.0.0.1") -> bool:
    """Whether nobody listens there."""
    try:
        await ask(port, host=host)
    except aiohttp.ClientConnectorError:
        return True
    return False
