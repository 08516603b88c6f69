"""Runs inside a pod: how long connect() takes to each of some addresses, in turns, so that noise hits all alike.

Usage: python3 - ROUNDS CONNECTS NAME=ADDRESS:PORT... ; prints {name: [p50 of each round in µs]} as JSON.
"""

import json
import socket
import struct
import sys
import time

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close with a reset, so that no port is left waiting


def p50_us(address: tuple[str, int], connects: int) -> float:
    """The median of so many connects to an address, in µs. Raises OSError when one fails."""
    taken = []
    for _ in range(connects):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as stream:
            stream.settimeout(5)
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            began = time.perf_counter_ns()
            stream.connect(address)
            taken.append(time.perf_counter_ns() - began)
    return sorted(taken)[len(taken) // 2] / 1000


def main(rounds: int, connects: int, targets: dict[str, tuple[str, int]]) -> dict[str, list[float]]:
    """Each target once in every round."""
    found: dict[str, list[float]] = {name: [] for name in targets}
    for address in targets.values():
        p50_us(address, connects)  # neighbours, routes and caches are warm afterwards
    for _ in range(rounds):
        for name, address in targets.items():
            found[name].append(p50_us(address, connects))
    return found


if __name__ == "__main__":
    named = (argument.partition("=") for argument in sys.argv[3:])
    wanted = {name: (text.rpartition(":")[0], int(text.rpartition(":")[2])) for name, _, text in named}
    print(json.dumps(main(int(sys.argv[1]), int(sys.argv[2]), wanted)))
