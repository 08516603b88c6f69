"""`python -m handover_agent` is `handover-agent`."""

import sys

from handover_agent.cli import main

if __name__ == "__main__":
    sys.exit(main())
