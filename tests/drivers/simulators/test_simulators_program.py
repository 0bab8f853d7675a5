"""The manners that all simulator programs share."""

import dataclasses
import json
import signal
import socket
import subprocess
import sys
import time

import pytest

from drivers.simulators.program import arguments, world_of
from drivers.simulators.wire import listen
from groundstation.errors import BadInput
from groundstation.simulation.parameters import MountParameters, WorldParameters

SIMULATORS = ["mount_nexstar", "detector_spd", "transmitter_sdp1"]


def run(module, *arguments):
    return subprocess.run(
        [sys.executable, "-m", f"drivers.simulators.{module}", *arguments],
        capture_output=True, text=True, timeout=10, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def test_the_worlds_parameters_are_read_from_the_settings_file(tmp_path):
    world = WorldParameters(seed=7, mount=MountParameters(park_azimuth_deg=12.5))
    file = tmp_path / "world.json"
    file.write_text(json.dumps(dataclasses.asdict(world)))
    assert world_of(arguments("").parse_args(["--settings", str(file)])).parameters == world


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"sed": 1}, 'no key "sed"; the nearest valid key is "seed"'),
        ({"source": {"slot_rate": 1}}, 'no key "slot_rate"'),
        ({"seed": "one"}, "seed"),
        ({"seed": True}, "must be a whole number"),
        ({"source": {"slot_rate_hz": 0.5}}, "must be a whole number"),
        ({"source": 3}, "must be a table"),
        ({"source": {"laser_delay_ps": ["a"] * 8}}, "must be a number"),
    ],
)
def test_settings_that_are_not_understood_are_named(tmp_path, settings, named):
    file = tmp_path / "world.json"
    file.write_text(json.dumps(settings))
    with pytest.raises(BadInput, match=named):
        world_of(arguments("").parse_args(["--settings", str(file)]))


@pytest.mark.parametrize("module", SIMULATORS)
def test_a_supervised_program_lingers_after_its_parent_is_gone_and_then_ends(start, module):
    program = start(module, "--supervised", "--linger", 0.3)
    closed_s = time.monotonic()
    program.process.stdin.close()
    program.process.stdin = None
    assert program.process.wait(timeout=5) == 0
    assert time.monotonic() - closed_s >= 0.3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_program_quietly(start, number):
    program = start("transmitter_sdp1")
    program.process.send_signal(number)
    assert program.process.wait(timeout=5) == 0


def test_a_supervised_program_leaves_ctrl_c_to_its_parent(start):
    program = start("mount_nexstar", "--supervised")
    program.process.send_signal(signal.SIGINT)
    assert program.line().ask(b"Kx", 2) == b"x#"


@pytest.mark.parametrize(
    ("module", "arguments", "sentence"),
    [
        ("mount_nexstar", ["--clock", "noon"], 'clock "noon" is neither'),
        ("mount_nexstar", ["--address", "http:/x"], "serial://PATH"),
        ("mount_nexstar", ["--address", "serial://"], "serial://PATH"),
        ("detector_spd", ["--detector", "4"], "it must be 0 to 3"),
        ("transmitter_sdp1", ["--address", "tcp://0.0.0.0:0"], "not on the loopback interface"),
        ("transmitter_sdp1", ["--epoch", "2016-12-19T16:49:00"], "names no time zone"),
    ],
)
def test_bad_input_gives_one_sentence_and_exit_code_2(module, arguments, sentence):
    ended = run(module, *arguments)
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert sentence in ended.stderr
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("option", "value", "sentence"),
    [
        ("--settings", "/nowhere/settings.json", "/nowhere/settings.json cannot be read"),
        ("--world", "/nowhere/world", "/nowhere/world cannot be attached"),
        ("--world", "/dev/null", "/dev/null cannot be attached"),
        ("--faults", '{"mutes": 1}', 'no key "mutes"'),
        ("--faults", "[]", "--faults must be a JSON object"),
        ("--faults", "{", "--faults is not JSON"),
        ("--colour", "red", "--colour"),
    ],
)
def test_the_shared_options_are_checked(option, value, sentence):
    with pytest.raises(BadInput, match=sentence):
        world_of(arguments("").parse_args([option, value]))


@pytest.mark.parametrize("address", ["tcp://example.org:1", "tcp://192.0.2.1:0", "tcp://[::]:0"])
def test_only_the_loopback_interface_is_served(address):
    with pytest.raises(BadInput, match="not on the loopback interface"):
        listen(address)


@pytest.mark.parametrize("address", ["127.0.0.1:0", "tcp://127.0.0.1", "tcp://127.0.0.1:65536", "tcp://:1"])
def test_an_address_that_is_not_one_is_refused(address):
    with pytest.raises(BadInput, match="not of the form"):
        listen(address)


def test_a_port_in_use_gives_one_sentence_and_exit_code_2():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = run("transmitter_sdp1", "--address", f"tcp://127.0.0.1:{port}")
    assert ended.returncode == 2
    assert f"port {port} on 127.0.0.1 is in use" in ended.stderr
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize("scheme", ["serial:", "serial://"])
def test_a_serial_line_can_be_given_a_name_that_goes_with_the_program(start, tmp_path, scheme):
    program = start("mount_nexstar", "--address", f"{scheme}{tmp_path}/nexstar")
    assert program.ready["address"] == f"serial:{tmp_path}/nexstar"
    assert program.ready["guard_address"] == f"serial:{tmp_path}/nexstar.guard"
    assert program.line("guard_address").ask(b"Kg", 2) == b"g#"
    ended = run("mount_nexstar", "--address", f"serial:{tmp_path}/nexstar")
    assert ended.returncode == 2
    assert "cannot be made" in ended.stderr
    program.process.terminate()
    program.process.wait(timeout=5)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", [("--pty",), ("--pty", "--address", "tcp://127.0.0.1:0")])
def test_a_pseudo_terminal_can_be_asked_for_whatever_the_address_says(start, place):
    program = start("mount_nexstar", *place)
    assert program.line().ask(b"Kx", 2) == b"x#"
    assert program.line("guard_address").ask(b"Ky", 2) == b"y#"


@pytest.mark.parametrize(
    ("module", "request_bytes", "answer"),
    [("mount_nexstar", b"Kx", b"x#"), ("detector_spd", b"*IDN?\n", b"S-Fifteen Instruments SPD simulated-H\r\n")],
)
def test_a_serial_instrument_is_served_behind_a_tcp_bridge_too(start, fast_clock, module, request_bytes, answer):
    program = start(module, "--address", "tcp://127.0.0.1:0", "--clock", fast_clock(1))
    for _ in range(2):
        with program.connect() as client, program.connect() as other:
            for line in (client, other):
                line.sendall(request_bytes)
                assert line.recv(100) == answer
    assert program.ready.get("guard_address", program.ready["address"]) == program.ready["address"]


def test_a_mute_instrument_falls_silent(start, fast_clock):
    line = start("mount_nexstar", "--clock", fast_clock(1), "--faults", '{"mute_after_s": 0}').line()
    line.write(b"Kx")
    assert line.read(2, timeout_s=0.2) == b""


def test_every_nth_reply_is_dropped(start):
    line = start("mount_nexstar", "--faults", '{"drop_reply_every": 3}').line()
    assert line.ask(b"KaKbKcKdKeKf", 8) == b"a#b#d#e#"


def test_a_delayed_reply_is_late_in_world_time(start, fast_clock):
    line = start("mount_nexstar", "--clock", fast_clock(10), "--faults", '{"reply_delay_s": 3.0}').line()
    asked_s = time.monotonic()
    assert line.ask(b"Kx", 2) == b"x#"
    assert 0.3 <= time.monotonic() - asked_s < 2.0


def test_split_replies_are_whole_and_in_order(start):
    line = start("mount_nexstar", "--faults", '{"split_replies": true}').line()
    line.write(b"zKxz")
    assert line.read(6, timeout_s=1.0).find(b",") == -1
    rest = line.read(32)
    assert rest[12:14] == b"x#"
    assert len(rest) == 32


@pytest.mark.parametrize(
    ("module", "request_bytes", "size", "true_model"),
    [("mount_nexstar", b"m", 2, b"\x07#"), ("detector_spd", b"*IDN?\n", 25, b"SPD")],
)
def test_a_wrong_model_says_so(start, module, request_bytes, size, true_model):
    line = start(module, "--faults", '{"wrong_model": true}').line()
    reply = line.ask(request_bytes, size)
    assert len(reply) == size
    assert true_model not in reply
