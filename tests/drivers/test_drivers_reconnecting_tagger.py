"""The tagger's cable is pulled in every way there is; the recorder goes on and every tag keeps its true time.

The TDC2's simulator is the far end, a proxy is the cable. Truth: its 1PPS marks whole seconds of the world.
"""

import contextlib
import json
import socket
import threading
import time

import numpy as np
import pytest
from faulty_proxy import FaultyProxy, eventually, simulator

from drivers import tagger_tdc2
from groundstation.acquisition import connection as connection_module
from groundstation.acquisition.connection import TaggerConnection
from groundstation.clock import SimulatedClock, monotonic_ns, monotonic_s
from groundstation.errors import TransportLost

PS = 10**12
PPS = 0b1100
T0_NS = 1_482_166_140_000_000_000
SPEED = 5.0
SETTINGS = {"timeout_s": 1.0}


@pytest.fixture(scope="module")
def clock():
    return SimulatedClock(T0_NS, monotonic_ns(), SPEED)


@pytest.fixture(scope="module")
def tagger(clock):
    """One simulator for all tests."""
    with simulator("tagger_tdc2", "--clock", clock.text()) as address:
        yield address


@pytest.fixture
def line(tagger):
    """The cable to it."""
    proxy = FaultyProxy(tagger)
    yield proxy
    proxy.close()


class Recorder:
    """Reads like the recorder does; also checks that no read takes longer than it may."""

    def __init__(self, proxy, clock, pps=PPS):
        self.connection = TaggerConnection(lambda: tagger_tdc2.connect(proxy.address, clock, SETTINGS), pps, clock)
        self.blocks, self.longest_s = [], 0.0
        self.ahead_s, self._clock = [], clock

    def read(self, until, timeout_s=15.0):
        deadline = monotonic_s() + timeout_s
        while not until():
            assert monotonic_s() < deadline, f"it did not happen in time ({self.connection.trouble})"
            began_s = monotonic_s()
            self.blocks.append(self.connection.read(0.02))
            self.longest_s = max(self.longest_s, monotonic_s() - began_s)
            if self.blocks[-1].time_ps.size:
                self.ahead_s.append(self.blocks[-1].latest_ps / PS - self._clock.utc_ns() * 1e-9)

    def read_world_s(self, seconds):
        self.read(lambda: self.latest_ps >= 0)
        stop_ps = self.latest_ps + round(seconds * PS)
        self.read(lambda: self.latest_ps >= stop_ps)

    @property
    def latest_ps(self):
        return max((block.latest_ps for block in self.blocks), default=-1)

    @property
    def notes(self):
        return [note for block in self.blocks for note in block.notes]

    def times(self):
        return np.concatenate([block.time_ps for block in self.blocks])

    def pulses(self):
        return np.concatenate([block.time_ps[block.pattern == PPS] for block in self.blocks])

    def check(self):
        times, latest = self.times(), [block.latest_ps for block in self.blocks]
        assert np.all(np.diff(times) >= 0)
        assert latest == sorted(latest)
        pulses = self.pulses() - self.pulses()[0]
        assert np.abs(pulses - np.rint(pulses / PS) * PS).max() < 1_000_000, "1 us: the uncertainty of the 1PPS"


@pytest.fixture
def recorder(line, clock):
    recorder = Recorder(line, clock)
    yield recorder
    recorder.connection.close()
    assert recorder.longest_s < 0.5, "the recorder must go on committing"


def test_a_reset_costs_what_came_meanwhile_and_nothing_else(line, recorder):
    recorder.read_world_s(6)
    line.reset()
    recorder.read_world_s(6)
    assert recorder.connection.outages == 1
    assert recorder.connection.trouble == ""
    (told,) = [note for note in recorder.notes if "the tagger is back" in note]
    assert "as the 1PPS confirms" in told
    recorder.check()


@pytest.mark.slow
def test_a_gap_of_several_seconds_is_told_and_shown_meanwhile(line, recorder):
    recorder.read_world_s(6)
    line.refusing = True
    line.reset()
    recorder.read(lambda: recorder.connection.trouble)
    began_s, before_ps = monotonic_s(), recorder.latest_ps
    recorder.read(lambda: monotonic_s() > began_s + 1.5)
    assert "the tagger is gone since 2016-12-19T16:" in recorder.connection.trouble
    assert recorder.latest_ps == before_ps
    line.refusing = False
    recorder.read_world_s(8)
    (lead,) = [block for block in recorder.blocks if any("the tagger is back" in note for note in block.notes)]
    assert lead.time_ps.size == 0
    assert lead.latest_ps - before_ps > 1.4 * SPEED * PS
    assert recorder.connection.trouble == ""
    recorder.check()


@pytest.mark.slow
def test_a_silent_peer_is_noticed(line, recorder, monkeypatch):
    monkeypatch.setattr(connection_module, "_SILENT_S", 0.6)
    recorder.read_world_s(5)
    line.stalled = True
    recorder.read(lambda: recorder.connection.outages == 1)
    assert "has been silent" in recorder.connection.trouble
    recorder.read(
        lambda: "too little" in recorder.connection.trouble or "does not answer" in recorder.connection.trouble
    )
    line.stalled = False
    recorder.read_world_s(8)
    recorder.check()


def test_slices_and_lost_and_foreign_bytes_need_no_new_connection(line, recorder):
    line.slice_bytes = 3
    recorder.read_world_s(2)
    line.slice_bytes = 0
    line.lose_bytes = 5
    recorder.read_world_s(2)
    line.inject = np.random.default_rng(1).bytes(1001)
    recorder.read_world_s(2)
    assert recorder.connection.outages == 0
    assert any("dropped" in note for note in recorder.notes)
    recorder.check()


@pytest.mark.slow
def test_half_a_word_before_a_reset_is_never_a_tag(line, recorder):
    recorder.read_world_s(5)
    for _ in range(3):
        line.lose_bytes = 3
        seen = line.passed
        eventually(lambda seen=seen: line.passed > seen)
        line.reset()
        recorder.read_world_s(4)
    assert recorder.connection.outages >= 3
    recorder.check()


@pytest.mark.slow
def test_a_restarted_tagger_goes_on_in_the_same_recording(line, recorder, clock, tmp_path):
    """Its counter begins elsewhere: the tags of the second program lie on the time scale of the first."""
    recorder.read_world_s(6)
    reads = len(recorder.ahead_s)
    settings = tmp_path / "world.json"
    settings.write_text(json.dumps({"clocks": {"tagger_start_s": 17.123456789}}))
    with simulator("tagger_tdc2", "--clock", clock.text(), "--settings", settings) as address:
        line.target = address
        line.reset()
        recorder.read(lambda: any("found again by the 1PPS" in note for note in recorder.notes), timeout_s=30.0)
        recorder.read_world_s(3)
        assert recorder.connection.take_dropped() == {}
        recorder.check()
        ahead_s = max(recorder.ahead_s[:reads]), max(recorder.ahead_s[reads:])
        assert ahead_s[0] == pytest.approx(ahead_s[1], abs=0.5), "the right second, by the reads that came in time"


@pytest.mark.slow
def test_another_instrument_behind_the_same_port_is_never_used(line, recorder):
    recorder.read_world_s(5)
    good = line.target
    with _chatter(b"PRECISION POWER METER 1.234e-3 W\r\n" * 40) as other:
        line.target = other
        line.reset()
        recorder.read(lambda: "no TDC2 event stream" in recorder.connection.trouble)
        before = recorder.times().size
        recorder.read(lambda: "no TDC2" in recorder.connection.trouble and line.connections > 4)
        assert recorder.times().size == before
        line.target = good
        recorder.read_world_s(6)
    recorder.check()


def test_closing_while_it_tries_again_leaves_no_connection_behind(line, recorder):
    recorder.read_world_s(1)
    line.stalled = True
    line.reset()
    recorder.read(lambda: recorder.connection._attempt is not None)
    attempt = recorder.connection._attempt
    recorder.connection.close()
    recorder.connection.close()
    line.stalled = False
    assert attempt.over.wait(5.0)
    assert attempt.tagger is None or attempt.tagger._link._closed
    with pytest.raises(TransportLost):
        recorder.connection.read(0.0)


def test_what_is_wrong_at_the_first_connection_is_said_at_once(clock):
    with pytest.raises(TransportLost, match="cannot be opened"):
        TaggerConnection(lambda: tagger_tdc2.connect("tcp://127.0.0.1:9", clock, SETTINGS), PPS, clock)


@pytest.mark.slow
def test_attempts_become_rarer_and_never_cease(line, recorder, monkeypatch):
    monkeypatch.setattr(connection_module, "_BACK_OFF_S", (0.05, 0.2))
    recorder.connection._back_off_s = 0.05
    recorder.read_world_s(1)
    attempts = []
    connect = recorder.connection._connect
    recorder.connection._connect = lambda: attempts.append(monotonic_s()) or connect()
    line.refusing = True
    line.reset()
    recorder.read(lambda: len(attempts) >= 8)
    waits = np.diff(attempts)
    assert 0.2 <= np.median(waits[3:]) < 0.6
    assert waits[0] < 0.2
    line.refusing = False
    recorder.read_world_s(3)


@contextlib.contextmanager
def _chatter(data):
    """Something that talks, but not the language of a tagger."""
    server = socket.create_server(("127.0.0.1", 0))
    ending = threading.Event()

    def talk():
        while not ending.is_set():
            try:
                client, _ = server.accept()
            except OSError:
                return
            with client, contextlib.suppress(OSError):
                while not ending.is_set():
                    client.sendall(data)
                    time.sleep(0.01)

    thread = threading.Thread(target=talk, daemon=True)
    thread.start()
    yield f"tcp://127.0.0.1:{server.getsockname()[1]}"
    ending.set()
    with contextlib.suppress(OSError):
        server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join(5.0)
