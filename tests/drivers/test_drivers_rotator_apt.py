"""The rotation stage's driver against the messages of Thorlabs' document, on a pseudo-terminal."""

import contextlib
import io
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_far_end import Expect, HangUp, Reply, Step, reply, scripted_pty

from drivers.apt_messages import (
    ASK_INFO,
    HOME,
    STOP,
    STOP_UPDATES,
    move_request,
    parse_info,
    parse_status,
    short_message,
    split_message,
    troubles,
)
from drivers.rotator_apt import AptRotator, connect
from groundstation.clock import SystemClock
from groundstation.errors import (
    BadInput,
    InstrumentFault,
    TransportLost,
    TransportTimeout,
    WireError,
    WrongInstrument,
)

CLOCK = SystemClock()
IS_HOMED, MOVING, HOMING = 0x400, 0x10, 0x200


def info(model: bytes = b"K10CR1", stage: int = 0, serial: int = 55000001) -> bytes:
    """hw_get_info as the document lays it out: 6 bytes of header, 84 of data."""
    data = struct.pack("<I8sH4B", serial, model, 16, 3, 2, 1, 0) + bytes(60 - 2) + struct.pack("<HHHH", stage, 3, 1, 1)
    return bytes.fromhex("06 00 54 00 81 50") + data[:18] + data[18:76] + data[76:]


def status(position: int, bits: int = IS_HOMED, number: int = 0x0481) -> bytes:
    return struct.pack("<HHBB", number, 14, 0x81, 0x50) + struct.pack("<HllL", 1, position, position, bits)


IDENTIFY: tuple[Step, ...] = (
    Expect(bytes.fromhex("12 00 00 00 50 01")),
    Expect(bytes.fromhex("05 00 00 00 50 01")),
    reply(info()),
)
ASK_STATUS = Expect(bytes.fromhex("80 04 01 00 50 01"))


def test_the_messages_are_those_of_the_document() -> None:
    assert short_message(ASK_INFO) == bytes.fromhex("05 00 00 00 50 01")
    assert short_message(HOME, 1) == bytes.fromhex("43 04 01 00 50 01")
    assert short_message(STOP, 1, 2) == bytes.fromhex("65 04 01 02 50 01")
    assert move_request(200_000) == bytes.fromhex("53 04 06 00 D0 01 01 00 40 0D 03 00")  # document: 10 mm of a TDC001


@pytest.mark.counterpart("thorlabs_apt_protocol")
def test_another_codec_writes_the_same_messages_and_reads_the_same_from_the_stages() -> None:
    import thorlabs_apt_protocol as apt

    assert short_message(ASK_INFO) == apt.hw_req_info(dest=0x50, source=1)
    assert short_message(STOP_UPDATES) == apt.hw_stop_updatemsgs(dest=0x50, source=1)
    assert short_message(HOME, 1) == apt.mot_move_home(dest=0x50, source=1, chan_ident=1)
    assert short_message(STOP, 1, 2) == apt.mot_move_stop(dest=0x50, source=1, chan_ident=1, stop_mode=2)
    assert short_message(0x0480, 1) == apt.mot_req_statusupdate(dest=0x50, source=1, chan_ident=1)
    assert short_message(0x0490, 1) == apt.mot_req_dcstatusupdate(dest=0x50, source=1, chan_ident=1)
    for counts in (-5, 0, 4_096_000):
        assert move_request(counts) == apt.mot_move_absolute(dest=0x50, source=1, chan_ident=1, position=counts)
    theirs = list(apt.Unpacker(io.BytesIO(info() + status(-123456, IS_HOMED | MOVING))))
    ours = parse_info(info()[6:])
    assert (theirs[0].model_number.rstrip(b"\0").decode(), theirs[0].serial_number) == (ours.model, ours.serial)
    assert ".".join(map(str, theirs[0].firmware_version)) == ours.firmware == "1.2.3"
    found = parse_status(status(-123456, IS_HOMED | MOVING)[6:])
    assert (theirs[1].position, theirs[1].moving_forward, theirs[1].homed) == (-123456, True, True)
    assert (found.position, found.bits) == (-123456, IS_HOMED | MOVING)


@given(st.binary(max_size=200))
def test_any_bytes_are_messages_incomplete_or_a_wire_error(data: bytes) -> None:
    for parse in (parse_info, parse_status, split_message):
        with contextlib.suppress(WireError):
            parse(data)


@given(
    st.lists(st.sampled_from([info(), status(5), status(-7), bytes.fromhex("64 04 01 00 01 50")])), st.integers(1, 9)
)
def test_any_cut_gives_the_same_messages(messages: list[bytes], size: int) -> None:
    stream, rest, found = b"".join(messages), b"", []
    for i in range(0, len(stream), size):
        rest += stream[i : i + size]
        message, rest = split_message(rest)
        while message is not None:
            found.append(message)
            message, rest = split_message(rest)
    assert rest == b""
    assert [message.number for message in found] == [struct.unpack_from("<H", message)[0] for message in messages]


def test_a_stage_turns_to_an_angle_and_says_how_far_it_is_off() -> None:
    target = round(45.0 * 409600 / 3)
    with scripted_pty(
        *IDENTIFY,
        ASK_STATUS,
        reply(status(0)),
        Expect(move_request(target)),
        ASK_STATUS,
        reply(status(100, IS_HOMED | MOVING)[:7], status(100, IS_HOMED | MOVING)[7:], pause_s=0.02),
        ASK_STATUS,
        reply(status(5000, IS_HOMED | MOVING)),
        ASK_STATUS,
        reply(bytes.fromhex("64 04 0E 00 81 50") + bytes(14) + status(target - 3)),  # "moved" glued in front
        ASK_STATUS,
        reply(status(target - 3)),
        ASK_STATUS,
        reply(status(target - 3)),
    ) as address:
        rotator = connect(address, CLOCK, {})
        assert isinstance(rotator, AptRotator)
        rotator.go_to(45.0)
        assert rotator.is_moving()
        assert not rotator.is_moving()
        assert rotator.skipped == {0x0464: 1}
        assert rotator.angle_deg() == pytest.approx(45.0, abs=1e-4)
        assert rotator.angle_error_deg() == pytest.approx(-3 / (409600 / 3))
        rotator.close()
        rotator.close()


def test_homing_and_stopping() -> None:
    with scripted_pty(
        *IDENTIFY,
        Expect(short_message(HOME, 1)),
        ASK_STATUS,
        reply(status(-50, 0)),
        ASK_STATUS,
        reply(status(-60, HOMING)),
        ASK_STATUS,
        reply(bytes.fromhex("44 04 01 00 01 50") + status(0)),
        Expect(short_message(STOP, 1, 2)),
        ASK_STATUS,
        reply(status(9, IS_HOMED | 0x20)),
        ASK_STATUS,
        reply(status(8)),
    ) as address:
        rotator = connect(address, CLOCK, {})
        rotator.home()
        assert not rotator.is_moving()
        rotator.stop()
        rotator.close()


def test_a_servo_controller_is_asked_in_its_own_way_and_names_its_stage() -> None:
    for settings, stage in (({}, 6), ({"stage": "PRM1Z8"}, 0), ({"counts_per_deg": 1919.6418578623391}, 0)):
        with scripted_pty(
            *IDENTIFY[:2],
            reply(info(b"KDC101\0\0", stage)),
            Expect(bytes.fromhex("90 04 01 00 50 01")),
            reply(status(172768, number=0x0491)),
        ) as address:
            rotator = connect(address, CLOCK, settings)
            assert rotator.angle_deg() == pytest.approx(90.0, abs=1e-3)
            rotator.close()


@pytest.mark.parametrize(("model", "stage"), [(b"KDC101", 2), (b"BSC201", 0), (b"", 0)])
def test_a_stage_of_unknown_counts_per_degree_is_refused(model: bytes, stage: int) -> None:
    with (
        scripted_pty(*IDENTIFY[:2], reply(info(model, stage))) as address,
        pytest.raises(WrongInstrument, match="counts_per_deg"),
    ):
        connect(address, CLOCK, {})


def test_angles_that_cannot_be_are_refused_before_anything_is_sent_and_so_is_a_stage_without_zero() -> None:
    with scripted_pty(*IDENTIFY, ASK_STATUS, reply(status(0, 0))) as address:
        rotator = connect(address, CLOCK, {})
        for angle_deg in (float("nan"), float("inf"), 20_000.0):
            with pytest.raises(BadInput, match="cannot turn"):
                rotator.go_to(angle_deg)
        with pytest.raises(InstrumentFault, match="home it first"):
            rotator.go_to(10.0)
        rotator.close()


def test_trouble_and_complaints_of_the_stage_are_faults() -> None:
    complaint = bytes.fromhex("81 00 44 00 81 50") + struct.pack("<HH64s", 0x0453, 1, b"stage jammed")
    with scripted_pty(
        *IDENTIFY, ASK_STATUS, reply(status(0, 0x20000 | 0x4000)), ASK_STATUS, reply(complaint)
    ) as address:
        rotator = connect(address, CLOCK, {})
        with pytest.raises(InstrumentFault, match="excessive position error, too hot"):
            rotator.is_moving()
        with pytest.raises(InstrumentFault, match="stage jammed"):
            rotator.is_moving()
        rotator.close()
    assert troubles(IS_HOMED | MOVING | 0x80000000) == ""


@pytest.mark.slow
@pytest.mark.parametrize("place", [0, 5, 9, 10, 11, 18])
def test_a_byte_too_few_or_too_many_is_never_read_as_an_angle(place: int) -> None:
    good = status(4_096_000)
    for spoiled in (good[:place] + good[place + 1 :], good[: place + 1] + good[place:]):
        with scripted_pty(*IDENTIFY, ASK_STATUS, reply(spoiled), *IDENTIFY, ASK_STATUS, reply(good)) as address:
            rotator = connect(address, CLOCK, {"timeout_s": 0.2})
            assert rotator.angle_deg() == pytest.approx(30.0)
            rotator.close()


def test_silence_hang_up_and_other_talk_each_have_their_error() -> None:
    with scripted_pty(*IDENTIFY[:2]) as address, pytest.raises(TransportTimeout):
        connect(address, CLOCK, {"timeout_s": 0.2})
    with scripted_pty(IDENTIFY[0], HangUp()) as address, pytest.raises(TransportLost):
        connect(address, CLOCK, {"timeout_s": 1.0})
    other: tuple[Step, ...] = (IDENTIFY[1], Reply((b"error: unknown command\r\n",)))
    with scripted_pty(IDENTIFY[0], *other, *other, *other) as address, pytest.raises(WrongInstrument):
        connect(address, CLOCK, {"timeout_s": 0.12})


def test_settings_are_checked() -> None:
    for settings, named in (
        ({"stage": "PRM2"}, "PRM1Z8"),
        ({"counts_per_deg": 0.0}, "above 0"),
        ({"stge": "x"}, "stage"),
    ):
        with pytest.raises(BadInput, match=named):
            connect("serial:/dev/no-such-line", CLOCK, settings)
