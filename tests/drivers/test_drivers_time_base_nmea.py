"""The NMEA time base against published sentences, on a loopback socket whose far end talks by itself."""

import contextlib
import threading
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_far_end import SocketLine, serving

from drivers.time_base_nmea import Sentence, checksum, connect, judge, parse_sentence
from groundstation.clock import SystemClock, parse_utc
from groundstation.errors import BadInput, TransportLost, TransportTimeout, WireError, WrongInstrument
from groundstation.instruments import TimeBaseStatus

CLOCK = SystemClock()
AGES = {"max_clock_difference_s": 1e10}
WITH_MODE = b"GPRMC,170047.00,A,4121.23302,N,00201.31654,W,2.703,,200417,,,"


def sentence(body: bytes) -> bytes:
    return b"$" + body + b"*%02X" % checksum(body)


def rmc(time: bytes = b"123519", status: bytes = b"A", date: bytes = b"230394", mode: bytes = b"A") -> bytes:
    return sentence(b"GPRMC,%s,%s,4807.038,N,01131.000,E,022.4,084.4,%s,003.1,W,%s" % (time, status, date, mode))


def gga(time: bytes = b"123519", quality: bytes = b"1") -> bytes:
    return sentence(b"GPGGA,%s,4807.038,N,01131.000,E,%s,08,0.9,545.4,M,46.9,M,," % (time, quality))


def zda(time: bytes = b"123519", date: bytes = b"23,03,2094") -> bytes:
    return sentence(b"GPZDA,%s,%s,00,00" % (time, date))


def talking(seconds: Iterable[bytes], gap_s: float = 0.3):
    """A receiver that says one burst after the other until the driver hangs up."""

    def talk(line: SocketLine) -> None:
        stopped = threading.Event()
        line.connection.settimeout(10.0)
        with contextlib.suppress(OSError):
            for burst in seconds:
                line.connection.sendall(burst)
                stopped.wait(gap_s)
            line.connection.recv(1)

    return talk


def status_of(*bursts: bytes, **settings: object) -> TimeBaseStatus:
    with (
        serving(talking(bursts)) as address,
        contextlib.closing(connect(address, CLOCK, AGES | {"max_age_s": 1.2} | settings)) as time_base,
    ):
        return time_base.status()


def lines(*sentences: bytes) -> bytes:
    return b"".join(item + b"\r\n" for item in sentences)


def test_published_sentences_are_read() -> None:
    known = b"$GPRMC,123519,A,4807.038,N,01131.000,E,022.4,084.4,230394,003.1,W*6A"
    assert parse_sentence(known) == Sentence("RMC", "GP", 45_319 * 10**9, parse_utc("2094-03-23T00:00:00Z"), True)
    fix = b"$GPGGA,123519,4807.038,N,01131.000,E,1,08,0.9,545.4,M,46.9,M,,*47"
    assert parse_sentence(fix) == Sentence("GGA", "GP", 45_319 * 10**9, None, True)
    date = b"$GPZDA,201530.00,04,07,2002,00,00*60"
    assert parse_sentence(date) == Sentence("ZDA", "GP", 72_930 * 10**9, parse_utc("2002-07-04T00:00:00Z"))
    assert parse_sentence(sentence(b"GPGSV,1,1,00")) is None


@pytest.mark.parametrize(("mode", "fix"), [(b"A", True), (b"D", True), (b"N", False), (b"E", False), (b"S", False)])
def test_the_mode_indicator_decides_with_the_status(mode: bytes, fix: bool) -> None:
    found = parse_sentence(sentence(WITH_MODE + mode))
    assert found is not None
    assert found.fix is fix


def test_a_damaged_sentence_is_never_believed() -> None:
    good = rmc()
    for place in range(len(good)):
        for damaged in (good[:place] + good[place + 1 :], good[: place + 1] + good[place:]):
            with contextlib.suppress(WireError):
                found = parse_sentence(damaged)
                assert found is None or found == parse_sentence(good)  # a doubled $ or the like
    with pytest.raises(WireError):
        parse_sentence(good[:-3])  # no checksum


@pytest.mark.parametrize("time", [b"245960", b"126019", b"123561", b"1235", b"12x519"])
def test_a_time_that_is_none_is_a_wire_error_even_with_its_checksum(time: bytes) -> None:
    with pytest.raises(WireError):
        parse_sentence(rmc(time))


@given(st.binary(max_size=90))
def test_any_line_is_a_sentence_or_a_wire_error(line: bytes) -> None:
    for data in (line, b"$GPRMC," + line, sentence(b"GPRMC," + line), sentence(b"GPZDA,12,,," + line)):
        with contextlib.suppress(WireError):
            parse_sentence(data)


@given(
    st.lists(st.builds(Sentence, st.just("RMC"), st.just("GP"), st.integers(0, 9), st.integers(0, 9), st.booleans()))
)
def test_a_second_is_believed_only_when_its_sentences_agree(heard: list[Sentence]) -> None:
    epoch = judge(heard)
    if epoch.utc_ns is not None and epoch.fix:
        assert len({(item.time_ns, item.date_ns, item.fix) for item in heard}) == 1
        assert epoch.utc_ns == (heard[0].time_ns or 0) + (heard[0].date_ns or 0)


def test_a_second_with_a_fix_is_a_locked_time_base() -> None:
    burst = lines(gga(), rmc(), zda())
    found = status_of(burst, *[lines(gga(b"123520"), rmc(b"123520"), zda(b"123520"))] * 3)
    assert found == TimeBaseStatus(True, False, utc_ns=parse_utc("2094-03-23T12:35:20Z"))


def test_one_second_may_be_told_by_rmc_alone() -> None:
    assert status_of(*[lines(rmc(b"000000.00", date=b"010100"))] * 4).utc_ns == parse_utc("2000-01-01T00:00:00Z")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("burst", "said"),
    [
        (lines(rmc(status=b"V", mode=b"N")), "no fix"),
        (lines(gga(quality=b"0")), "no fix"),
        (lines(rmc(), gga(quality=b"0")), "some sentences claim a fix"),
        (lines(zda()), "whether there is a fix"),
        (lines(gga()), "date and time"),
        (lines(rmc(), zda(date=b"24,03,2094")), "different times"),
    ],
)
def test_without_a_fix_or_with_contradictions_there_is_no_time(burst: bytes, said: str) -> None:
    found = status_of(*[burst] * 6)
    assert (found.locked, found.utc_ns) == (False, None)
    assert said in found.trouble


def test_what_came_before_the_question_is_stale() -> None:
    with serving(talking([lines(rmc())])) as address:
        time_base = connect(address, CLOCK, AGES | {"max_age_s": 0.5})
        found = time_base.status()
        time_base.close()
    assert (found.locked, found.utc_ns) == (False, None)
    assert "stale" in found.trouble


def test_garbled_lines_are_said_and_never_a_time() -> None:
    found = status_of(lines(rmc()), *[lines(rmc().replace(b"123519", b"123518"))] * 5)
    assert (found.locked, found.utc_ns) == (False, None)
    assert "garbled" in found.trouble


def test_a_time_far_off_the_stations_clock_is_not_believed() -> None:
    found = status_of(*[lines(rmc(date=b"060180"))] * 4, max_clock_difference_s=86_400.0)
    assert (found.locked, found.utc_ns) == (False, None)
    assert "off the station's clock" in found.trouble


def test_silence_hang_up_and_other_talk_each_have_their_error() -> None:
    with serving(talking([])) as address, pytest.raises(TransportTimeout):
        connect(address, CLOCK, {"timeout_s": 0.2})
    with serving(talking([b"hello\r\n" * 3])) as address, pytest.raises(WrongInstrument, match="baud"):
        connect(address, CLOCK, {"timeout_s": 0.2})
    with serving(lambda line: line.close()) as address, pytest.raises(TransportLost):
        connect(address, CLOCK, {"timeout_s": 0.5})
    with pytest.raises(BadInput, match="max_age_s"):
        connect("serial:/dev/no-such-line", CLOCK, {"max_age_s": 0})
