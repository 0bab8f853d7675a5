"""The 10Micron simulator, spoken to over a socket with the commands that INDI's source quotes from the vendor."""

import time

import numpy as np
import pytest

from drivers.simulators.faults import Faults
from drivers.simulators.mount_10micron import Mount
from drivers.simulators.program import Loop, World
from groundstation.clock import NS_PER_S, clock_from_text
from groundstation.passes.elements import ElementSet
from groundstation.passes.orbit import EarthOrientation, Orbit, Site
from groundstation.passes.prediction import find_passes
from groundstation.simulation.blackboard import Blackboard
from groundstation.simulation.parameters import WorldParameters

SITE = Site("Xinglong", 40.39587, 117.57746, 890.0)
PLACE = ("--latitude", "40.39587", "--longitude", "117.57746", "--height", "890")
LINES = (
    "1 41731U 16051A   16353.90152003  .00000364  00000-0  17957-4 0  9993",
    "2 41731  97.3699 267.4500 0013200 178.5836 246.0824 15.23915303 19063",
)
ORBIT = Orbit(ElementSet.parse("MICIUS", *LINES), SITE, EarthOrientation(0.0, 0.0, 0.0, "none", "as the mount"))
EVENING_NS = 1_482_163_200 * NS_PER_S  # 2016-12-19T16:00:00Z
UPLOAD = b":TLEL0MICIUS$0a%s$0a%s#" % tuple(line.encode() for line in LINES)


class Socket:
    def __init__(self, program):
        self.socket = program.connect()
        self.waiting = b""

    def ask(self, command):
        """An answer that ends in `#`."""
        self.socket.sendall(command)
        return self.read_answer()

    def read_answer(self):
        while b"#" not in self.waiting:
            self._receive()
        answer, _, self.waiting = self.waiting.partition(b"#")
        return answer.decode("ascii")

    def ask_character(self, command):
        self.socket.sendall(command)
        while not self.waiting:
            self._receive()
        character, self.waiting = self.waiting[:1], self.waiting[1:]
        return character

    def _receive(self):
        data = self.socket.recv(4096)
        assert data, "the mount hung up"
        self.waiting += data

    def info(self):
        """Azimuth, elevation, UTC ns and Gstat of `:Ginfo#`."""
        fields = self.ask(b":Ginfo#").split(",")
        assert len(fields) >= 8
        julian, fraction = fields[5].split(".")
        utc_ns = (int(julian) - 2_440_587) * 86_400 * NS_PER_S - 43_200 * NS_PER_S
        return float(fields[3]), float(fields[4]), utc_ns + round(float("0." + fraction) * 86_400 * 1e9), int(fields[6])


@pytest.fixture
def mount(start, request):
    sockets = []

    def run(*options):
        sockets.append(Socket(start("mount_10micron", *PLACE, *options)))
        return sockets[-1]

    yield run
    for one in sockets:
        one.socket.close()


def julian(utc_ns):
    return b"%.8f" % (utc_ns / (86_400 * NS_PER_S) + 2_440_587.5)


def look(utc_ns):
    found = ORBIT.geometric(utc_ns)
    return float(found.azimuth_deg[0]), float(found.elevation_deg[0])


def off_arcsec(here, there):
    """Distance on the sky, nearly."""
    azimuth = ((here[0] - there[0] + 180.0) % 360.0 - 180.0) * np.cos(np.radians(there[1]))
    return float(np.hypot(azimuth, here[1] - there[1])) * 3600.0


def test_the_start_up_of_indi_is_answered(mount):
    line = mount()
    line.socket.sendall(b"#:U2#")  # without an answer
    assert line.ask(b"#:GVP#").startswith("10micron")
    assert line.ask(b"#:GVN#")
    assert line.ask(b"#:GVD#").split()[2].isdigit()
    assert line.ask_character(b"\x06") == b"A"
    assert line.ask(b"#:GR#").count(":") == 2
    assert float(line.ask(b"#:GT#")) == pytest.approx(60.1)
    assert line.ask(b":modelcnt#").isdigit()
    assert line.ask_character(b"#:Guaf#") == b"0"
    assert line.ask(b":Gt#") == "+40:23:45.1"
    assert line.ask(b":Gg#") == "-117:34:38.9"  # west is positive
    assert line.ask(b":GC#").count("-") == 2
    assert line.ask(b"#:Ginfo#").count(",") == 7
    assert line.ask(b":Gstat#") == "1"


def test_several_commands_in_one_write_are_answered_in_order(mount):
    line = mount()
    line.socket.sendall(b":GVP#:Gstat#:foo#:GVN#")
    assert [line.read_answer() for _ in range(3)] == ["10micron AZ2000 HPS", "1", "3.1.4"]


def test_a_slew_to_altitude_and_azimuth_has_three_kinds_of_answers(mount, fast_clock, eventually):
    line = mount("--clock", fast_clock(30))
    line.socket.sendall(b":U2#")
    assert line.ask_character(b":Sz120*30:00.0#") == b"1"
    assert line.ask_character(b":Sa+45*15:00.0#") == b"1"
    assert line.ask_character(b":MA#") == b"0"
    assert line.info()[3] == 6
    assert line.ask(b":D#") == "\x7f"
    eventually(lambda: line.info()[3] == 7)
    azimuth, elevation, utc_ns, _ = line.info()
    assert (azimuth, elevation) == pytest.approx((120.5, 45.25), abs=0.001)
    assert utc_ns > 1_482_166_140_000_000_000
    assert line.ask(b":GZ#")[:6] in ("120:30", "120:29")
    assert line.ask_character(b":Sa-10*00:00#") == b"1"
    assert line.ask_character(b":MA#") == b"1"
    assert line.read_answer().startswith("Object Below Horizon")
    assert line.ask_character(b":Sz999*00:00#") == b"0"


def test_a_parked_mount_refuses_and_unparks(mount, fast_clock, eventually):
    line = mount("--clock", fast_clock(30))
    line.socket.sendall(b":KA#")
    eventually(lambda: line.info()[3] == 5)
    line.ask_character(b":Sz10*00:00#")
    line.ask_character(b":Sa20*00:00#")
    assert line.ask_character(b":MA#") == b"1"
    assert line.read_answer()
    line.socket.sendall(b":PO#")
    assert line.ask_character(b":MA#") == b"0"
    line.socket.sendall(b":STOP#")
    eventually(lambda: line.info()[3] == 1)


def test_a_slew_that_is_stopped_is_a_slew_until_the_mount_stands(mount, fast_clock, eventually):
    line = mount("--clock", fast_clock(1))
    line.socket.sendall(b":STOP#")
    assert line.info()[3] == 1  # it stood
    line.ask_character(b":Sz120*00:00#")
    line.ask_character(b":Sa+45*00:00#")
    assert line.ask_character(b":MA#") == b"0"
    eventually(lambda: line.info()[0] > 2.0)
    line.socket.sendall(b":STOP#")
    assert line.info()[3] == 6
    eventually(lambda: line.info()[3] == 1)
    assert line.info()[:2] == pytest.approx(line.info()[:2], abs=0.001)


def test_a_mount_that_is_deaf_slews_on(mount, fast_clock, eventually):
    line = mount("--clock", fast_clock(10), "--faults", '{"special": ["deaf_to_stop"]}')
    line.ask_character(b":Sz020*00:00#")
    line.ask_character(b":Sa+45*00:00#")
    assert line.ask_character(b":MA#") == b"0"
    line.socket.sendall(b":STOP#:Q#")
    eventually(lambda: line.info()[3] == 7)
    assert line.info()[:2] == pytest.approx((20.0, 45.0), abs=0.001)


@pytest.mark.slow
def test_tracking_keeps_right_ascension(mount, fast_clock, eventually):
    line = mount("--clock", fast_clock(30))
    for command in (b":Sz150*00:00#", b":Sa40*00:00#", b":MS#"):
        assert line.ask_character(command) in b"10"
    eventually(lambda: line.info()[3] == 0)
    first = [float(f) for f in line.ask(b":Ginfo#").split(",")[:2]]
    azimuth = line.info()[0]
    eventually(lambda: line.info()[0] > azimuth + 0.3)
    assert [float(f) for f in line.ask(b":Ginfo#").split(",")[:2]] == pytest.approx(first, abs=0.001)
    line.socket.sendall(b":AL#")
    assert line.info()[3] == 7


def test_elements_that_are_damaged_are_refused(mount):
    line = mount()
    assert line.ask(b":TLEG#") == "E"
    assert line.ask(b":TLEP2457742.16666667,60#") == "E"
    assert line.ask(UPLOAD.replace(b"97.3699", b"98.3699")) == "E"
    assert line.ask(UPLOAD) == "V"
    assert line.ask(b":TLEG#").split("$0A") == ["MICIUS", *LINES, ""]
    assert line.ask(b":TLES#") == "E"  # nothing was computed
    assert line.ask(b":TLESCK#") == "E"


def test_the_pass_is_the_one_of_our_own_prediction(mount):
    line = mount()
    line.ask(UPLOAD)
    ours = find_passes(ORBIT, EVENING_NS, EVENING_NS + 7200 * NS_PER_S, 0.0)[0]
    start, stop, flags = line.ask(b":TLEP%s,120#" % julian(EVENING_NS)).split(",")
    assert float(start) == pytest.approx(float(julian(ours.rise.utc_ns)), abs=2e-8)
    assert float(stop) == pytest.approx(float(julian(ours.set.utc_ns)), abs=2e-8)
    assert flags == ""
    assert line.ask(b":TLEP%s,10#" % julian(EVENING_NS)) == "N"
    assert line.ask(b":TLEP%s,1441#" % julian(EVENING_NS)) == "E"
    altitude, azimuth = map(float, line.ask(b":TLEGAZ%s#" % julian(ours.culmination.utc_ns)).split(","))
    assert off_arcsec((azimuth, altitude), look(ours.culmination.utc_ns)) < 60.0  # the day has 0.9 ms, 1 deg/s
    line.ask(b":TLEP%s,120#" % julian(EVENING_NS))
    assert line.ask(b":TLES#") == "Q"  # long over for a mount of today


def flying(mount, speed, before_rise_s):
    """A mount that was told to follow Micius, and the rise."""
    rise = find_passes(ORBIT, EVENING_NS, EVENING_NS + 7200 * NS_PER_S, 0.0)[0].rise.utc_ns
    clock = f"{rise - before_rise_s * NS_PER_S}:{time.monotonic_ns()}:{float(speed)}"
    line = mount("--clock", clock)
    line.ask(UPLOAD)
    assert line.ask(b":TLEP%s,120#" % julian(EVENING_NS)).count(",") == 2
    return line, rise, clock_from_text(clock)


@pytest.mark.slow
def test_it_slews_waits_and_follows_the_satellite(mount, eventually):
    line, rise_ns, _ = flying(mount, 20, 100)
    assert line.ask(b":TLES#") == "V"
    assert line.ask(b":TLESCK#") == "V"
    assert line.info()[3] == 6
    assert line.ask(b":TROFFSET4,+100.0#") == "E"  # it follows nothing yet
    eventually(lambda: line.ask(b":TLESCK#") == "P")
    azimuth, elevation, _, state = line.info()
    assert off_arcsec((azimuth, elevation), look(rise_ns)) < 100.0
    assert state == 7
    eventually(lambda: line.info()[3] == 10, timeout_s=10.0)
    assert line.ask(b":TLESCK#") == "T"
    for _ in range(20):
        azimuth, elevation, utc_ns, state = line.info()
        assert state == 10
        assert off_arcsec((azimuth, elevation), look(utc_ns)) < 10.0


def test_it_catches_a_satellite_that_is_up_and_offsets_move_the_telescope(mount, eventually):
    line, _, _ = flying(mount, 5, -120)
    assert line.ask(b":TLES#") == "S"
    assert line.ask(b":TLESCK#") == "S"
    eventually(lambda: line.info()[3] == 10, timeout_s=15.0)

    def residual_arcsec(later_s=0.0):
        azimuth, elevation, utc_ns, _ = line.info()
        there = look(utc_ns + round(later_s * NS_PER_S))
        return ((azimuth - there[0] + 180.0) % 360.0 - 180.0) * 3600.0, (elevation - there[1]) * 3600.0

    eventually(lambda: residual_arcsec() == pytest.approx((0.0, 0.0), abs=5.0))
    assert line.ask(b":TROFFGET1#") == "+0000.0"
    assert line.ask(b":TROFFSET1,+0300.0#") == "V"
    assert line.ask(b":TROFFADD2,-0100.0#") == "V"
    assert line.ask(b":TROFFADD2,-0050.0#") == "V"
    assert line.ask(b":TROFFGET2#") == "-0150.0"
    eventually(lambda: residual_arcsec() == pytest.approx((300.0, -150.0), abs=8.0))
    assert line.ask(b":TROFFSET2,+1900.0#") == "E"  # beyond its range
    assert line.ask(b":TROFFCLR#") == "V"
    assert line.ask(b":TROFFSET4,+500.0#") == "V"  # milliseconds
    eventually(lambda: residual_arcsec(0.5) == pytest.approx((0.0, 0.0), abs=8.0))
    line.ask(b":TROFFCLR#")
    assert line.ask(b":TROFFSET3,+0300.0#") == "V"  # on the sky: more in azimuth

    def on_sky():
        azimuth, elevation = residual_arcsec()
        return azimuth * np.cos(np.radians(line.info()[1])), elevation

    eventually(lambda: on_sky() == pytest.approx((300.0, 0.0), abs=8.0))
    line.socket.sendall(b":STOP#")
    assert line.ask(b":TLESCK#") == "E"
    eventually(lambda: line.info()[3] == 1)


@pytest.mark.slow
def test_a_path_of_points_a_second_apart_is_followed_to_its_end(mount, fast_clock, eventually):
    text = fast_clock(10)
    line, clock = mount("--clock", text), clock_from_text(text)
    assert line.ask(b":TRP#") == "E"
    start_ns = clock.utc_ns() + 40 * NS_PER_S
    assert line.ask(b":TRNEW%s#" % julian(start_ns)) == "V"
    for second in range(20):
        point = b":TRADD%.5f,%.5f#" % (350.0 + second, 30.0 + second / 2)  # across north
        assert line.ask(point) == str(second + 1)
    assert line.ask(b":TRADD10.0,99.0#") == "E"
    assert float(line.ask(b":TRP#").split(",")[0]) == pytest.approx(float(julian(start_ns)), abs=2e-8)
    assert line.ask(b":TLES#") == "V"
    eventually(lambda: line.info()[3] == 10, timeout_s=10.0)
    checked = 0
    while (found := line.info())[3] == 10:
        azimuth, elevation, utc_ns, _ = found
        seconds = (utc_ns - start_ns) / 1e9
        if 2.0 < seconds < 18.0:
            there = ((350.0 + seconds) % 360.0, 30.0 + seconds / 2)
            assert off_arcsec((azimuth, elevation), there) < 20.0
            checked += 1
    assert checked > 5
    assert line.ask(b":TLESCK#") == "Q"
    assert line.info()[3] == 7


class Ticking:
    """A clock that every look at it moves on by 10 ms."""

    speed = 1.0

    def __init__(self):
        self.now_ns = EVENING_NS

    def utc_ns(self):
        self.now_ns += NS_PER_S // 100
        return self.now_ns


class Kept:
    """A line that keeps what is said."""

    def reply(self, data, latency_s):
        self.said = data.decode("ascii")


@pytest.mark.parametrize("ticks", range(6))
def test_a_path_may_end_at_any_moment_of_a_question(ticks):
    clock, line = Ticking(), Kept()
    world = World(clock, WorldParameters(), Blackboard.alone(25.0), Faults())
    receive = Mount(world, Loop(clock), SITE).receiver()
    start = julian(EVENING_NS + (100 + ticks) * NS_PER_S // 100)
    receive(line, b":TRNEW%s#:TRADD0.0,0.0#:TRADD0.0,0.0#:TRP#:TLES#" % start)
    states = []
    while states[-1:] != ["7"] or "10" not in states:
        receive(line, b":Ginfo#")
        states.append(line.said.split(",")[6])
        assert len(states) < 1000
    assert set(states) == {"7", "10"}


@pytest.mark.parametrize(("fault", "state"), [("needs_user_ok", 11), ("motors_cold", 8)])
def test_a_mount_that_is_not_ready_says_so_and_refuses(mount, fault, state):
    rise = find_passes(ORBIT, EVENING_NS, EVENING_NS + 7200 * NS_PER_S, 0.0)[0].rise.utc_ns
    clock = f"{rise - 100 * NS_PER_S}:{time.monotonic_ns()}:1.0"
    line = mount("--clock", clock, "--faults", f'{{"special": ["{fault}"]}}')
    assert line.info()[3] == state
    assert line.ask_character(b":MA#") == b"1"
    assert line.read_answer()
    line.ask(UPLOAD)
    line.ask(b":TLEP%s,120#" % julian(EVENING_NS))
    assert line.ask(b":TLES#") == "F"


def test_more_fields_and_another_model(mount):
    line = mount("--faults", '{"special": ["more_ginfo_fields"], "wrong_model": true}')
    assert line.ask(b":Ginfo#").count(",") > 7
    assert line.ask(b":GVP#") == "LX200 Classic"
