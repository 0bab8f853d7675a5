"""The ID900's driver: IDQ's order of calls over hand-made ZMTP, merging against a plain model, refusals."""

import threading
from contextlib import suppress

import numpy as np
import pytest
from hand_zmtp import TimeController
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers import id900_protocol as protocol
from drivers.id900_protocol import SubAcquisitions
from drivers.tagger_id900 import connect
from groundstation.clock import SystemClock
from groundstation.errors import BadInput, GroundStationError, InstrumentFault, WireError, WrongInstrument

PERIOD_PS = 250_000_000_000
DEADLINE_S = 10.0


@pytest.fixture(params=[False, True], ids=["flat status", "nested status"])
def far_end(request):
    controller = TimeController(request.param)
    yield controller
    controller.close()


@pytest.fixture
def device():
    controller = TimeController()
    yield controller
    controller.close()


def connected(device, **more):
    return connect(device.control.address, SystemClock(), device.settings | more)


def message(*times):
    return np.array(times, "<u8").tobytes()


def read_block(tagger):
    for _ in range(200):
        block = tagger.read(0.05)
        if block.time_ps.size:
            return block
    raise AssertionError("nothing came")


def read_nothing_for_ever(tagger):
    while True:
        assert not tagger.read(0.1).time_ps.size


def test_the_calls_come_in_the_order_of_idqs_examples(far_end):
    tagger = connected(far_end)
    assert tagger.identify().model == "IDQuantique ID900"
    assert tagger.resolution_ps == 100
    told = far_end.told
    for n in range(1, 5):
        start = f"start-stream --address 127.0.0.1 --channel {n} --stream-port {far_end.streams[n].port}"
        order = [told.index(c) for c in (f"RAW{n}:ERRORS:CLEAR", start, f"RAW{n}:SEND ON", "REC:PLAY")]
        assert order == sorted(order)
    assert told.index("REC:STOP") < told.index("REC:PWID 249999600000") < told.index("REC:PLAY")
    assert far_end.values["REC:PPER"] == "250000000000TB"
    tagger.close()
    tagger.close()
    assert far_end.running == []
    assert told[-9:][0] == "REC:STOP"


def test_periods_add_up_and_inputs_that_fire_together_are_one_pattern(far_end):
    tagger = connected(far_end)
    for k in range(3):
        for n, stream in far_end.streams.items():
            stream.send(message(1000 + k, 50_000 * n, 900_000 + 100 * n))
    block = read_block(tagger)
    assert block.time_ps.tolist() == [
        k * PERIOD_PS + t for k in range(3) for t in (1000 + k, 50_000, 100_000, 150_000, 200_000, 900_100)
    ]
    assert block.pattern.tolist() == [0b1111, 1, 2, 4, 8, 0b1111] * 3
    assert (block.latest_ps, block.missed, block.notes) == (3 * PERIOD_PS, 0, ())
    tagger.close()


def test_lost_tags_are_counted_and_the_data_links_errors_are_noted_once(far_end):
    tagger = connected(far_end)
    far_end.values["RAW2:ERRORS"] = "17"
    far_end.errors.append({"description": "buffer overflow"})
    for expected_missed, expected_notes in ((17, 4), (0, 0)):
        for stream in far_end.streams.values():
            stream.send(message(5))
        block = read_block(tagger)
        assert (block.missed, len(block.notes)) == (expected_missed, expected_notes)
        assert all("buffer overflow" in note for note in block.notes)
    tagger.close()


def test_an_input_that_skips_a_period_is_refused_and_no_time_is_given_out(device):
    """Messages of input 3 begin a period late: counts are equal for a moment only."""
    tagger = connected(device)
    over = threading.Event()

    def send():
        for k in range(20):
            for n in (3, 1, 2, 4):
                if n != 3 or k > 0:
                    device.streams[n].send(message(10 * n))
            if over.wait(0.25):
                return

    sender = threading.Thread(target=send)
    sender.start()
    try:
        with pytest.raises(InstrumentFault, match=r"input 3 sent no message for a period"):
            read_nothing_for_ever(tagger)
        with pytest.raises(InstrumentFault, match="input 3"):  # and for ever
            tagger.read(0.1)
    finally:
        over.set()
        sender.join()
        tagger.close()


def test_an_empty_message_is_the_end_and_a_time_beyond_the_period_is_refused(device):
    tagger = connected(device)
    device.streams[2].send(b"")
    with pytest.raises(InstrumentFault, match="input 2 sent an empty message: the acquisition has ended"):
        read_nothing_for_ever(tagger)
    tagger.close()
    tagger = connected(device)
    device.streams[1].send(message(PERIOD_PS))
    with pytest.raises(WireError, match="outside of a period"):
        read_nothing_for_ever(tagger)
    tagger.close()


def test_inputs_delays_and_generators_are_set_and_read_back(device):
    inputs = {
        "1": {"threshold_v": -0.2, "edge": "falling", "coupling": "dc", "delay_ps": 1500},
        "3": {"source": "GEN2"},
    }
    tagger = connected(device, inputs=inputs, generators={"2": {"period_ps": 10_000_000, "width_ps": 20_000}})
    values = device.values
    assert [values[f"INPU{n}:ENAB"] for n in range(1, 5)] == ["ON", "OFF", "ON", "OFF"]
    assert (values["INPU1:THRE"], values["INPU1:EDGE"], values["INPU1:COUP"]) == ("-0.2V", "FALLING", "DC")
    assert (values["DELA1:VALU"], values["TSCO1:FIR:LINK"], values["TSCO3:FIR:LINK"]) == ("1500", "DELA1", "GEN2")
    assert (values["GEN2:PPER"], values["GEN2:ENAB"]) == ("10000000", "ON")
    assert "INPU3:THRE" not in values, "what is not in the station file stays as it is"
    assert len(device.running) == 2
    assert tagger.input_counts() == {1: 1000, 3: 3000}
    tagger.set_counting_time(500)
    assert values["INPU3:COUN:INTE"] == "500"
    tagger.start_histogram(1, 1, 3, 200, 100)
    values["HIST1:DATA"] = "[0,5, 7]"
    assert tagger.histogram(1).tolist() == [0, 5, 7]
    with pytest.raises(BadInput, match="multiple of the resolution"):
        tagger.start_histogram(1, 1, 3, 150, 100)
    tagger.close()


def test_transfers_that_an_earlier_run_left_are_stopped_and_those_of_other_devices_are_not(device):
    device.running += ["127.0.0.1:5556", "10.0.0.7:5556"]
    tagger = connected(device)
    tagger.close()
    assert device.running == ["10.0.0.7:5556"]


def test_another_instrument_and_an_older_firmware_are_refused(device):
    device.values["*IDN"] = "ACME,Voltmeter,1,1"
    with pytest.raises(WrongInstrument, match="Voltmeter"):
        connected(device)
    device.values["*IDN"] = "IDQ ID1000 Time Controller"
    del device.values["RAW1:ERRORS"]
    device.values["TSST1:DATA:RAW:ERRORS"] = "0"
    with pytest.raises(InstrumentFault, match="older firmware"):
        connected(device)
    del device.values["TSST1:DATA:RAW:ERRORS"]
    with pytest.raises(WireError, match="whole number"):
        connected(device)


def test_a_setting_that_does_not_hold_is_a_fault(device):

    class Fixed(dict):
        def __setitem__(self, key, value):
            super().__setitem__(key, "0.5V" if key == "INPU1:THRE" else value)

    device.values = Fixed(device.values)
    with pytest.raises(InstrumentFault, match=r"INPU1:THRE at 0\.5 after it was set to 1\.0"):
        connected(device, inputs={"1": {"threshold_v": 1.0}})


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        ({"inputs": {"5": {}}}, "inputs"),
        ({"inputs": {}}, "inputs"),
        ({"inputs": {"1": {"edge": "both"}}}, "edge"),
        ({"inputs": {"1": {"coupling": "GND"}}}, "coupling"),
        ({"inputs": {"1": {"delay_ps": 5_000_000}}}, "delay_ps"),
        ({"inputs": {"1": {"source": "GEN1"}}}, "source"),
        ({"inputs": {"1": {"threshold_v": 12.0}}}, "threshold_v"),
        ({"generators": {"1": {"period_ps": 10, "width_ps": 10}}}, "width_ps"),
        ({"period_s": 0.1}, "period_s"),
        ({"period_s": 4.5}, "period_s"),
        ({"dead_time_ps": 10_000}, "dead_time_ps"),
        ({"join_ps": 400_000}, "join_ps"),
        ({"stream_ports": [1, 2, 3]}, "stream_ports"),
        ({"timeout_s": 0.0}, "timeout_s"),
    ],
)
def test_settings_out_of_range_are_named_before_anything_is_sent(more, complaint):
    with pytest.raises(BadInput, match=complaint):
        connect("zmq://127.0.0.1:9", SystemClock(), more)


# The parsers.


@pytest.mark.parametrize(("answer", "volts"), [(b"1V", 1.0), (b"1000mV", 1.0), (b"-0.25", -0.25), (b"1.5 V\n", 1.5)])
def test_numbers_may_carry_units(answer, volts):
    assert protocol.parse_volts(answer) == pytest.approx(volts)
    assert protocol.parse_integer(b"3000 GTB"[:4] + b"TB") == 3000


def test_switches_may_be_told_as_numbers_and_words_in_short():
    assert protocol.same_word("1", "ON")
    assert protocol.same_word("MANU", "MANUAL")
    assert protocol.same_word("FALL", "FALLING")
    assert not protocol.same_word("TSCO1", "TSCO11")
    assert not protocol.same_word("ON", "OFF")


PARSERS = (
    protocol.parse_identity,
    protocol.parse_integer,
    protocol.parse_volts,
    protocol.parse_word,
    protocol.parse_histogram,
    protocol.parse_link_answer,
    protocol.parse_link_id,
    protocol.parse_link_list,
    protocol.parse_link_status,
)


@given(st.binary(max_size=80) | st.text(max_size=40).map(str.encode) | st.sampled_from([b"[1", b'{"id":3}', b"{}"]))
def test_arbitrary_answers_give_a_value_or_one_of_our_errors(answer):
    for parse in PARSERS:
        with suppress(GroundStationError):
            parse(answer)


# Merging.


def model(periods, period_ps, join_ps):
    """What merging means, one tag at a time."""
    events = []
    for k, messages in enumerate(periods):
        start, seen = None, 0
        for time_ps, number in sorted((t, n) for n, times in messages.items() for t in times):
            if start is None or time_ps - start > join_ps or seen & (1 << (number - 1)):
                start, seen = time_ps, 0
                events.append([k * period_ps + time_ps, 0])
            seen |= 1 << (number - 1)
            events[-1][1] = seen
    return events


@given(
    st.lists(
        st.fixed_dictionaries({n: st.lists(st.integers(0, 500), min_size=1, max_size=12) for n in (1, 2, 4)}),
        min_size=1,
        max_size=4,
    ),
    st.integers(0, 30),
    st.data(),
)
@settings(max_examples=150, deadline=None)
def test_merging_agrees_with_the_model_in_whatever_order_messages_come(periods, join_ps, data):
    tags = SubAcquisitions((1, 2, 4), 600, join_ps, 0.0, 0.0, 1.0)
    waiting = {n: [message(*p[n]) for p in periods] for n in (1, 2, 4)}
    got = []
    while any(waiting.values()):
        number = data.draw(st.sampled_from([n for n, left in waiting.items() if left]))
        tags.feed(number, waiting[number].pop(0), 0.0)
        if tags.is_ready(0.0):
            got += zip(*(part.tolist() for part in tags.take()), strict=True)
    assert [list(event) for event in got] == model(periods, 600, join_ps)
    assert tags.begun_ps == 600 * len(periods)


def test_many_tags_are_merged_in_chunks_like_a_plain_sort():
    rng = np.random.default_rng(3)
    times = {n: np.sort(rng.integers(0, PERIOD_PS - 400_000, 60_000)) for n in (1, 2, 3, 4)}
    tags = SubAcquisitions((1, 2, 3, 4), PERIOD_PS, 0, 0.0, 0.0, 1.0)
    for n, column in times.items():
        tags.feed(n, column.astype("<u8").tobytes(), 0.0)
    got, pattern = tags.take()
    wanted, where = np.unique(np.concatenate(list(times.values())), return_inverse=True)
    bits = np.zeros(wanted.size, np.uint8)
    np.bitwise_or.at(bits, where, np.repeat(np.uint8([1, 2, 4, 8]), 60_000))
    assert np.array_equal(got, wanted)
    assert np.array_equal(pattern, bits)


@pytest.mark.parametrize("inputs", [(1,), (1, 2)])
def test_a_period_that_every_input_skips_is_no_time_told_wrong(inputs):
    tags = SubAcquisitions(inputs, PERIOD_PS, 0, 0.25, 0.03, 1.0)

    def is_ready_after(end_s):
        for number in inputs:
            tags.feed(number, message(1000), end_s + 0.01)
        return tags.is_ready(end_s + 0.05)

    for k in range(4):
        assert is_ready_after(0.25 * (k + 1))
        assert tags.take()[0].tolist() == [k * PERIOD_PS + 1000]
    assert not is_ready_after(1.5)  # nothing came at 1.25 s
    assert not is_ready_after(1.75)
    with pytest.raises(InstrumentFault, match="every input sent no message for a period"):
        tags.is_ready(2.6)


def test_a_host_that_was_busy_and_a_clock_that_drifts_are_no_skipped_period():
    tags = SubAcquisitions((1,), PERIOD_PS, 0, 0.25, 0.03, 1.0)
    tags.feed(1, message(1), 0.25)
    assert tags.is_ready(0.3)
    tags.take()
    for _ in range(12):  # read in one go, three quarters of a period late
        tags.feed(1, message(1), 3.45)
    assert not tags.is_ready(3.5)
    tags.feed(1, message(1), 3.5)
    assert tags.is_ready(3.55)
    assert tags.take()[0].tolist() == [k * PERIOD_PS + 1 for k in range(1, 14)]
    for k in range(14, 40_000):
        tags.feed(1, message(1), 0.25 * (k + 1) * (1 + 5e-5))
        assert tags.is_ready(0.25 * (k + 1) * (1 + 5e-5) + 0.04)
        tags.take()
