"""The satellite that answers in the tests of the analysis answers here, too."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "pipeline"))
