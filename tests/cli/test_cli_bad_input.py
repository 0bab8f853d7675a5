"""Bad input ends with exit code 2 and one clear sentence, and leaves no program behind."""

import contextlib
import os
import pty
import re
import select
import socket
import threading
import tty
from collections.abc import Iterator
from pathlib import Path

import h5py
import pytest
from flights import Console, edited, instrument, run_command, station_text

from groundstation.cli.checking import check_mount
from groundstation.config import load_config

#: Published element sets that are damaged (Micius' from 2024, and one called LEKTRON).
_BAD_CHECKSUM = (
    "1 41731U 16051A   24350.52843431  .00000969  00000-0  16238-3 0  9997",
    "2 41731  97.4024 252.3661 0008272  97.6698 262.5358 15.22855523463832",
)
_LONG_LINE = (
    "1 41731U 16051A   23363.09069254  .00007725  00000+0  23616-3 0  9992",
    "2 41731  99.0000  271.1908 0012471  113.5977 246.6577 15.24069756410432",
)
#: Never opened: the mount itself does not answer.
_GUARD = 'guard_address = "serial:/dev/null"'


class Refused:
    """Runs commands and returns the one sentence with which the program refuses them."""

    def __init__(self, folder: Path, console: Console) -> None:
        self.folder = folder
        self._console = console

    def command(self, *words: object) -> str:
        return self._sentence(*self._console.run(*words))

    def run(self, station: str, *options: object) -> str:
        """`groundstation run` that must not even start a program."""
        return self.command(*self._words(station, *options))

    def run_with_programs(self, station: str, *options: object) -> str:
        """`groundstation run` that fails while it starts the programs, or connects to the instruments."""
        code, output, errors, left = run_command(*self._words(station, *options))
        assert not left
        return self._sentence(code, output, errors)

    def _words(self, station: str, *options: object) -> list[object]:
        config = self.folder / "station.toml"
        config.write_text(station, encoding="utf-8")
        return ["run", "--config", config, "--output", self.folder / "pass", *options]

    @staticmethod
    def _sentence(code: int, output: str, errors: str) -> str:
        assert "Traceback" not in output + errors, errors
        assert code == 2, output + errors
        assert errors.startswith("groundstation: ")
        assert errors.count("\n") == 1, errors
        return errors


@pytest.fixture
def refused(tmp_path: Path, console: Console) -> Refused:
    return Refused(tmp_path, console)


def line_of(text: str, beginning: str) -> int:
    return next(n for n, line in enumerate(text.splitlines(), 1) if line.startswith(beginning))


# --- The station file ------------------------------------------------------------------------------------


def test_an_unknown_key_is_named_with_its_line_and_the_nearest_valid_one(refused: Refused) -> None:
    text = station_text().replace("margin_s", "margins_s")
    sentence = refused.run(text)
    assert f"line {line_of(text, 'margins_s')}:" in sentence
    assert '"margins_s"' in sentence
    assert '"margin_s"' in sentence


def test_an_unknown_setting_of_a_driver_is_named(refused: Refused) -> None:
    text = instrument(station_text(), "mount", "serial:any", "simulate = true", "settings = { expected_modell = 6 }")
    sentence = refused.run_with_programs(text)
    assert '"expected_modell"' in sentence
    assert '"expected_model"' in sentence
    assert "mount" in sentence


def test_a_driver_that_does_not_exist_is_named(refused: Refused) -> None:
    sentence = refused.run_with_programs(station_text().replace("mount_nexstar", "mount_nextstar"))
    assert "mount_nextstar" in sentence


def test_a_missing_station_file_is_named(refused: Refused) -> None:
    assert "absent.toml" in refused.command("run", "--config", refused.folder / "absent.toml")


def test_invalid_toml_is_named_with_its_place(refused: Refused) -> None:
    sentence = refused.run("[station\nname = 1\n")
    assert "station.toml" in sentence
    assert "line 1" in sentence


@pytest.mark.parametrize(("lines", "finding"), [(_BAD_CHECKSUM, "checksum"), (_LONG_LINE, "71 characters")])
def test_a_damaged_element_set_is_refused(refused: Refused, lines: tuple[str, str], finding: str) -> None:
    text = re.sub(r"(?s)tle = \[.*?\n\]", f'tle = ["{lines[0]}", "{lines[1]}"]', station_text())
    assert lines[0] in text
    assert finding in refused.run(text)


def test_a_pass_in_the_past_is_refused_by_a_real_station(refused: Refused) -> None:
    text = station_text().replace("simulate = true", "simulate = false")
    sentence = refused.run(text)
    assert "which is over" in sentence
    assert 'search_from = "now"' in sentence


def test_a_satellite_that_does_not_come_is_refused(refused: Refused) -> None:
    assert "does not come within 100 km" in refused.run(edited(station_text(), "max_range_km", "100.0"))


def test_a_pass_that_does_not_fit_on_the_disk_is_refused(refused: Refused) -> None:
    text = edited(station_text(), "pps_uncertainty_s", "1e-6\nmax_rate_hz = 1e9\nspace_factor = 1000.0")
    sentence = refused.run(text)
    assert "GB free" in sentence
    assert not (refused.folder / "pass").exists()


# --- Options ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("speed", ["nonsense", "0", "-3", "inf", "nan", "101"])
def test_a_speed_that_is_none_is_refused(refused: Refused, speed: str) -> None:
    assert speed in refused.run(station_text(), f"--speed={speed}")


def test_a_world_with_hardware_in_it_cannot_run_faster(refused: Refused) -> None:
    text = instrument(station_text(), "detector_h", "serial:/dev/ttyUSB0")
    assert "every instrument is simulated" in refused.run(text, "--speed", 5)


def test_a_seed_without_a_simulated_world_is_refused(refused: Refused) -> None:
    text = station_text().replace("simulate = true", "simulate = false").partition("\n[simulation]")[0]
    assert "--seed" in refused.run(text, "--seed", 1)


def test_a_seed_that_is_none_is_refused(refused: Refused) -> None:
    assert "--seed" in refused.run(station_text(), "--seed", -1)


@pytest.mark.parametrize("words", [["fly"], ["run", "--colour"], []])
def test_an_unknown_command_or_option_is_refused(refused: Refused, words: list[str]) -> None:
    assert "--help" in refused.command(*words)


def test_an_output_that_cannot_be_made_is_refused(refused: Refused) -> None:
    (refused.folder / "pass").write_text("a file, not a directory")
    assert str(refused.folder / "pass") in refused.run(station_text())


# --- Recordings ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["replay", "info"])
def test_a_recording_that_is_none_of_ours_is_refused(refused: Refused, command: str) -> None:
    text, empty, foreign = refused.folder / "notes.h5", refused.folder / "empty", refused.folder / "foreign.h5"
    text.write_text("not HDF5")
    empty.mkdir()
    with h5py.File(foreign, "w") as file:
        file["photon_data/timestamps"] = range(10)
    for path in (text, empty, foreign, refused.folder / "absent.h5"):
        assert str(path) in refused.command(command, path)


@pytest.mark.parametrize("speed", ["nonsense", "0", "-1", "nan"])
def test_a_replay_at_no_speed_is_refused(refused: Refused, speed: str) -> None:
    assert speed in refused.command("replay", refused.folder, f"--speed={speed}")


# --- Instruments -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tagger", pytest.param("transmitter", marks=pytest.mark.slow)])
def test_a_port_in_use_is_named(refused: Refused, name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        text = instrument(station_text(), name, f"tcp://127.0.0.1:{port}", "simulate = true")
        sentence = refused.run_with_programs(text)
    assert f"port {port} on 127.0.0.1 is in use" in sentence
    assert name in sentence


def test_a_serial_port_that_is_not_there_is_named(refused: Refused) -> None:
    path = refused.folder / "ttyUSB7"
    sentence = refused.run_with_programs(instrument(station_text(), "detector_v", f"serial:{path}"))
    assert "detector_v" in sentence
    assert str(path) in sentence


@pytest.mark.parametrize("name", ["mount", pytest.param("detector_d", marks=pytest.mark.slow)])
def test_a_silent_instrument_on_a_serial_line_is_named(refused: Refused, name: str) -> None:
    with answering(b"") as path:
        text = instrument(station_text(), name, f"serial:{path}", _GUARD, "settings = { timeout_s = 1.0 }")
        sentence = refused.run_with_programs(text)
    assert name in sentence
    assert path in sentence


@pytest.mark.parametrize("name", ["transmitter", pytest.param("tagger", marks=pytest.mark.slow)])
def test_a_silent_instrument_behind_a_port_is_named(refused: Refused, name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        text = instrument(station_text(), name, address, "settings = { timeout_s = 1.0 }")
        sentence = refused.run_with_programs(text)
    assert name in sentence
    assert address in sentence


@pytest.mark.parametrize(
    ("name", "identity"),
    [
        ("detector_a", b"ACME,PS3000,17,1.0\r\n"),
        pytest.param("mount", b"K\x16#", marks=pytest.mark.slow),
    ],
)
def test_an_instrument_of_another_kind_is_named(refused: Refused, name: str, identity: bytes) -> None:
    with answering(identity) as path:
        text = instrument(station_text(), name, f"serial:{path}", _GUARD, "settings = { timeout_s = 1.0 }")
        sentence = refused.run_with_programs(text)
    assert name in sentence
    assert path in sentence
    assert re.search(r"not (answer as )?a", sentence)


@pytest.mark.slow
def test_another_program_behind_the_transmitters_port_is_named(refused: Refused) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=_speak_http, args=(server,))
        thread.start()
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        sentence = refused.run_with_programs(instrument(station_text(), "transmitter", address))
        thread.join()
    assert "no SDP transmitter" in sentence
    assert address in sentence


def test_a_real_mount_needs_a_second_link_for_the_guard(refused: Refused) -> None:
    text = instrument(station_text(), "mount", "serial:/dev/ttyUSB0")
    assert "guard_address" in refused.run(text)
    shared = instrument(station_text(), "mount", "serial:/dev/ttyUSB0", 'guard_address = "serial:/dev/ttyUSB0"')
    assert "guard_address" in refused.run(shared)


@pytest.mark.parametrize(("driver", "scheme"), [("mount_pwi4", "http"), ("mount_10micron", "tcp")])
def test_a_mount_on_the_network_is_guarded_by_a_second_connection(refused: Refused, driver: str, scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        nobody = f"{scheme}://127.0.0.1:{server.getsockname()[1]}"
    config = refused.folder / "station.toml"
    config.write_text(instrument(station_text(), "mount", nobody).replace("mount_nexstar", driver), encoding="utf-8")
    check_mount(load_config(config))


def test_a_channel_must_be_plugged_into_an_input_that_there_is(refused: Refused) -> None:
    text = station_text().replace("A = { inputs = [4] }", "A = { inputs = [6] }")
    sentence = refused.run(text)
    assert "A is plugged into inputs 6, but tagger_tdc2 has inputs 1 to 4" in sentence
    assert "[instruments.tagger_2]" in sentence


@pytest.mark.parametrize(
    ("inputs", "settings", "said"),
    [
        ("[4, 5]", "{ common_inputs = [3, 4] }", "the second 5 to 8, and a channel is at one of them"),
        ("[8]", "{ common_inputs = [7] }", "give 1 to 4"),
        ("[8]", '{ common_inputs = [3], common_channel = "A" }', 'common_channel of [instruments.tagger_2] is "A"'),
        ("[8]", "{}", 'lacks the key "common_inputs"'),
    ],
)
def test_what_two_taggers_cannot_record_is_refused(refused: Refused, inputs: str, settings: str, said: str) -> None:
    text = station_text().replace("A = { inputs = [4] }", f"A = {{ inputs = {inputs} }}")
    text += '\n[instruments.tagger_2]\ndriver = "tagger_tdc2"\naddress = "tcp://127.0.0.1:0"\nsimulate = true\n'
    assert said in refused.run(f"{text}settings = {settings}\n")


@pytest.mark.slow
def test_after_a_refusal_the_same_output_can_be_used(refused: Refused) -> None:
    text = instrument(station_text(), "detector_v", f"serial:{refused.folder / 'ttyUSB7'}")
    first = refused.run_with_programs(text)
    assert refused.run_with_programs(text) == first


@contextlib.contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """The path of a serial line at whose far end something gives one answer to whatever it is asked."""
    instrument_end, other_end = pty.openpty()
    tty.setraw(instrument_end)
    tty.setraw(other_end)
    ending, wake = os.pipe()

    def serve() -> None:
        while ending not in (ready := select.select([instrument_end, ending], [], [])[0]):
            if instrument_end in ready and os.read(instrument_end, 4096):
                os.write(instrument_end, answer)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield os.ttyname(other_end)
    finally:
        os.write(wake, b"x")
        thread.join()
        for descriptor in (instrument_end, other_end, ending, wake):
            os.close(descriptor)


def _speak_http(server: socket.socket) -> None:
    connection, _ = server.accept()
    with connection:
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n" + bytes(64))
        while connection.recv(4096):
            pass
