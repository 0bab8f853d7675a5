"""The WebSQ driver against the messages of the vendor's client, on real sockets."""

import contextlib
import json
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_far_end import Expect, HangUp, Reply, Script, reply, serving

from drivers.nanowires_websq import connect
from drivers.websq_messages import command, number, numbers, parse_counts, parse_message
from groundstation.clock import SimulatedClock, SystemClock, monotonic_ns
from groundstation.errors import (
    BadInput,
    InstrumentFault,
    TransportLost,
    TransportTimeout,
    WireError,
    WrongInstrument,
)

CLOCK = SystemClock()
ASK = Expect(b'{"request": "labelProps", "value": "None"}')  # json.dumps of the vendor's client
END = b"\x17"


def described(label, value):
    return json.dumps({"label": label, "value": {"bounds": [], "units": "", "value": value}}).encode()


def plain(label, value):
    return json.dumps({"label": label, "value": value}).encode()


TWO = (ASK, reply(described("NumberOfDetectors", 2) + END))


def playing(*steps):
    """A talk that plays the steps and fails on what was not used."""

    def talk(line):
        script = Script(list(steps))
        script.play(line)
        assert not script.failures, script.failures
        assert script.done == len(steps), f"unused: {steps[script.done :]}"

    return talk


@contextlib.contextmanager
def connected(*steps, clock=CLOCK, counts=(), **settings):
    with serving(playing(*TWO, *steps)) as address, serving(*(playing(reply(*pieces)) for pieces in counts)) as stream:
        settings = {"timeout_s": 1.0, "counts_port": int(stream.rsplit(":", 1)[1]), **settings}
        detector = connect(address, clock, settings)
        yield detector
        detector.close()
        detector.close()


def test_the_commands_are_those_of_the_vendors_client():
    bias = json.dumps({"command": "SetAllBiasCurrents", "label": "BiasCurrent", "value": [10.0, 12.5]}).encode()
    assert command("SetAllBiasCurrents", [10.0, 12.5], "BiasCurrent") == bias
    enable = json.dumps({"command": "DetectorEnable", "label": "DetectorEnable", "value": True}).encode()
    assert command("DetectorEnable", True, "DetectorEnable") == enable
    assert command("AutoCaliBiasCurrents", True) == b'{"command": "AutoCaliBiasCurrents", "value": true}'


@given(st.binary(max_size=60))
def test_any_bytes_are_understood_or_refused_as_a_wire_error(data):
    with contextlib.suppress(WireError):
        parse_message(data)
    with contextlib.suppress(WireError):
        parse_counts(data, 2)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_a_value_of_any_form_is_understood_or_refused(value):
    message = parse_message(json.dumps({"label": "BiasCurrent", "value": value}).encode())
    with contextlib.suppress(WireError):
        assert len(numbers(message.value, "BiasCurrent", 2)) == 2
    with contextlib.suppress(WireError):
        number(message.value, "BiasCurrent")


def test_an_error_message_is_told_from_the_description_of_one():
    assert parse_message(plain("ErrorMessage", "too hot")).complaint == "too hot"
    assert parse_message(plain("ErrorMessage", "")).complaint == ""
    assert parse_message(described("ErrorMessage", "an old one")).complaint == ""
    assert parse_message(plain("BiasCurrent", [1])).complaint == ""


def test_a_line_of_counts_is_the_time_and_one_number_per_channel():
    assert parse_counts(b"1596115200.25,12345.0,0\n", 2) == (12345, 0)
    for line in (b"1,2", b"1,2,3,4", b"1,-2,3", b"1,2.5,3", b"1,nan,3", b"1,inf,3", b"a,2,3", b""):
        with pytest.raises(WireError):
            parse_counts(line, 2)


def test_glued_split_and_unasked_messages_update_what_is_known():
    note = plain("Note", 'two objects: }{ and a quote " }')
    with connected(
        ASK,
        Reply(
            (note + described("TriggerLevel", [1.0, 2.0]) + described("BiasC", 0)[:20], described("BiasC", 0)[20:]),
            0.02,
        ),
        Reply((plain("BiasCurrent", [3.0, 4.5])[:-1], b"}" + END), 0.02),
    ) as detector:
        assert detector.channels == 2
        assert detector.bias_ua(2) == 4.5


def test_a_bias_is_set_beside_the_others_and_read_back():
    set_it = Expect(b'{"command": "SetAllBiasCurrents", "label": "BiasCurrent", "value": [3.0, 12.5]}' + ASK.data)
    with connected(
        ASK,
        reply(described("BiasCurrent", [3.0, 4.0]) + END),
        set_it,
        reply(plain("BiasCurrent", [3.0, 4.0]) + END),  # not there yet
        ASK,
        reply(plain("BiasCurrent", [3.0, 12.49]) + END),
    ) as detector:
        detector.set_bias_ua(2, 12.5)


def test_a_setting_that_is_echoed_is_not_taken_for_one_that_was_read_back():
    sent = b'{"command": "SetAllBiasCurrents", "label": "BiasCurrent", "value": [3.0, 12.5]}'
    with connected(
        ASK,
        reply(ASK.data + described("BiasCurrent", [3.0, 4.0]) + END),
        Expect(sent + ASK.data),
        reply(sent + ASK.data),
        reply(plain("BiasCurrent", [3.0, 4.0]) + END),
        ASK,
        reply(ASK.data + plain("BiasCurrent", [3.0, 12.5]) + END),
    ) as detector:
        detector.set_bias_ua(2, 12.5)


def test_a_trigger_level_that_does_not_read_back_is_a_fault():
    clock = SimulatedClock(0, monotonic_ns(), 1000.0)
    answers = {"TriggerLevel": [20.0, 20.0], "NumberOfDetectors": 2}
    with serving(answering(answers, obeys=False)) as address:
        detector = connect(address, clock, {})
        with pytest.raises(InstrumentFault, match=r"TriggerLevel 9999 mV of channel 1.*20"):
            detector.set_trigger_mv(1, 9999.0)
        detector.close()


def test_an_error_message_becomes_a_fault_once():
    with connected(
        ASK,
        reply(plain("ErrorBias", "bias out of range") + described("BiasCurrent", [1.0, 2.0]) + END),
        ASK,
        reply(described("BiasCurrent", [1.0, 2.0]) + END),
    ) as detector:
        with pytest.raises(InstrumentFault, match="bias out of range"):
            detector.bias_ua(1)
        assert detector.bias_ua(1) == 1.0


def test_a_garbled_answer_is_asked_for_once_more():
    with connected(
        ASK, reply(b'{"label": "BiasCurrent", "val' + END), ASK, reply(described("BiasCurrent", [1.0, 2.0]) + END)
    ) as detector:
        assert detector.bias_ua(1) == 1.0


def test_counts_are_those_of_a_period_that_began_after_the_question():
    lines = (b"1.1,900,900\n1.", b"2,11,", b"12\n1.3,8,8\n")  # split across packets; the first began before
    period = described("InptMeasurementPeriod", 100) + END
    with connected(ASK, reply(period), counts=[lines]) as detector:
        assert detector.counts(0.1) == (11, 12)


def test_counts_over_another_period_wait_for_the_one_after_the_change():
    lines = (b"1.1,900,900\n", b"1.2,800,800\n", b"1.25,7,8\n")
    with connected(
        ASK,
        reply(described("InptMeasurementPeriod", 100) + END),
        Expect(b'{"command": "SetMeasurementPeriod", "label": "InptMeasurementPeriod", "value": 50}' + ASK.data),
        reply(plain("InptMeasurementPeriod", 50) + END),
        counts=[lines],
    ) as detector:
        assert detector.counts(0.05) == (7, 8)


def test_counts_that_do_not_come_are_an_error_of_the_link():
    period = reply(described("InptMeasurementPeriod", 10) + END)
    broken_off, lost = [(b"1.1,900,900\n1.2,1",)], pytest.raises((TransportTimeout, TransportLost))
    with connected(ASK, period, counts=broken_off, timeout_s=0.1) as detector, lost:
        detector.counts(0.01)


def test_nothing_is_sent_for_a_value_that_is_none_or_beyond_the_stations_limit():
    with connected(max_bias_ua=30.0) as detector:
        for refused in (
            lambda: detector.set_bias_ua(1, 30.5),
            lambda: detector.set_bias_ua(1, float("nan")),
            lambda: detector.set_trigger_mv(1, float("inf")),
            lambda: detector.set_bias_ua(3, 1.0),
            lambda: detector.bias_ua(0),
            lambda: detector.counts(0.009),
            lambda: detector.counts(float("nan")),
            lambda: detector.auto_bias([100.0]),
        ):
            with pytest.raises(BadInput):
                refused()


def answering(values, obeys=True):
    """A server that knows its labels and, when it obeys, takes what commands say of them."""

    def talk(line):
        line.connection.settimeout(5.0)
        while data := line.connection.recv(4096):
            for text in data.replace(b"}{", b"}\n{").split(b"\n"):
                message = json.loads(text)
                if "command" in message and obeys:
                    values[message.get("label", message["command"])] = message["value"]
                elif "request" in message:
                    line.send(b"".join(described(*item) for item in values.items()) + END)

    return talk


def counting(line_of):
    """A stream that never ends, of what `line_of` says."""

    def talk(line):
        with contextlib.suppress(OSError):
            while True:
                line.connection.sendall(line_of())
                threading.Event().wait(0.01)

    return talk


def test_a_silent_biased_wire_is_latched_and_a_cycle_of_its_bias_ends_it():
    clock = SimulatedClock(0, monotonic_ns(), 100.0)
    values = {"NumberOfDetectors": 2, "BiasCurrent": [15.0, 0.0], "DetectorEnable": True, "InptMeasurementPeriod": 100}
    biases = []

    def counts():
        biases.append(values["BiasCurrent"][0])
        return b"1.5,%d,0\n" % (50 if 0.0 in biases else 0)

    with serving(answering(values)) as address, serving(*[counting(counts)] * 3) as stream:
        detector = connect(address, clock, {"counts_port": int(stream.rsplit(":", 1)[1]), "dark_hz": 100.0})
        assert detector.latched(1)
        assert values["InptMeasurementPeriod"] == 139  # ln(1e6) / 100 Hz
        assert not detector.latched(2)  # it has no bias
        with contextlib.ExitStack() as stack:
            watcher = threading.Event()
            stack.callback(watcher.set)

            def watch():
                while not watcher.wait(0.001):
                    biases.append(values["BiasCurrent"][0])

            threading.Thread(target=watch, daemon=True).start()
            detector.reset(1)
        assert values["BiasCurrent"] == [15.0, 0.0]
        assert 0.0 in biases
        assert not detector.latched(1)
        with pytest.raises(InstrumentFault, match="no bias"):
            detector.reset(2)
        detector.close()


def test_a_bias_that_could_not_be_given_back_is_not_taken_away():
    told = (ASK, reply(described("BiasCurrent", [31.0, 0.0]) + END))  # somebody's, before; nothing is sent but this
    with connected(*told, max_bias_ua=30.0) as detector, pytest.raises(BadInput, match="nothing was set"):
        detector.reset(1)


def test_an_automatic_bias_ends_when_its_label_says_so():
    clock = SimulatedClock(0, monotonic_ns(), 100.0)
    with connected(
        Expect(b'{"command": "DarkCountsAutoIV", "label": "DarkCountsAutoIV", "value": [100.0, 200.0]}'),
        Expect(b'{"command": "AutoCaliBiasCurrents", "value": true}' + ASK.data),
        reply(described("StartAutoIV", True) + END),
        ASK,
        reply(plain("StartAutoIV", False) + END),
        ASK,
        reply(described("BiasCurrentAutoIV", [17.5, 18.5]) + END),
        clock=clock,
    ) as detector:
        assert detector.auto_bias([100, 200]) == (17.5, 18.5)


def test_silence_another_server_and_a_refused_connection_each_have_their_error():
    with serving(playing(ASK, ASK)) as address, pytest.raises(TransportTimeout):
        connect(address, CLOCK, {"timeout_s": 0.1})
    for other in (
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        described("Temperature", 2.5) + END,
        described("NumberOfDetectors", 0),
    ):
        far_end = serving(lambda line, other=other: (line.receive(), line.send(other), drain(line)))
        with far_end as address, pytest.raises(WrongInstrument):
            connect(address, CLOCK, {"timeout_s": 0.2})
    with pytest.raises(TransportLost):
        connect(address, CLOCK, {"timeout_s": 0.2})
    with serving(playing(ASK, HangUp())) as address, pytest.raises(TransportLost):
        connect(address, CLOCK, {})


def drain(line):
    line.connection.settimeout(2.0)
    with contextlib.suppress(OSError):
        while line.connection.recv(4096):
            pass


def test_after_a_hang_up_the_next_call_connects_again_and_proves_the_same_detectors():
    first, again = playing(*TWO, HangUp()), playing(*TWO, ASK, reply(described("BiasCurrent", [1.0, 2.0]) + END))
    with serving(first, again) as address:
        detector = connect(address, CLOCK, {})
        with pytest.raises(TransportLost):
            detector.bias_ua(1)
        assert detector.bias_ua(1) == 1.0
        detector.close()


def test_settings_that_cannot_be_used_are_named():
    for settings, key in (
        ({"counts_prt": 1}, "counts_port"),
        ({"dark_hz": 0.0}, "dark"),
        ({"reset_off_s": -1.0}, "reset_off_s"),
    ):
        with pytest.raises(BadInput, match=key):
            connect("tcp://127.0.0.1:1", CLOCK, settings)
