"""Questions and answers over a link that may fall silent, lose step or break: what drivers of such links share.

A lost link is made again, and whoever is there proves to be the same; a link out of step is brought into step before
the next question; a question that may be repeated is asked once more when it failed. How a question looks, and what
brings a device into step, the driver knows.
"""

from collections.abc import Callable
from typing import TypeVar

from drivers.transport import Link
from groundstation.clock import Clock, monotonic_s
from groundstation.errors import TransportTimeout, WireError, WrongInstrument
from groundstation.instruments import Identity

T = TypeVar("T")

_TRIES = 4
QUIET_S = 0.05  # wall time without a byte after which no late answer is expected


class Conversation:
    """One exchange at a time with one instrument, whichever threads ask.

    All calls may raise TransportTimeout, TransportLost and WireError, and what `identify` raises when a lost link was
    made again.
    """

    def __init__(self, link: Link, identify: Callable[[], object], get_into_step: Callable[[], None]) -> None:
        """`identify`: asks who is there. `get_into_step`: makes the next bytes answer the next question, and says so
        to the link."""
        self._link, self._identify, self._get_into_step = link, identify, get_into_step
        self.known: Identity | None = None
        """Who answered first."""

    def recognise(self, found: Identity) -> Identity:
        """Remember who answers, and compare it later: WrongInstrument for another model or serial number."""
        self.known = known = self.known or found
        if (found.model, found.serial) != (known.model, known.serial):
            raise WrongInstrument(
                f"{self._link.address} now answers as {_name(found)}, it was {_name(known)}; check what is connected"
            )
        return found

    def get_ready(self) -> None:
        """A link on which the next answer belongs to the next question."""
        if self._link.lost:
            self._link.reconnect(self._identify)
        if not self._link.in_step:
            self._get_into_step()

    def repeat(self, exchange: Callable[[], T], attempts: int = 2) -> T:
        """What `exchange` returns, in step; tried again, in step again, when it failed and may be repeated."""
        with self._link.exchange():
            while True:
                self.get_ready()
                self._link.flush_input()
                attempts -= 1
                try:
                    return exchange()
                except (TransportTimeout, WireError):
                    self._link.mark_in_step(False)
                    if attempts <= 0:
                        raise

    def ask(self, question: bytes, read: Callable[[], T], attempts: int = 2) -> T:
        """One question, and what `read` makes of the answer."""

        def exchange() -> T:
            self._link.write(question)
            return read()

        return self.repeat(exchange, attempts)

    def ask_timed(self, question: bytes, read: Callable[[], T], clock: Clock) -> tuple[T, int, int]:
        """The same, with the world time (UTC ns) just before the question and just after the answer."""

        def exchange() -> tuple[T, int, int]:
            sent_ns = clock.utc_ns()
            self._link.write(question)
            return read(), sent_ns, clock.utc_ns()

        return self.repeat(exchange)

    def agreed(
        self, ask: Callable[[], T], question: str, same: Callable[[T, T], bool] = lambda one, other: one == other
    ) -> T:
        """Ask until two answers agree, for a wire without a checksum and what does not change by itself; the later one.

        Raises WireError when no two of four do.
        """
        answers: list[T] = []
        with self._link.exchange():
            for _ in range(_TRIES):
                answer = ask()
                if any(same(answer, other) for other in answers):
                    return answer
                answers.append(answer)
        raise WireError(
            f"{self._link.address} answers {question} with {answers}, never twice the same; check the cable"
        )

    def tell(self, command: bytes) -> None:
        """A command that nothing answers."""
        with self._link.exchange():
            self.get_ready()
            self._link.write(command)


def skip_late_answers(
    link: Link, question: bytes, end: bytes, is_answer: Callable[[bytes], bool], expected: str
) -> None:
    """Into step: ask for what only one answer can be, and skip lines until that one comes and silence follows.

    Raises WireError when others come instead, TransportTimeout when nothing does.
    """
    deadline_s = monotonic_s() + link.timeout_s
    link.flush_input()
    link.write(question)
    line = b""
    while not is_answer(line):
        try:
            line = link.read_until(end, max(0.0, deadline_s - monotonic_s()))
        except TransportTimeout as error:
            if not line:
                raise
            raise WireError(
                f"{link.address} answers {line[:60]!r} when asked who it is, expected {expected}"
            ) from error
    await_silence(link, deadline_s)
    link.mark_in_step()


def ask_until_answered(link: Link, ask: Callable[[float], bytes | None], question: str, who: str) -> None:
    """Into step: `ask`, which is given a deadline (s), until it returns None for the right answer.

    Raises WireError when others came instead, TransportTimeout when nothing did.
    """
    deadline_s = monotonic_s() + link.timeout_s
    heard = b""
    while (answer := ask(deadline_s)) is not None:
        heard = answer or heard
        if monotonic_s() < deadline_s:
            continue
        if heard:
            raise WireError(f"{link.address} answers {heard[:20]!r} to {question}")
        link.mark_silent()
        raise TransportTimeout(
            f"no {who} answers at {link.address} within {link.timeout_s:g} s; check that it is on, the cable, and "
            "the address"
        )
    link.mark_in_step()


def await_silence(link: Link, deadline_s: float) -> None:
    """Throw away what comes until nothing does. WireError when that goes on beyond the deadline."""
    while link.read_available(QUIET_S):
        if monotonic_s() > deadline_s:
            raise WireError(f"{link.address} does not stop sending; check that the right instrument is there")


def _name(identity: Identity) -> str:
    return f"{identity.model} {identity.serial}".strip()
