"""What compiled instructions leave open is filled in."""

import pytest
from handover_agent.loader.abilities import Abilities
from handover_agent.loader.filling import filled_in

pytestmark = pytest.mark.unit

EXIT = bytes([0x95]) + bytes(7)


def load(registers: int, immediate: int) -> bytes:
    """The wide instruction: `registers` is the register, and in the upper half what the number means."""
    return bytes([0x18, registers, 0, 0]) + immediate.to_bytes(4, "little") + bytes(8)


def test_numbers_of_maps_become_descriptors() -> None:
    # r1 = map 1; r2 = map 0; r1 = the plain number 1, which is none of a map's
    code = load(0x11, 1) + load(0x12, 0) + load(0x01, 1) + EXIT
    assert filled_in(code, [70, 71], []) == load(0x11, 71) + load(0x12, 70) + load(0x01, 1) + EXIT
    with pytest.raises(IndexError):
        filled_in(load(0x11, 2), [70, 71], [])


def test_numbers_of_abilities_become_plain_constants() -> None:
    numbers = Abilities(set_retval=True, net_in_socket=48, cookie_in_net=64).numbers()
    code = load(0xF3, 0) + load(0xF4, 1) + load(0xF5, 2) + load(0xF6, 3) + EXIT
    assert filled_in(code, [], numbers) == load(3, 1) + load(4, 0) + load(5, 48) + load(6, 64) + EXIT
    with pytest.raises(IndexError):
        filled_in(load(0xF1, len(numbers)), [], numbers)


def test_the_second_half_of_a_wide_instruction_is_not_taken_for_another() -> None:
    wide = bytes([0x18, 0x01, 0, 0, 0, 0, 0, 0]) + bytes([0, 0, 0, 0, 0x18, 0x11, 0, 0])
    assert filled_in(wide, [], []) == wide
