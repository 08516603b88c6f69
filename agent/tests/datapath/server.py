"""Listens on the addresses given, TCP and UDP, and answers everything with the address that it was sent to.

The backends' stand-in; on the services' own addresses it stands in for whatever serves what we leave alone.
"""

import asyncio
import sys
from typing import Any


def name(address: tuple[str, int]) -> bytes:
    host = f"[{address[0]}]" if ":" in address[0] else address[0]
    return f"{host}:{address[1]}\n".encode()


async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        me = name(writer.get_extra_info("sockname"))
        writer.write(me)
        while await reader.readline():
            writer.write(me)
    except ConnectionError:
        return
    finally:
        writer.close()


class Datagrams(asyncio.DatagramProtocol):
    def connection_made(self, transport: Any) -> None:  # no asyncio.DatagramTransport before Python 3.12
        self.transport = transport

    def datagram_received(self, data: bytes, source: tuple[str, int]) -> None:
        self.transport.sendto(name(self.transport.get_extra_info("sockname")), source)


async def main(endpoints: list[str]) -> None:
    loop = asyncio.get_running_loop()
    for endpoint in endpoints:
        host, _, port = endpoint.rpartition("/")
        await asyncio.start_server(talk, host, int(port), backlog=1024)
        await loop.create_datagram_endpoint(Datagrams, (host, int(port)))
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


asyncio.run(main(sys.argv[1:]))
