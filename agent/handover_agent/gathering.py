"""How long changes are gathered before they are written. Pure."""

_GATHER_S, _GATHER_MORE_S = 0.003, 0.03
_BUSY_S = 0.1


def gathering_s(quiet_s: float) -> float:
    """Seconds to gather for, after so many seconds without a write.

    A change by itself is written at once. Where changes come all the time, a write for each would cost more than the
    changes do, and nobody notices some hundredths of a second.
    """
    return _GATHER_S if quiet_s > _BUSY_S else _GATHER_MORE_S
