"""Software of an optical ground station for satellite quantum key distribution.

`import groundstation as gs` gives what is for exploring recordings (`gs.open`, `gs.rates`, `gs.correlate`,
`gs.histogram`, `gs.coincidences`), loaded when first used: the programs of a pass need none of it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from groundstation.api import TagRecording, coincidences, correlate, histogram, open, rates

__version__ = "0.1.0"
__all__ = ["TagRecording", "__version__", "coincidences", "correlate", "histogram", "open", "rates"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("groundstation.api"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
