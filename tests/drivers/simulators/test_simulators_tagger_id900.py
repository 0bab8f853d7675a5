"""The simulated ID900 with its data link, by plain pyzmq sockets as in IDQ's examples."""

import contextlib
import json
import subprocess
import sys

import numpy as np
import pytest

from groundstation.recording.manifest import create_recording
from groundstation.recording.reader import open_recording

zmq = pytest.importorskip("zmq")

PWID_PS, PPER_PS = 250_000_000_000, 250_000_400_000


class Client:
    """IDQ's `zmq_exec` and `dlt_exec`, and one stream per channel."""

    def __init__(self, program):
        self._context = zmq.Context()
        settings = program.ready["settings"]
        self.ports = settings["stream_ports"]
        self._control = self._socket(zmq.REQ, program.ready["address"])
        self._service = self._socket(zmq.REQ, settings["dlt_address"])
        self._streams = {}

    def _socket(self, kind, address):
        socket = self._context.socket(kind)
        socket.setsockopt(zmq.RCVTIMEO, 5000)
        socket.connect(address.replace("zmq:", "tcp:"))
        return socket

    def ask(self, text):
        self._control.send_string(text)
        return self._control.recv_string()

    def dlt(self, text):
        self._service.send_string(text)
        return json.loads(self._service.recv_string())

    def stream(self, channel, *more):
        """Connect a client and start the stream, as the examples do; the acquisition's id."""
        port = self.ports[channel - 1]
        if channel in self._streams:
            self._streams[channel].close(linger=0)
        self._streams[channel] = self._socket(zmq.PAIR, f"tcp://127.0.0.1:{port}")
        answer = self.dlt(
            " ".join((f"start-stream --address 10.0.0.9 --channel {channel} --stream-port {port}", *more))
        )
        self.ask(f"RAW{channel}:SEND ON")
        return answer["id"]

    def message(self, channel):
        return np.frombuffer(self._streams[channel].recv(), "<u8").astype(np.int64)

    def record(self, number="INF"):
        self.ask("REC:TRIG:ARM:MODE MANUal;:REC:ENABle ON;STOP")
        self.ask(f"REC:NUM {number};PWID {PWID_PS};PPER {PPER_PS}")
        self.ask("REC:PLAY")

    def close(self):
        self._context.destroy(linger=0)


@pytest.fixture
def client(start, fast_clock):
    """Start a program in a world five times faster than the wall, and its client."""
    with contextlib.ExitStack() as clients:

        def begin(*options, **faults):
            program = start("tagger_id900", "--clock", fast_clock(5), "--faults", json.dumps(faults), *options)
            return clients.enter_context(contextlib.closing(Client(program)))

        yield begin


def test_it_says_which_model_it_is_and_its_resolution(client):
    id900, id1000 = client(), client("--model", "ID1000")
    assert id900.ask("*IDN?").split(",")[:2] == ["ID Quantique", "ID900"]
    assert id1000.ask("*idn?").split(",")[:2] == ["ID Quantique", "ID1000"]
    assert [device.ask("DEVI:RES:BWID?") for device in (id900, id1000)] == ["13", "1"]
    id900.ask("DEVIce:RESolution LOWRES")
    assert id900.ask("DEVI:RES:BWID?") == "100"
    assert "ID900" not in client(wrong_model=True).ask("*IDN?")


@pytest.mark.parametrize(
    ("command", "question", "answer"),
    [
        ("INPU1:COUP AC", "INPUT1:COUPLING?", "AC"),
        ("inpu2:edge falling", "INPU2:EDGE?", "FALLING"),
        ("INPUt3:THRE 1V", "INPU3:THRE?", "0.999424V"),  # both as MSL's ID900 reads back
        ("INPUt3:THREshold 500mV", "INPU3:THRE?", "0.499712V"),
        ("INPU4:ENAB OFF", "INPU4:ENAB?", "OFF"),
        ("INPU1:SELE SHAPED", "INPU1:SELE?", "SHAPED"),
        ("INPU1:COUN:INTE 500;MODE ACCU", "INPU1:COUN:INTE?;MODE?", "500\nACCUM"),
        ("DELA1:VALU 1500", "DELAY1:VALUE?", "1500TB"),
        ("DELA1:INPO:LINK INPU2", "DELA1:LINK?", "INPU2"),
        ("TSCO5:WIND:ENAB OFF;:TSCO5:FIR:LINK DELA2;:TSCO5:OPOUt MUTE", "TSCO5:FIR:LINK?;:TSCO5:OPOU?", "DELA2\nMUTE"),
        ("GEN1:ENAB ON;PPER 20000000;PWID 20000;PNUM 7", "GEN1:ENAB?;PPER?;PNUM?", "ON\n20000000TB\n7"),
        ("RAW2:REF:LINK TSCO5;:RAW2:SEND ON", "RAW2:REF:LINK?;:RAW2:SEND?", "TSCO5\nON"),
        ("HIST1:BCOUnt 16384;BWID 1300", "HISTOGRAM1:BCOUNT?;BWIDTH?", "16384\n1300TB"),
        ("HIST1:STOP:LINK TSCO6", "HIST1:STOP:LINK:ADDResses?", "TSCO6"),
        ("REC:PWID 1 GTB;PPER 2GTB", "REC:PWID?;PPER?", "1000000000TB\n2000000000TB"),
        ("REC:NUM 0", "REC:NUMber?", "INF"),
        ("REC:DURation 3000000000000.0", "REC:PWID?", "3000000000000TB"),
        ("OUTP1:ENAB ON;LINK TSCO1;MODE NIM", "OUTP1:INPO:LINK?;:OUTP1:MODE?", "TSCO1\nNIM"),
    ],
)
def test_what_is_set_is_told(shared, command, question, answer):
    set_answers = shared.ask(command).splitlines()
    assert set_answers
    assert all(line.startswith("Value set to ") for line in set_answers)
    assert shared.ask(question) == answer
    assert shared.ask("SYST:ERR?") == '+0,"No error"'


@pytest.fixture(scope="module")
def shared(start_shared):
    with contextlib.closing(Client(start_shared("tagger_id900"))) as client:
        yield client


@pytest.mark.parametrize(
    ("command", "name", "code"),
    [
        ("NONSENSE", "INVALID_CMD", -113),
        ("INPU5:ENAB ON", "INVALID_CMD", -113),
        ("INPU1:THRE 99", "PARAM_OVERFLOW", -222),
        ("DELA1:VALU -1", "PARAM_OVERFLOW", -222),
        ("DELA1:VALU 1.1e12", "PARAM_OVERFLOW", -222),
        ("INPU1:COUN:INTE 0", "PARAM_OVERFLOW", -222),
        ("HIST1:BCOU 16385", "PARAM_OVERFLOW", -222),
        ("HIST1:BWID 14", "PARAM_OVERFLOW", -222),  # no multiple of 13 ps
        ("INPU1:THRE 1 A", "PARAM_TYPE", -131),
        ("INPU1:EDGE UP", "PARAM_TYPE", -224),
        ("DELA1:LINK TSCO1", "PARAM_TYPE", -224),
        ("REC:PWID", "PARAM_COUNT", -109),
        ("REC:PWID 1,2", "PARAM_COUNT", -108),
    ],
)
def test_what_it_cannot_do_is_answered_with_an_error_and_queued(shared, command, name, code):
    assert shared.ask(command).endswith(f"SCPI_ERR_{name}")
    assert shared.ask("SYST:ERR?").startswith(f"{code},")
    assert shared.ask("SYSTEM:ERROR:NEXT?") == '+0,"No error"'


@pytest.mark.slow
def test_the_error_queue_overflows_and_can_be_cleared(client):
    device = client(special=["old_errors"])
    assert [device.ask("SYST:ERR?")[:4] for _ in range(3)] == ["-222", "-113", '+0,"']
    for _ in range(25):
        device.ask("NONSENSE")
    codes = [device.ask("SYST:ERR?").split(",")[0] for _ in range(21)]
    assert codes == ["-113"] * 19 + ["-350", "+0"]
    device.ask("NONSENSE")
    device.ask("*CLS")
    assert device.ask("SYST:ERR?").startswith("+0")
    assert client(special=["no_error_queue"]).ask("SYST:ERR?").endswith("SCPI_ERR_INVALID_CMD")


def test_a_record_does_not_play_disabled_or_without_dead_time(client):
    device = client()
    assert device.ask("REC:PLAY").endswith("SCPI_ERR_EXECUTION")
    device.ask("REC:ENAB ON;PWID 1000000;PPER 1039999")  # 40 ns are needed
    assert device.ask("REC:PLAY").endswith("SCPI_ERR_EXECUTION")
    assert device.ask("REC:STAGe?") == "IDLE"
    device.ask("REC:PPER 1040000;NUM 1;PLAY")
    assert device.ask("SYST:ERR?;:*CLS").startswith("-221")


def test_each_sub_acquisition_is_one_message_with_times_from_zero(client):
    device = client()
    names = [device.stream(n) for n in (1, 2)]
    assert names == ["10.0.0.9:5556", "10.0.0.9:5557"]
    assert device.dlt("list") == names
    device.record(number=4)
    first = [device.message(1) for _ in range(4)]
    second = [device.message(2) for _ in range(4)]
    for times in (*first, *second):
        assert times.size > 500
        assert np.all(np.diff(times) >= 0)
        assert 0 <= times[0] < 5_000_000_000
        assert PWID_PS - 5_000_000_000 < times[-1] < PWID_PS
    # The beacon is split onto both inputs: every 100 us, over the joints of the sub-acquisitions too.
    absolute = [np.concatenate([t + k * PPER_PS for k, t in enumerate(part)]) for part in (first, second)]
    beacon = np.intersect1d(*absolute)
    assert beacon.size == pytest.approx(10_000, rel=0.1)  # some pulses are lost in fades
    steps = np.diff(beacon) / 1e8
    assert np.median(np.abs(steps - np.rint(steps))) < 1e-4
    assert np.all(absolute[0] % 13 == 0)
    assert device.message(1).size == 0, "the record is over"
    assert device.ask("REC:STAGe?") == "IDLE"
    status = device.dlt(f"status --id {names[0]}")
    assert (status["acquisitions_count"], status["errors"]) == (4, [])
    assert status["timestamps_count"] == sum(times.size for times in first)
    assert device.dlt(f"stop --id {names[0]}")["status"]["acquisitions_count"] == 4
    assert device.dlt("list") == names[1:]
    assert device.ask("RAW1:ERRORS?") == "0"


def test_stopping_sends_what_there_is_and_the_next_stream_starts_anew(client):
    device = client()
    name = device.stream(1)
    device.record()
    assert device.message(1).size > 500
    assert device.ask("REC:STAGe?") == "PLAYING"
    device.ask("REC:STOP")
    device.dlt(f"stop --id {name}")
    while device.message(1).size:
        pass
    assert device.stream(1) == name
    device.record()
    assert device.message(1)[0] < 5_000_000_000


def test_generators_are_a_test_source_and_delays_shift(client):
    device = client()
    for n, delay_ps in ((1, 0), (2, 1500)):
        device.ask(f"GEN{n}:ENAB ON;PPER 10000000;PWID 20000;PNUM INF;PLAY;TRIG:LINK NONE")
        device.ask(f"TSCO{n}:FIR:LINK GEN{n};:RAW{n}:STOP:LINK TSCO{n};:RAW{n}:REF:LINK NONE")
        device.stream(n)
        assert delay_ps == 0 or device.ask(f"DELA{n}:VALU {delay_ps}")
    device.ask("DELA3:VALU 1500;LINK INPU1;:RAW3:STOP:LINK TSCO7;:RAW4:STOP:LINK TSCO5")
    device.stream(3)
    device.stream(4)
    device.record()
    for k in range(3):
        for n in (1, 2):
            times = device.message(n)
            assert np.array_equal((times + k * PPER_PS) % 10_000_000, np.zeros(times.size))
            assert times.size == 25_000
    delayed, direct = device.message(3), device.message(4)
    assert np.isin(direct[:-5] + 1500, delayed).all()


def test_a_reference_gives_times_since_it_and_its_number(client):
    device = client()
    device.ask("GEN1:ENAB ON;PPER 1000000000;PLAY;:TSCO1:FIR:LINK GEN1;:RAW2:REF:LINK TSCO1")
    device.stream(2, "--with-ref-index")
    device.record()
    since, number = device.message(2).reshape(-1, 2).T
    assert since.max() < 1_000_000_000
    assert np.all(np.diff(number) >= 0)
    assert (number[0], number[-1]) == (0, 249)


def test_counters_count_cycles_or_all(client, eventually):
    device = client()
    device.ask("INPU1:COUN:INTE 200;MODE CYCL;:INPU2:COUN:MODE ACCU;RESEt")
    eventually(lambda: int(device.ask("INPU1:COUN?")) > 0)
    assert 2000 < int(device.ask("INPU1:COUN?")) < 100_000  # the beacon alone gives 10 kHz
    eventually(lambda: int(device.ask("INPU2:COUNter?")) > 20_000)
    assert device.ask("INPU2:COUNTER:RESET") == "Counter value set to 0 "
    device.ask("INPU1:ENAB OFF;COUN:RESEt")
    assert device.ask("INPU1:COUN?") == "0"


def test_a_histogram_counts_stops_after_references(client, eventually):
    device = client()
    device.ask("DELA2:VALU 13000;:TSCO6:FIR:LINK DELA2")
    device.ask("HIST1:REF:LINK TSCO5;:HIST1:STOP:LINK TSCO6;:HIST1:BCOU 20;BWID 1300;MIN 0")
    assert device.ask("HIST1:FLUSh") == "Flushed Histogram!"
    device.record()
    eventually(lambda: sum(json.loads(device.ask("HIST1:DATA?"))) > 1000)
    bins = json.loads(device.ask("HIST1:DATA?"))
    assert len(bins) == 20
    assert np.argmax(bins) == 10  # the beacon, on both inputs at once


def test_lost_tags_are_counted_and_leave_a_hole(client):
    device = client(special=["overflow"])
    device.stream(1)
    device.record()
    sizes = []
    for _ in range(5):
        times = device.message(1)
        sizes.append(times.size)
    assert sizes[4] < 0.93 * sizes[3]
    assert np.diff(times).max() > 0.05 * PWID_PS
    assert int(device.ask("RAW1:ERRORS?")) == pytest.approx(0.1 * sizes[3], rel=0.2)
    device.ask("RAW1:ERRORS:CLEAR")
    assert device.ask("RAW1:ERRORS?") == "0"


def test_more_than_it_can_send_is_lost(client):
    device = client("--limit-hz", 10_000)
    device.stream(1)
    device.record()
    assert device.message(1).size <= 2500
    assert int(device.ask("RAW1:ERRORS?")) > 0


def test_a_message_that_the_service_loses_is_told_in_its_status(client):
    device = client(special=["dlt_loss"])
    names = [device.stream(n) for n in (1, 2)]
    device.record(number=30)
    assert all(device.message(1).size for _ in range(30))
    assert all(device.message(2).size for _ in range(29))
    assert device.message(2).size == 0
    statuses = [device.dlt(f"status --id {name}") for name in names]
    assert [status["acquisitions_count"] for status in statuses] == [30, 30]
    assert [len(status["errors"]) for status in statuses] == [0, 1]
    assert "description" in statuses[1]["errors"][0]


def test_the_service_can_stop_for_good(client):
    device = client(special=["dlt_stops"])
    device.stream(1)
    device.record()
    for _ in range(8):
        assert device.message(1).size
    device._streams[1].setsockopt(zmq.RCVTIMEO, 200)
    with pytest.raises(zmq.Again):
        device.message(1)
    device._service.setsockopt(zmq.RCVTIMEO, 200)
    with pytest.raises(zmq.Again):
        device.dlt("list")
    assert device.ask("REC:STAGe?") == "PLAYING"


def test_a_silent_channel_sends_nothing_or_empty_messages(client):
    device = client(special=["silent_channel", "empty_messages"])
    device.stream(1)
    device.stream(2)
    device.record()
    sizes = [device.message(1).size for _ in range(5)]
    assert min(sizes[:3]) > 500
    assert sizes[4] == 0
    assert all(device.message(2).size for _ in range(6))


def test_the_service_says_what_is_wrong(shared, client):
    for command in (
        "nonsense",
        "",
        "start-stream --address 10.0.0.9 --channel 5 --stream-port 5000",
        "start-stream --address 10.0.0.9 --channel 1",
        "start-save --address 10.0.0.9 --channel 1 --filename /nonexistent/x --format bin",
        "stop --id nobody",
        "status",
        'start-save "',
    ):
        assert shared.dlt(command)["error"]["description"], command
    refused = client(special=["dlt_error"]).dlt("start-stream --address 1.2.3.4 --channel 1 --stream-port 5000")
    assert refused["error"]["description"]


def test_it_saves_files(client, tmp_path, eventually):
    device = client()
    for n, form in ((1, "bin"), (2, "ascii")):
        device.dlt(f'start-save --address 10.0.0.9 --channel {n} --filename "{tmp_path / form}" --format {form}')
        device.ask(f"RAW{n}:SEND ON")
    device.record(number=1)
    eventually(lambda: device.ask("REC:STAGe?") == "IDLE")
    binary = np.fromfile(tmp_path / "bin", "<u8")
    text = np.loadtxt(tmp_path / "ascii", dtype=np.int64)
    assert np.intersect1d(binary.astype(np.int64), text).size > 2000


@pytest.mark.parametrize(
    "faults", [{"mute_after_s": 0.0}, {"drop_reply_every": 1}, {"late_every": 1, "late_by_s": 50.0}]
)
def test_no_answer_comes_in_time(client, faults):
    device = client(**faults)
    device._control.setsockopt(zmq.RCVTIMEO, 300)
    with pytest.raises(zmq.Again):
        device.ask("*IDN?")


def test_answers_can_be_spoiled(client):
    spoiling = client(drop_byte_every=2, double_byte_every=3, special=["wrong_case"])
    right, short, long = (spoiling.ask("*IDN?") for _ in range(3))
    assert right == "id quantique,id900,simulated-1,1.0.0"
    middle = len(right) // 2
    assert short == right[:middle] + right[middle + 1 :]
    assert long == right[: middle + 1] + right[middle:]


def test_it_hangs_up_and_listens_again(client):
    device = client(hang_up_after=2)
    monitor = device._control.get_monitor_socket(zmq.EVENT_DISCONNECTED)
    assert device.ask("*IDN?") == device.ask("*IDN?")
    assert monitor.poll(3000), "it did not hang up"
    device._control.disable_monitor()
    monitor.close()
    assert device.ask("*IDN?").startswith("ID Quantique")


def test_the_truth_stream_tells_the_same_clicks(start, fast_clock, tmp_path):
    directory = tmp_path / "recording"
    create_recording(directory, {"mode": "simulation"})
    program = start("tagger_id900", "--truth", directory, "--clock", fast_clock(5))
    with contextlib.closing(Client(program)) as device:
        for n in (1, 2):
            device.stream(n)
        device.record(number=2)
        parts = [[device.message(n) + k * PPER_PS for k in range(2)] for n in (1, 2)]
    program.end()
    reader, segments = open_recording(directory).stream("truth"), []
    while not reader.ended:
        segments += reader.poll()
    truth = np.concatenate([segment.tables["clicks"]["device_ps"] for segment in segments])
    first, second = (np.concatenate(part) for part in parts)
    clicks = np.setdiff1d(first, second)  # without the beacon, which is no click
    assert clicks.size > 500
    assert np.isin(clicks, truth).all()


def test_a_port_in_use_is_refused_in_one_sentence(shared):
    for option in ("--address", "--dlt-address"):
        port = shared._control.getsockopt(zmq.LAST_ENDPOINT).decode().strip("\0").rpartition(":")[2]
        outcome = subprocess.run(
            [sys.executable, "-m", "drivers.simulators.tagger_id900", option, f"zmq://127.0.0.1:{port}"],
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert outcome.returncode == 2
        assert f"port {port}" in outcome.stderr
        assert outcome.stderr.count("\n") == 1
