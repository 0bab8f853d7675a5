"""The pure parsers of the drivers, each with a valid sample: module -> (parser of bytes, sample)."""

import json
import struct
from collections.abc import Callable

import numpy as np

from drivers import (
    alpaca,
    apt_messages,
    dome_alpaca,
    id900_protocol,
    json_stream,
    mount_alpaca,
    mount_easycomm,
    mount_ioptron,
    mount_rotctld,
    picoquant_frames,
    pwi4,
    scpi,
    supply_sim928,
    swabian_stream,
    tagger_picoquant,
    tagger_swabian,
    tdc1_words,
    tenmicron,
    time_base_jackson,
    time_base_nmea,
    weather_wxt,
    websq_messages,
)
from drivers.transport import HttpReply

Parse = Callable[[bytes], object]


def text(parse: Callable[[str], object]) -> Parse:
    """A parser of text, for bytes."""
    return lambda data: parse(data.decode("latin-1"))


def _tdc1(data: bytes) -> object:
    decoder, latest = tdc1_words.Tdc1Decoder(), -1
    for start in range(0, len(data), 37):
        block = decoder.feed(data[start : start + 37])
        assert (block.time_ps[1:] >= block.time_ps[:-1]).all()
        assert block.time_ps.size == 0 or block.time_ps[0] >= latest
        latest = block.latest_ps
    return decoder.settle()


def _swabian(data: bytes) -> object:
    """As tags of 16 bytes: kind, nothing, how many were missed, channel, time."""
    tags = np.frombuffer(data[: len(data) // 16 * 16], "u1, u1, <u2, <i4, <i8")
    decoder, latest_ps = swabian_stream.StreamDecoder((1, -2, 3), 100), -1
    for start in range(0, tags.size, 7):
        part = tags[start : start + 7]
        for block in decoder.feed(part["f4"], part["f3"], part["f0"], part["f2"], 0, False):
            assert (block.time_ps[1:] >= block.time_ps[:-1]).all()
            assert block.time_ps.size == 0 or block.time_ps[0] >= latest_ps
            latest_ps = block.latest_ps
    return decoder


def _ptu_head() -> bytes:
    tags = ((b"TTResult_NumberOfRecords", 0x10000008, 7), (b"Measurement_Mode", 0x10000008, 2))
    tags += ((b"File_Comment", 0x4001FFFF, 0), (b"Header_End", 0xFFFF0008, 0))
    return b"PQTTTR\0\0" + b"1.0.00\0\0" + b"".join(struct.pack("<32siIq", name, -1, *rest) for name, *rest in tags)


def _pwi4(data: bytes) -> object:
    status = pwi4.parse_status(data)
    return pwi4.parse_position(status)


#: Modules of drivers/ -> their parsers.
PARSERS: dict[str, tuple[tuple[Parse, bytes], ...]] = {
    "alpaca": (
        (
            lambda data: alpaca.parse_answer(HttpReply(200, data), 5),
            b'{"ClientTransactionID":5,"ErrorNumber":0,"ErrorMessage":"","Value":1.5}',
        ),
    ),
    "mount_alpaca": ((lambda data: mount_alpaca.parse_axis_rates(_json(data)), b'[{"Maximum":6.0,"Minimum":0.0}]'),),
    "dome_alpaca": ((lambda data: dome_alpaca.parse_shutter(_json(data)), b"1"),),
    "id900_protocol": (
        (id900_protocol.parse_identity, b"IDQuantique,ID900,1234,3.1"),
        (id900_protocol.parse_integer, b"250000000000TB"),
        (id900_protocol.parse_volts, b"1000mV"),
        (id900_protocol.parse_word, b"PLAYING"),
        (id900_protocol.parse_histogram, b"[0,5, 7]"),
        (id900_protocol.parse_link_id, b'{"id":"10.98.99.7:5556"}'),
        (id900_protocol.parse_link_list, b'["a:5556"]'),
        (id900_protocol.parse_link_status, b'{"status":{"errors":[],"timestamps_count":0}}'),
    ),
    "json_stream": ((lambda data: json_stream.JsonSplitter().feed(data), b'{"a":"}{"}\x17'),),
    "mount_easycomm": ((mount_easycomm.parse_position, b"AZ-184.5 EL-180.0"), (mount_easycomm.parse_version, b"VE2.2")),
    "mount_ioptron": (
        (mount_ioptron.parse_position, b"+16200000043380000#"),
        (mount_ioptron.parse_system_status, b"+0589320049751999210521#"),
        (mount_ioptron.parse_time, b"+00000000086400001#"),
        (mount_ioptron.parse_model, b"5035"),
        (mount_ioptron.parse_limit, b"-01#"),
        (mount_ioptron.parse_firmware, b"210105210105#"),
        (mount_ioptron.parse_done, b"1"),
    ),
    "pwi4": (
        (_pwi4, b"pwi4.version=4.0.11\nmount.azimuth_degs=1\nmount.altitude_degs=2\n"),
        (text(pwi4.parse_timestamp), b"2026-01-01 00:00:00.123"),
    ),
    "mount_rotctld": (
        (
            lambda data: mount_rotctld.parse_position(data.split(b"\n")),
            b"get_pos:\nAzimuth: 0.01\nElevation: 0.02",
        ),
        (lambda data: mount_rotctld.parse_state(data.split(b"\n")), b"dump_state:\nRotor Model: 1"),
        (mount_rotctld.parse_report, b"RPRT 0"),
    ),
    "websq_messages": (
        (websq_messages.parse_message, b'{"label":"BiasCurrent","value":[1.0]}'),
        (lambda data: websq_messages.parse_counts(data, 2), b"1596115200.25,12,0"),
    ),
    "apt_messages": (
        (apt_messages.split_message, bytes.fromhex("640401000150")),
        (apt_messages.parse_info, struct.pack("<I8s", 55000001, b"K10CR1") + bytes(72)),
        (apt_messages.parse_status, struct.pack("<HlLL", 1, 409600, 0, 0x400)),
    ),
    "scpi": (
        (scpi.parse_identity, b"KEYSIGHT,E36312A,MY1,1.0"),
        (scpi.parse_error, b'-113,"Undefined header"'),
        (scpi.parse_number, b"+1.5E+00"),
        (scpi.parse_integer, b"+1"),
        (scpi.parse_switch, b"ON"),
        (scpi.parse_block, b"#15HELLO"),
    ),
    "supply_sim928": ((supply_sim928.parse_slots, b"26"), (supply_sim928.parse_overloads, b"9")),
    "picoquant_frames": (
        (lambda data: picoquant_frames.FrameReader().feed(data), b'{"tags": 1}\n' + bytes(8) + b"\1"),
        (picoquant_frames.parse_ptu_header, _ptu_head()),
    ),
    "tagger_picoquant": ((text(tagger_picoquant.parse_place), b"picoquant:///data/a.ptu"),),
    "swabian_stream": (
        (_swabian, b"".join(struct.pack("<BxHiq", n % 5, n % 5, 1 + n % 3, 1000 * n) for n in range(12))),
    ),
    "tagger_swabian": ((text(tagger_swabian.parse_place), b"swabian://192.168.0.7:41101"),),
    "tdc1_words": ((_tdc1, b"".join((n * 5000 << 5 | 1).to_bytes(4, "little") for n in range(1, 60))),),
    "tenmicron": (
        (text(tenmicron.parse_info), b"19.44591,+88.0032,W,002.9803,+48.0032,2458352.10403639,5,0"),
        (text(tenmicron.parse_pass), b"2459580.60000000,2459580.61000000,F"),
        (text(tenmicron.parse_julian_date), b"2457204.49998843"),
        (text(tenmicron.parse_accepted), b"V"),
    ),
    "time_base_jackson": (
        (lambda data: time_base_jackson.find_reply(data, "SYNC:TINT?"), b"6.763E-08\r\n"),
        (text(time_base_jackson.parse_identity), b"Jackson Labs, LN Rb GPSDO (PRE), Firmware Rev 1.17"),
        (text(time_base_jackson.parse_health), b"0x54"),
        (text(time_base_jackson.parse_holdover), b"191,0"),
        (text(time_base_jackson.parse_three), b"7,46,13"),
        (text(time_base_jackson.parse_flag), b"1"),
        (text(time_base_jackson.parse_float), b"1.31E-11"),
    ),
    "time_base_nmea": ((time_base_nmea.parse_sentence, b"$GPZDA,201530.00,04,07,2002,00,00*60"),),
    "weather_wxt": (
        (weather_wxt.parse_weather, b"0R0,Dx=009D,Sx=0.2M,Ta=23.3C"),
        (weather_wxt.without_checksum, b"0r2,Ta=22.7C,Ua=55.5P,Pa=1004.7H@Fn"),
        (weather_wxt.parse_settings_reply, b"0XU,A=0,M=P,N=WXT520,V=1.00"),
    ),
}


def _json(data: bytes) -> object:
    """What the JSON of an answer's value is; these parsers get it already parsed."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return data.decode("latin-1")
