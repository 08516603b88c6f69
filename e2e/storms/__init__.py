"""What goes on in a busy cluster while it is migrated: pods roll, endpoints flap, agents die and are upgraded, devices
come and go. Each storm goes on in a thread of its own until it is told to end, and puts back what it changed.

Whoever serves, nothing may be lost by any of them: what a storm takes away has been told to everybody in good time, or
goes on answering.
"""

from e2e.storms.storm import Storm, StormError, raging
from e2e.storms.tidying import until_forgotten

__all__ = ["Storm", "StormError", "raging", "until_forgotten"]
