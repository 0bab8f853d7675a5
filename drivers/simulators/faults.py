"""What goes wrong on purpose between an instrument and its reader, and the order in which replies suffer it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

_CHUNKS = 3


@dataclass(frozen=True)
class Faults:
    """Faults of one simulator; spans are world time, `every` counts replies (0: never).

    `mute_after_s`: no reply any more so long after the start (0: accepts and never answers). `wrong_model`: another
    model answers. `reply_delay_s`: added to every reply. `late_every`, `late_by_s`: every n-th reply comes so much
    later, after its reader has given up. `drop_reply_every`: every n-th reply is lost. `split_replies`: replies arrive
    in parts. `unsolicited_every`: what the instrument may say unasked comes glued in front of every n-th reply.
    `drop_byte_every`, `double_byte_every`: every n-th reply misses a byte, or has one twice. `echo`: the command comes
    back first. `hang_up_after`: after so many replies the far end closes the line. `special`: faults that only this
    instrument has; its simulator names them.
    """

    mute_after_s: float | None = None
    wrong_model: bool = False
    reply_delay_s: float = 0.0
    late_every: int = 0
    late_by_s: float = 0.0
    drop_reply_every: int = 0
    split_replies: bool = False
    unsolicited_every: int = 0
    drop_byte_every: int = 0
    double_byte_every: int = 0
    echo: bool = False
    hang_up_after: int = 0
    special: tuple[str, ...] = ()


class Spoiled(NamedTuple):
    """One reply after the faults: its parts, and what else happens to it."""

    parts: tuple[bytes, ...]
    hang_up: bool


class Spoiler:
    """Applies the faults to the replies of one line, in order."""

    def __init__(self, faults: Faults, unsolicited: Callable[[], bytes]) -> None:
        """`unsolicited` makes what the instrument may say unasked."""
        self._faults, self._unsolicited = faults, unsolicited
        self._accepted = self._sent = 0

    def delay_s(self) -> float | None:
        """For the next reply that the instrument gives: how much later it comes, None when it is lost."""
        faults = self._faults
        self._accepted += 1
        if _nth(self._accepted, faults.drop_reply_every):
            return None
        return faults.reply_delay_s + (faults.late_by_s if _nth(self._accepted, faults.late_every) else 0.0)

    def spoil(self, data: bytes, since_start_s: float) -> Spoiled:
        """What is sent instead of `data`."""
        faults = self._faults
        if faults.mute_after_s is not None and since_start_s >= faults.mute_after_s:
            return Spoiled((), False)
        self._sent += 1
        middle = len(data) // 2
        if _nth(self._sent, faults.drop_byte_every):
            data = data[:middle] + data[middle + 1 :]
        if _nth(self._sent, faults.double_byte_every):
            data = data[:middle] + data[middle : middle + 1] + data[middle:]
        if _nth(self._sent, faults.unsolicited_every):
            data = self._unsolicited() + data
        size = max(1, -(-len(data) // _CHUNKS) if faults.split_replies else len(data))
        parts = tuple(data[i : i + size] for i in range(0, len(data), size))
        return Spoiled(parts, self._sent == faults.hang_up_after)


def _nth(number: int, every: int) -> bool:
    return every > 0 and number % every == 0
