"""`python -P -m e2e.lab`, which is also installed as `handover-lab`."""

import sys

from e2e.lab.cli import main

if __name__ == "__main__":
    sys.exit(main())
