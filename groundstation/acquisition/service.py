"""Tells systemd how the daemon does (sd_notify(3)): a datagram on a socket; nothing when nobody supervises.

The watchdog is fed after a successful publication only, never by a timer: a process that lives and records nothing is
worth a restart.
"""

import socket
from contextlib import suppress


class Service:
    """The supervisor's ear; every call is safe without one."""

    def __init__(self, address: str | None) -> None:
        """`address`: $NOTIFY_SOCKET, a path or (with a leading @) a name in the abstract namespace."""
        self._address = "\0" + address[1:] if address and address.startswith("@") else address
        self._ready = False

    def ready(self) -> None:
        """Recording has begun; said once."""
        if not self._ready:
            self._ready = True
            self._say("READY=1")

    def alive(self) -> None:
        """Something was just made durable."""
        self._say("WATCHDOG=1")

    def status(self, sentence: str) -> None:
        """One line for `systemctl status`."""
        self._say(f"STATUS={sentence}")

    def stopping(self) -> None:
        """The end has begun."""
        self._say("STOPPING=1")

    def _say(self, state: str) -> None:
        if not self._address:
            return
        # A supervisor that is gone or slow must not stop a recording.
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as ear:
            ear.setblocking(False)
            ear.sendto(state.encode(), self._address)
