"""The TDC1's driver: the vendor's commands over a real line, its counters, its silence, and what goes wrong."""

import contextlib
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_far_end import Expect, HangUp, Step, Wait, reply, scripted_pty

from drivers.tagger_tdc1 import (
    PairCounts,
    connect,
    connect_counter,
    level_command,
    parse_counts,
    parse_identity,
    parse_level_v,
    parse_mode,
    parse_time_ms,
    stream_command,
)
from drivers.tdc1_arrivals import Arrivals
from drivers.tdc1_words import TURN_PS
from groundstation.clock import SystemClock
from groundstation.errors import (
    BadInput,
    InstrumentFault,
    TransportLost,
    TransportTimeout,
    WireError,
    WrongInstrument,
)
from groundstation.instruments import TimeTagger

CLOCK = SystemClock()
TURN = 1 << 27
S = 1_000_000_000_000


def encode(*words: tuple[int, int]) -> bytes:
    return b"".join((((ticks % TURN) << 5) | low).to_bytes(4, "little") for ticks, low in words)


def read_for_ever(tagger: TimeTagger) -> None:
    for _ in range(100):
        tagger.read(0.1)


def setting_up(level: bytes = b"NIM", answer: bytes = b"-0.500 V", clock: bytes = b"0") -> list[Step]:
    """What `connect` says before it streams or counts."""
    return [
        Expect(b"\r\nabort\r\n*RST\r\n*IDN?\r\n"),
        reply(b"S-Fifteen Instruments TDC1 v2\r\n"),
        Expect(level + b"\r\nLEVEL?\r\n"),
        reply(answer + b"\r\n"),
        Expect(b"REFCLK " + clock + b"\r\nREFCLK?\r\n"),
        reply(clock + b"\r\n"),
    ]


def test_the_stream_is_started_as_the_vendors_client_does_and_aborted_at_the_end() -> None:
    words = [(1000 + 5000 * i, 1 << i % 4) for i in range(50)]
    with scripted_pty(
        *setting_up(),
        Expect(b"INPKT;NIM;time 0;timestamp;counts?;\r\n"),
        reply(encode(*words)[:31], encode(*words)[31:], pause_s=0.02),
        Expect(b"abort\r\n"),
    ) as address:
        tagger = connect(address, CLOCK, {"timeout_s": 2.0})
        assert tagger.identify() == tagger.identify()
        assert (tagger.identify().model, tagger.identify().firmware) == ("S-Fifteen TDC1", "v2")
        assert tagger.resolution_ps == 2000
        times: list[int] = []
        while len(times) < len(words):
            times += tagger.read(0.5).time_ps.tolist()
        assert times == [2000 * ticks for ticks, _ in words]
        tagger.close()
        tagger.close()


@pytest.mark.parametrize(
    ("settings", "command", "answer"),
    [
        ({"threshold_v": -0.5}, b"NEG -0.5", b"-0.498 V"),
        ({"threshold_v": 1.25}, b"POS 1.25", b"1.25 V"),
        ({"level": "ttl"}, b"TTL", b"1.5V"),
    ],
)
def test_levels_are_set_as_the_vendors_client_writes_them_and_read_back(
    settings: dict[str, object], command: bytes, answer: bytes
) -> None:
    answer = answer.replace(b"1.5V", b"1.5 V")
    with scripted_pty(*setting_up(command, answer)) as address:
        connect_counter(address, CLOCK, {"timeout_s": 2.0, **settings}).close()


def test_a_level_that_does_not_read_back_is_a_fault() -> None:
    with scripted_pty(*setting_up(b"NEG -3", b"-1.0 V")[:4]) as address, pytest.raises(InstrumentFault, match="-1 V"):
        connect_counter(address, CLOCK, {"timeout_s": 2.0, "threshold_v": -3.0})


def test_an_external_clock_must_be_there() -> None:
    steps = [*setting_up(clock=b"1"), Expect(b"ECLOCK?\r\n"), reply(b"0\r\n")]
    with scripted_pty(*steps) as address, pytest.raises(InstrumentFault, match="no external clock"):
        connect_counter(address, CLOCK, {"timeout_s": 2.0, "reference_clock": "external"})


def test_counters_count_singles_and_pairs_and_mend_the_time_bug() -> None:
    with scripted_pty(
        *setting_up(),
        Expect(b"singles;time 60000\r\nMODE?\r\n"),
        reply(b"0\r\n"),
        Expect(b"time?\r\n"),
        reply(b"-5536\r\n"),
        Expect(b"counts?\r\n"),
        reply(b"100 200 300 400\r\n"),
        Expect(b"pairs;time 100\r\nMODE?\r\n"),
        reply(b"1\r\n"),
        Expect(b"time?\r\n"),
        reply(b"100\r\n"),
        Expect(b"counts?\r\n"),
        reply(b"1 2 3 4 5 6 7 8\r\n"),
    ) as address:
        device = connect_counter(address, CLOCK, {"timeout_s": 2.0})
        assert device.counts(60.0) == (100, 200, 300, 400)
        assert device.pair_counts(0.1) == PairCounts((1, 2, 3, 4), (5, 6, 7, 8))
        for impossible in (0.0, 0.0001, 66.0, float("nan"), float("inf"), -1.0):
            with pytest.raises(BadInput, match=r"65\.535"):
                device.counts(impossible)
        device.close()


def test_a_mode_that_is_not_taken_is_a_fault() -> None:
    with scripted_pty(
        *setting_up(),
        Expect(b"singles;time 100\r\nMODE?\r\n"),
        reply(b"3\r\n"),
        Expect(b"time?\r\n"),
        reply(b"100\r\n"),
    ) as address:
        device = connect_counter(address, CLOCK, {"timeout_s": 2.0})
        with pytest.raises(InstrumentFault, match="timestamp"):
            device.counts(0.1)
        device.close()


def test_a_question_that_was_lost_is_asked_again() -> None:
    steps = setting_up()
    steps[:2] = [
        Expect(b"\r\nabort\r\n*RST\r\n*IDN?\r\n"),
        Expect(b"\r\n*IDN?\r\n"),
        reply(b"TDC1\r\n"),
    ]
    with scripted_pty(*steps) as address:
        connect_counter(address, CLOCK, {"timeout_s": 0.3}).close()


def test_another_instrument_is_the_wrong_one_and_a_silent_line_a_timeout() -> None:
    hello = Expect(b"\r\nabort\r\n*RST\r\n*IDN?\r\n")
    with scripted_pty(hello, reply(b"S-Fifteen SPD\r\n")) as address, pytest.raises(WrongInstrument, match="SPD"):
        connect(address, CLOCK, {"timeout_s": 2.0})
    with scripted_pty(hello, Expect(b"\r\n*IDN?\r\n")) as address, pytest.raises(TransportTimeout):
        connect(address, CLOCK, {"timeout_s": 0.2})


def test_a_stream_that_does_not_begin_is_a_timeout_and_an_unplugged_one_is_lost() -> None:
    start = Expect(b"INPKT;NIM;time 0;timestamp;counts?;\r\n")
    with scripted_pty(*setting_up(), start) as address, pytest.raises(TransportTimeout, match="sent 0 bytes"):
        connect(address, CLOCK, {"timeout_s": 0.3})
    words = encode(*((1000 * i, 1) for i in range(20)))
    go = threading.Event()
    with scripted_pty(*setting_up(), start, reply(words), Wait(go), HangUp()) as address:
        tagger = connect(address, CLOCK, {"timeout_s": 2.0})
        tagger.read(0.1)
        go.set()
        with pytest.raises(TransportLost):
            read_for_ever(tagger)
        tagger.close()


@pytest.mark.parametrize(
    "settings",
    [
        {"level": "ECL"},
        {"reference_clock": "gps"},
        {"threshold_v": 0.0},
        {"threshold_v": float("nan")},
        {"timeout_s": 0.0},
        {"treshold_v": 1.0},
    ],
)
def test_settings_out_of_range_are_refused_before_anything_is_opened(settings: dict[str, object]) -> None:
    with pytest.raises(BadInput):
        connect("serial:/dev/no-such-line", CLOCK, settings)


def test_a_silence_longer_than_a_turn_is_noted_and_its_turns_are_counted_by_the_hosts_clock() -> None:
    """0.9 s without a word, of which the words show 0.095 s: three turns of 0.268 s are missing."""
    before = [(1000 + 1000 * i, 1) for i in range(20)]
    later = before[-1][0] + 450_000_000
    after = [(later + 1000 * i, 2) for i in range(20)]
    with scripted_pty(
        *setting_up(),
        Expect(stream_command("NIM")),
        reply(encode(*before), encode(*after), pause_s=0.9),
        Expect(b"abort\r\n"),
    ) as address:
        tagger = connect(address, CLOCK, {"timeout_s": 2.0})
        times, notes = [], []
        while len(times) < 40:
            block = tagger.read(0.02)
            times += block.time_ps.tolist()
            notes += block.notes
        tagger.close()
    assert times == [2000 * ticks for ticks, _ in before + after]
    assert len(notes) == 1
    assert "silent for 0.90 s, longer than its counter's turn" in notes[0]


# --- Arrivals, pure


def heard(*moments_s: float, speed: float = 1.0) -> Arrivals:
    """Words came at these moments, and told the same time."""
    arrivals = Arrivals(speed)
    arrivals.begin(0, 0)
    for moment_s in moments_s:
        arrivals.heard(round(moment_s * S), round(moment_s * S))
    return arrivals


def hear(arrivals: Arrivals, words: list[tuple[int, int]]) -> None:
    for device_ps, host_ps in words:
        arrivals.heard(device_ps, host_ps)


def test_turns_are_counted_by_the_host_only_where_it_listened_and_is_sure() -> None:
    arrivals = heard(10.0)
    arrivals.listened(round(10.9 * S))
    assert arrivals.silent(round(10.9 * S))
    assert arrivals.turns(10 * S, 10 * S + round(0.9 * S), round(10.9 * S)) == 0
    assert arrivals.turns(10 * S, 10 * S + round(0.9 * S) - 3 * TURN_PS, round(10.93 * S)) == 3
    with pytest.raises(WireError, match=r"0\.90 s.*connect again"):
        arrivals.turns(10 * S, 10 * S + round(0.9 * S) - TURN_PS * 5 // 2, round(10.9 * S))
    stalled = heard(10.0)
    with pytest.raises(WireError):
        stalled.turns(10 * S, 10 * S + round(0.9 * S) - 3 * TURN_PS, round(10.9 * S))
    assert stalled.turns(10 * S, 10 * S + round(0.9 * S), round(10.9 * S)) == 0


def test_in_a_fast_world_the_host_counts_no_turns_and_a_long_silence_is_an_error() -> None:
    arrivals = heard(10.0, speed=20.0)
    assert not arrivals.silent(round(12.9 * S))
    arrivals.listened(30 * S)
    with pytest.raises(WireError):
        arrivals.turns(10 * S, 30 * S, 30 * S)
    assert arrivals.turns(10 * S, round(13.2 * S), round(13.5 * S)) == 0


@pytest.mark.parametrize(("turns", "word"), [(1, "ahead of"), (-1, "behind"), (-3, "behind")])
def test_a_time_that_stays_apart_from_the_hosts_is_an_error(turns: int, word: str) -> None:
    arrivals = heard(*(i * 0.05 for i in range(200)))
    moments = [i * S // 20 for i in range(200, 400)]
    with pytest.raises(WireError, match=word):
        hear(arrivals, [(moment + turns * TURN_PS, moment) for moment in moments])


@given(st.lists(st.floats(0.0, 0.1), min_size=10, max_size=100), st.sampled_from([-5e-5, 0.0, 5e-5]))
def test_words_that_come_late_and_an_oscillator_that_drifts_are_no_error(late_s: list[float], drift: float) -> None:
    told_s = [i * 0.1 for i in range(2000)]
    late = [late_s[i % len(late_s)] for i in range(2000)]
    hear(heard(), [(round(t * (1 + drift) * S), round((t + d) * S)) for t, d in zip(told_s, late, strict=True)])


# --- Parsers


def test_the_answers_of_the_manual_are_understood() -> None:
    assert parse_identity(b"S-Fifteen Instruments - TDC1\r\n").firmware == ""
    assert [parse_time_ms(text) for text in (b"0", b"900", b"-1", b"-32768", b"65535")] == [0, 900, 65535, 32768, 65535]
    assert [parse_mode(text) for text in (b"0", b"1", b"3\r\n")] == ["singles", "pairs", "timestamp"]
    assert parse_level_v(b"-0.5 V") == -0.5
    assert parse_counts(b"1 2 3 4\r\n", 4) == (1, 2, 3, 4)
    assert level_command("NIM", None) == "NIM"


@given(st.binary(max_size=60))
def test_any_answer_is_a_value_or_our_error(line: bytes) -> None:
    for parse in (parse_identity, parse_time_ms, parse_mode, parse_level_v, lambda text: parse_counts(text, 4)):
        with contextlib.suppress(WireError):
            parse(line)


def test_a_tagger_that_comes_back_after_an_outage_counts_from_anywhere() -> None:
    """The time base across an outage is the acquisition's; a connection's own begins where its first word says."""
    first = [(TURN - 2000 + 100 * i, 1) for i in range(40)]
    with scripted_pty(*setting_up(), Expect(stream_command("NIM")), reply(encode(*first)), Expect(b"abort\r\n")) as a:
        tagger = connect(a, CLOCK, {"timeout_s": 2.0})
        times = np.concatenate([tagger.read(0.3).time_ps for _ in range(4)])
        tagger.close()
    assert times.tolist() == [2000 * ticks for ticks, _ in first]
