"""The NexStar driver against the transcripts of the protocol document and of INDI's unit test."""

import contextlib
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_far_end import Echo, Expect, HangUp, Reply, Step, Wait, reply, scripted_pty

from drivers.mount_nexstar import (
    AZIMUTH,
    ELEVATION,
    MAX_RATE_WORD,
    NexStarMount,
    connect,
    fixed_rate_stop_request,
    go_to_request,
    parse_binary,
    parse_position,
    parse_slewing,
    variable_rate_request,
)
from groundstation.clock import SimulatedClock, SystemClock
from groundstation.errors import (
    BadInput,
    InstrumentFault,
    TransportLost,
    TransportTimeout,
    WireError,
    WrongInstrument,
)

CLOCK = SystemClock()
IDENTIFY: tuple[Step, ...] = (
    Expect(any_echo=True),
    Echo(),
    Expect(b"V"),
    reply(b"\x04\x29#"),  # "4.41" in INDI's unit test
    Expect(b"m"),
    reply(b"\x0c#"),
)


def connected(address: str, timeout_s: float = 1.0) -> NexStarMount:
    mount = connect(address, CLOCK, {"timeout_s": timeout_s})
    assert isinstance(mount, NexStarMount)
    return mount


# --- The protocol, against published vectors


def test_a_go_to_is_the_one_of_indis_unit_test() -> None:
    assert go_to_request(45.0, 45.0) == b"b20000000,20000000"
    assert go_to_request(270.0, -90.0) == b"bC0000000,C0000000"
    assert go_to_request(360.0, 0.0) == b"b00000000,00000000"


def test_a_variable_rate_is_arcseconds_per_second_times_four() -> None:
    assert variable_rate_request(AZIMUTH, 150.0) == bytes((0x50, 3, 16, 6, 2, 88, 0, 0))
    assert variable_rate_request(ELEVATION, -150.0) == bytes((0x50, 3, 17, 7, 2, 88, 0, 0))
    assert variable_rate_request(ELEVATION, 0.125)[4:6] == b"\x00\x01"
    assert variable_rate_request(ELEVATION, 0.124)[4:6] == b"\x00\x00"


def test_no_rate_reaches_the_words_that_mean_sidereal_solar_or_lunar() -> None:
    assert int.from_bytes(variable_rate_request(AZIMUTH, 1e9)[4:6], "big") == MAX_RATE_WORD < 0xFFFD


def test_a_fixed_rate_of_zero_is_pass_through_36() -> None:
    assert fixed_rate_stop_request(ELEVATION) == bytes((0x50, 2, 17, 36, 0, 0, 0, 0))


def test_a_position_is_two_fractions_of_a_turn() -> None:
    assert parse_position(b"20000000,20000000#") == (45.0, 45.0)
    azimuth_deg, elevation_deg = parse_position(b"12AB0500,40000500#")
    assert azimuth_deg == pytest.approx(0x12AB0500 / 2**32 * 360.0)
    assert elevation_deg == pytest.approx(90.0001, abs=1e-4)
    assert parse_position(b"c0000000,F0000000#") == (270.0, -22.5)


@given(st.binary(max_size=24))
def test_any_bytes_are_understood_or_refused_as_a_wire_error(data: bytes) -> None:
    for parse in (parse_position, parse_slewing, parse_binary):
        with contextlib.suppress(WireError):
            parse(data)


@given(st.floats(0.0, 359.999), st.floats(-90.0, 90.0))
def test_a_commanded_position_reads_back_within_a_thousandth_of_an_arcsecond(azimuth: float, elevation: float) -> None:
    text = go_to_request(azimuth, elevation)[1:] + b"#"
    azimuth_back, elevation_back = parse_position(text)
    assert (azimuth_back - azimuth + 180.0) % 360.0 - 180.0 == pytest.approx(0.0, abs=1e-3 / 3600)
    assert elevation_back == pytest.approx(elevation, abs=1e-3 / 3600)


# --- The driver, against a scripted mount on a pseudo-terminal


def test_connecting_asks_echo_version_and_model() -> None:
    with scripted_pty(*IDENTIFY, *IDENTIFY) as address:
        mount = connected(address)
        identity = mount.identify()
        assert (identity.model, identity.firmware) == ("NexStar 6/8 SE", "4.41")
        mount.close()
        mount.close()


def test_a_reading_carries_the_middle_of_the_exchange_in_world_time() -> None:
    clock = SimulatedClock(1_482_166_140 * 10**9, time.monotonic_ns(), 20.0)
    with scripted_pty(*IDENTIFY, Expect(b"z"), reply(b"2000", b"0000,40000000#", pause_s=0.05)) as address:
        mount = connect(address, clock, {})
        before_ns = clock.utc_ns()
        reading = mount.read_position()
        after_ns = clock.utc_ns()
        mount.close()
    assert (reading.azimuth_deg, reading.elevation_deg) == (45.0, 90.0)
    assert before_ns < reading.utc_ns < after_ns
    on_line_s = 19 * 10 / 9600  # bytes there and back at 9600 baud, taken off the exchange
    assert 0.5 * (0.05 * 20 - on_line_s) <= reading.uncertainty_s <= (after_ns - before_ns) / 2e9


def test_tracking_commands_both_axes() -> None:
    with scripted_pty(
        *IDENTIFY,
        Expect(bytes((0x50, 3, 16, 6, 2, 88, 0, 0))),
        reply(b"#"),
        Expect(bytes((0x50, 3, 17, 7, 0, 0x23, 0, 0))),  # a '#' in the request
        reply(b"#"),
        Expect(b"b20000000,20000000"),
        reply(b"#"),
        Expect(b"L"),
        reply(b"1#"),
        Expect(b"L"),
        reply(b"0#"),
    ) as address:
        mount = connected(address)
        mount.set_rates(150.0, -8.75)
        mount.go_to(45.0, 45.0)
        assert mount.is_slewing()
        assert not mount.is_slewing()
        mount.close()


def test_rates_are_capped_at_what_the_mount_can_do() -> None:
    with scripted_pty(
        *IDENTIFY,
        Expect(bytes((0x50, 3, 16, 6, 0x0E, 0x10, 0, 0))),  # 3600 = 900 arcsec/s x 4
        reply(b"#"),
        Expect(bytes((0x50, 3, 17, 7, 0x0E, 0x10, 0, 0))),
        reply(b"#"),
    ) as address:
        mount = connect(address, CLOCK, {"max_rate_deg_s": 0.25})
        assert mount.capabilities.max_rate_deg_s == 0.25
        mount.set_rates(20_000.0, -20_000.0)
        mount.close()


def test_stopping_cancels_the_slew_and_both_rates() -> None:
    with scripted_pty(
        *IDENTIFY,
        Expect(b"M"),
        reply(b"#"),
        Expect(bytes((0x50, 2, 16, 36, 0, 0, 0, 0))),
        reply(b"#"),
        Expect(bytes((0x50, 2, 17, 36, 0, 0, 0, 0))),
        reply(b"#"),
    ) as address:
        mount = connected(address)
        mount.stop()
        mount.close()


def test_an_axis_that_does_not_take_its_rate_is_named_and_the_other_is_stopped_all_the_same() -> None:
    with scripted_pty(
        *IDENTIFY,
        Expect(b"M"),
        reply(b"#"),
        Expect(bytes((0x50, 2, 16, 36, 0, 0, 0, 0))),
        reply(b"\x00#"),  # a failed pass-through has an extra 0 byte
        Expect(bytes((0x50, 2, 17, 36, 0, 0, 0, 0))),
        reply(b"#"),
    ) as address:
        mount = connected(address)
        with pytest.raises(InstrumentFault, match="axis"):
            mount.stop()
        mount.close()


def test_nothing_is_commanded_for_a_rate_or_a_place_that_is_none() -> None:
    with scripted_pty(*IDENTIFY) as address:
        mount = connected(address)
        with pytest.raises(BadInput, match="nothing was commanded"):
            mount.set_rates(10.0, float("nan"))
        with pytest.raises(BadInput, match="-90 to 90"):
            mount.go_to(0.0, 91.0)
        mount.close()


def test_a_late_reply_is_not_taken_for_the_next_one() -> None:
    late = threading.Event()
    with scripted_pty(
        *IDENTIFY,
        Expect(b"b20000000,20000000"),
        Wait(late),
        Expect(any_echo=True),
        Echo(before=b"#"),  # the go-to's answer comes after the driver gave up
        Expect(b"z"),
        reply(b"20000000,20000000#"),
    ) as address:
        mount = connected(address, timeout_s=0.3)
        with pytest.raises(TransportTimeout):
            mount.go_to(45.0, 45.0)
        late.set()
        assert mount.read_position().azimuth_deg == 45.0
        mount.close()


def test_a_question_lost_on_the_line_is_asked_once_more() -> None:
    with scripted_pty(
        *IDENTIFY,
        Expect(b"z"),
        reply(b"2000"),  # the rest is lost
        Expect(any_echo=True),
        Echo(),
        Expect(b"z"),
        reply(b"20000000,20000000#"),
    ) as address:
        mount = connected(address, timeout_s=0.3)
        assert mount.read_position().elevation_deg == 45.0
        mount.close()


def test_garbage_in_a_reply_is_a_wire_error_after_a_second_try() -> None:
    with scripted_pty(
        *IDENTIFY,
        Expect(b"L"),
        reply(b"??"),
        Expect(any_echo=True),
        Echo(),
        Expect(b"L"),
        reply(b"##"),
    ) as address:
        mount = connected(address)
        with pytest.raises(WireError, match="0# or 1#"):
            mount.is_slewing()
        mount.close()


def test_bytes_left_over_from_another_program_do_not_confuse_the_connection() -> None:
    with scripted_pty(Reply((b"1234,5678#",)), *IDENTIFY) as address:
        connected(address).close()


def test_a_silent_line_is_a_timeout_in_one_clear_sentence() -> None:
    with (
        scripted_pty(Expect(any_echo=True)) as address,
        pytest.raises(TransportTimeout, match="no mount answers"),
    ):
        connect(address, CLOCK, {"timeout_s": 0.1})


def test_another_model_is_the_wrong_instrument() -> None:
    with (
        scripted_pty(*IDENTIFY) as address,
        pytest.raises(WrongInstrument, match=r"model 12.*expected model 20"),
    ):
        connect(address, CLOCK, {"expected_model": 20})
    unknown = (*IDENTIFY[:5], reply(b"\xa5#"))
    with scripted_pty(*unknown) as address, pytest.raises(WrongInstrument, match="model 165"):
        connect(address, CLOCK, {})


def test_something_that_talks_but_does_not_echo_is_the_wrong_instrument() -> None:
    with (
        scripted_pty(Expect(any_echo=True), reply(b"ERR unknown command\r\n")) as address,
        pytest.raises(WrongInstrument, match="does not answer as a NexStar"),
    ):
        connect(address, CLOCK, {"timeout_s": 0.2})


def test_a_mount_that_hangs_up_is_lost() -> None:
    with scripted_pty(*IDENTIFY, Expect(b"z"), HangUp()) as address:
        mount = connected(address)
        with pytest.raises(TransportLost):
            mount.read_position()
        mount.close()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"expected_modell": 12}, 'nearest valid key is "expected_model"'),
        ({"timeout_s": "3"}, "timeout_s"),
        ({"timeout_s": -1}, "above 0"),
        ({"expected_model": True}, "expected_model"),
    ],
)
def test_wrong_settings_are_named_before_the_line_is_opened(settings: dict[str, object], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        connect("serial:/dev/no-such-line", CLOCK, settings)


def test_readings_from_two_threads_never_cross() -> None:
    answers: list[float] = []
    steps: list[Step] = [*IDENTIFY]
    for _ in range(100):
        steps += [Expect(b"z"), reply(b"20000000,20000000#")]
    with scripted_pty(*steps) as address:
        mount = connected(address)

        def read() -> None:
            answers.extend(mount.read_position().azimuth_deg for _ in range(50))

        threads = [threading.Thread(target=read) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        mount.close()
    assert answers == [45.0] * 100
