"""`python -m groundstation.cli` is the same as the console script."""

import sys

from groundstation.cli import main

sys.exit(main())
