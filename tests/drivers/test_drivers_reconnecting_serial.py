"""Serial lines and sockets that hang up: the next calls find the instrument again, and never another one.

The mount and the detector are small models behind real pseudo-terminals and sockets; what they were told is the truth.
"""

import contextlib
import socket
import threading

import pytest
from faulty_proxy import FaultyProxy, PluggedLine, eventually

from drivers import detector_spd, mount_nexstar
from groundstation.clock import SystemClock, monotonic_s
from groundstation.errors import GroundStationError, TransportLost, TransportTimeout, WrongInstrument

LINK_ERRORS = (TransportLost, TransportTimeout)
MOUNT_SETTINGS = {"timeout_s": 0.4}
DETECTOR_SETTINGS = {"timeout_s": 0.3}


class MountModel:
    """The hand control of a NexStar: answers requests by the protocol document."""

    def __init__(self, model=6):
        self.model, self.rates = model, {}
        self.position = b"12AB0500,40000500#"

    def __call__(self, data):
        """The length of a request follows from its first byte."""
        replies = []
        while data:
            length = {b"K": 2, b"P": 8, b"b": 18}.get(data[:1], 1)
            replies.append(self._answer(data[:length]))
            data = data[length:]
        return b"".join(replies)

    def _answer(self, request):
        if request[:1] == b"K":
            return request[1:2] + b"#"
        if request[:1] == b"P":
            self.rates[request[2]] = request[3:6]
            return b"#"
        known = {b"V": b"\x04\x15#", b"m": bytes((self.model,)) + b"#", b"z": self.position, b"L": b"0#"}
        return known.get(request, b"#")


class DetectorModel:
    """An SPD that remembers its settings."""

    def __init__(self, name="H"):
        self.name = name
        self.values = {"hvolt": 0.0, "settemp": -20.0, "threshvolt": 0.5, "time": 1000.0}

    def __call__(self, data):
        replies = []
        for line in filter(None, data.decode().split("\r\n")):
            name, _, value = line.partition(" ")
            if value:
                self.values[name] = float(value)
            elif line == "*IDN?":
                replies.append(f"S-Fifteen,SPD,{self.name},1.0")
            else:
                replies.append(str({"counts?": 1234, "temp?": -20.0}.get(line, self.values.get(line.rstrip("?")))))
        return "".join(f"{reply}\r\n" for reply in replies).encode()


@contextlib.contextmanager
def on_a_serial_line(directory, model):
    line = PluggedLine(directory, model)
    try:
        yield line
    finally:
        line.close()


@contextlib.contextmanager
def on_a_socket(model):
    """The model behind a serial server (TCP), and a cable that can be reset."""
    server = socket.create_server(("127.0.0.1", 0))

    def talk(client):
        with client, contextlib.suppress(OSError):
            while data := client.recv(4096):
                if reply := model(data):
                    client.sendall(reply)

    def serve():
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=talk, args=(server.accept()[0],), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    proxy = FaultyProxy(f"tcp://127.0.0.1:{server.getsockname()[1]}")
    try:
        yield proxy
    finally:
        proxy.close()
        server.shutdown(socket.SHUT_RDWR)
        server.close()


def again(call, timeout_s=10.0):
    """Call until it succeeds, like a tracking loop; returns what it gave and the errors before."""
    deadline, errors, found = monotonic_s() + timeout_s, [], []

    def succeeds():
        began_s = monotonic_s()
        try:
            found.append(call())
        except GroundStationError as error:
            errors.append(error)
        assert monotonic_s() - began_s < 3.0, "no call hangs beyond its deadlines"
        return found or monotonic_s() > deadline

    eventually(succeeds, timeout_s + 5.0)
    assert found, errors[-1]
    return found[0], errors


def test_a_mount_whose_serial_line_hung_up_is_found_again_and_takes_rates_anew(tmp_path):
    model = MountModel()
    with on_a_serial_line(tmp_path, model) as line:
        mount = mount_nexstar.connect(line.address, SystemClock(), MOUNT_SETTINGS)
        mount.set_rates(100.0, -50.0)
        line.pull()
        for _ in range(5):
            with pytest.raises(TransportLost):
                mount.read_position()
        model.rates.clear()
        line.plug_in()
        reading, errors = again(mount.read_position)
        assert reading.azimuth_deg == pytest.approx(0x12AB0500 * 360 / 2**32)
        assert all(isinstance(error, LINK_ERRORS) for error in errors)
        assert model.rates == {}, "the driver itself repeats no command: the mount may have been stopped meanwhile"
        mount.set_rates(30.0, 0.0)
        assert model.rates == {16: bytes((6, 0, 120)), 17: bytes((6, 0, 0))}
        mount.close()


def test_a_mount_behind_a_serial_server_that_was_reset_is_found_again():
    with on_a_socket(MountModel()) as proxy:
        mount = mount_nexstar.connect(proxy.address, SystemClock(), MOUNT_SETTINGS)
        for _ in range(3):
            proxy.reset()
            reading, _ = again(mount.read_position)
            assert reading.elevation_deg == pytest.approx(0x40000500 * 360 / 2**32)
        assert proxy.connections == 4
        mount.close()


def test_a_mount_behind_a_silent_peer_is_connected_to_anew():
    with on_a_socket(MountModel()) as proxy:
        mount = mount_nexstar.connect(proxy.address, SystemClock(), MOUNT_SETTINGS)
        proxy.stalled = True
        for _ in range(3):
            with pytest.raises(LINK_ERRORS):
                mount.read_position()
        proxy.stalled = False
        again(mount.read_position)
        assert proxy.connections >= 2
        mount.close()


def test_another_mount_behind_the_same_port_is_refused_until_the_first_is_back(tmp_path):
    model = MountModel()
    with on_a_serial_line(tmp_path, model) as line:
        mount = mount_nexstar.connect(line.address, SystemClock(), MOUNT_SETTINGS)
        line.pull()
        line.answer = MountModel(model=20)
        line.plug_in()
        refused = []
        deadline = monotonic_s() + 15.0
        while len(refused) < 3 and monotonic_s() < deadline:
            with pytest.raises(GroundStationError) as error:
                mount.set_rates(100.0, 100.0)
            if isinstance(error.value, WrongInstrument):
                refused.append(str(error.value))
        assert "now answers as Advanced VX, it was Advanced GT" in refused[-1]
        assert line.answer.rates == {}
        line.pull()
        line.answer = model
        line.plug_in()
        again(lambda: mount.set_rates(100.0, 100.0))
        assert set(model.rates) == {16, 17}
        mount.close()


def test_a_detector_whose_line_hung_up_is_found_again_and_its_readings_are_its_own(tmp_path):
    model = DetectorModel()
    with on_a_serial_line(tmp_path, model) as line:
        detector = detector_spd.connect(line.address, SystemClock(), DETECTOR_SETTINGS)
        detector.set_bias_v(190.0)
        line.pull()
        with pytest.raises(TransportLost):
            detector.counts(0.5)
        model.values["hvolt"] = 0.0  # it lost its power as well
        line.plug_in()
        bias_v, _ = again(detector.bias_v)
        assert bias_v == 0.0
        again(lambda: detector.set_bias_v(190.0))
        assert model.values["hvolt"] == 190.0
        assert detector.counts(0.5) == 1234
        detector.close()


def test_another_detector_behind_the_same_port_is_never_read_or_set(tmp_path):
    with on_a_serial_line(tmp_path, DetectorModel("H")) as line:
        detector = detector_spd.connect(line.address, SystemClock(), DETECTOR_SETTINGS)
        line.pull()
        line.answer = other = DetectorModel("V")
        line.plug_in()
        seen = set()
        deadline = monotonic_s() + 15.0
        while WrongInstrument not in seen and monotonic_s() < deadline:
            with pytest.raises(GroundStationError) as error:
                detector.set_bias_v(150.0)
            seen.add(type(error.value))
        assert WrongInstrument in seen
        assert other.values["hvolt"] == 0.0
        detector.close()


def test_attempts_are_bounded_in_number_and_a_closed_link_stays_closed(tmp_path):
    with on_a_serial_line(tmp_path, DetectorModel()) as line:
        detector = detector_spd.connect(line.address, SystemClock(), DETECTOR_SETTINGS)
        line.pull()
        opened, opener = [], detector._link._opener
        detector._link._opener = lambda: opened.append(monotonic_s()) or opener()
        deadline = monotonic_s() + 1.2
        while monotonic_s() < deadline:
            with pytest.raises(TransportLost):
                detector.bias_v()
        assert 2 <= len(opened) <= 5, "after 0.1, 0.2, 0.4, 0.8 s"
        detector.close()
        line.plug_in()
        with pytest.raises(TransportLost, match="is closed"):
            detector.bias_v()
