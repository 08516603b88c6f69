"""The node's network devices: which of them the packet path's programs belong on, and when that changes.

    look()              # every device with its role, read from the kernel now
    classify(device)    # the rule alone: pure
    Listener()          # wakes whoever waits when devices or addresses change

All of it is about the network namespace of the calling thread.
"""

from handover_agent.devices.classify import Address, Device, Header, Place, Role, classify, own_ipv4
from handover_agent.devices.listening import Listener
from handover_agent.devices.reading import look

__all__ = ["Address", "Device", "Header", "Listener", "Place", "Role", "classify", "look", "own_ipv4"]
