"""`groundstation instruments`: the list, the probe and the console, over real ptys, sockets and pipes."""

import contextlib
import http.server
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import threading
import tty
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq
from flights import DEADLINE_S, PROGRAM, Console, wait_until

from groundstation.cli.loading import described_drivers
from groundstation.cli.talking import bytes_of, request_of, text_of
from groundstation.errors import BadInput


@contextlib.contextmanager
def simulator(module: str, *arguments: str) -> Iterator[str]:
    command = [sys.executable, "-m", f"drivers.simulators.{module}", *arguments]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())["address"]
        finally:
            process.terminate()


def talk(folder: Path, typed: str, *words: str) -> tuple[int, list[str], str]:
    """Run the console with piped stdin: exit code, the lines of the talk, stderr."""
    done = subprocess.run(
        [*PROGRAM, "instruments", "console", *words],
        input=typed, capture_output=True, text=True, cwd=folder, timeout=DEADLINE_S, check=False,
    )  # fmt: skip
    return done.returncode, [line for line in done.stdout.splitlines() if line[:2] in ("> ", "< ")], done.stderr


# --- The list --------------------------------------------------------------------------------------------


def test_the_list_names_every_driver_and_fits_on_80_columns(console: Console) -> None:
    code, output, errors = console.run("instruments")
    assert (code, errors) == (0, "")
    assert max(map(len, output.splitlines())) <= 80
    cells = " ".join(re.sub(r"[│┃]", " ", output).split())
    found = described_drivers()
    assert {"detector_spd", "mount_nexstar", "transmitter_sdp1"} <= set(found)
    for name, driver in found.items():
        assert name in cells
        assert all(f"{scheme}:" in cells for scheme in driver.schemes)
        assert driver.documentation
        assert driver.instrument.split()[0] in cells


def test_every_driver_module_with_connect_describes_itself() -> None:
    folder = Path(__file__).parents[2] / "drivers"
    connecting = {path.stem for path in folder.glob("*.py") if "\ndef connect(" in path.read_text(encoding="utf-8")}
    assert connecting == set(described_drivers())


# --- The probe -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_probe_finds_the_mount_and_says_who_did_not_answer(console: Console) -> None:
    # In a fast world the hand control soon forgets a question that it did not understand.
    with simulator("mount_nexstar", "--clock", "0:0:50.0") as address:
        code, output, errors = console.run("instruments", "probe", address, "--timeout", "0.3", "--pause", "0.1")
    assert (code, errors) == (0, "")
    warning, hint, *lines = output.splitlines()
    assert "may take one for a command" in f"{warning} {hint}"
    answers = {line.split()[1]: line.split()[0] for line in lines}
    assert [name for name, verdict in answers.items() if verdict == "yes"] == ["mount_nexstar"]
    assert answers["detector_spd"] == "no"
    assert "SLT, firmware 4.41" in output


def test_a_probe_with_one_driver_asks_one_question_only(console: Console) -> None:
    with simulator("detector_spd") as address:
        code, output, _ = console.run("instruments", "probe", address, "--driver", "detector_spd")
        assert code == 0
        assert [line.split()[0] for line in output.splitlines()] == ["Asks", "yes"]
        code, output, _ = console.run("instruments", "probe", address, "--driver", "mount_nexstar", "--timeout", "0.2")
        assert code == 1
        assert output.splitlines()[1].startswith("no   mount_nexstar")


def test_a_probe_does_not_switch_motors_on(console: Console) -> None:
    with simulator("mount_pwi4") as address:

        def motors() -> set[str]:
            with urllib.request.urlopen(f"{address}/status") as answer:
                return set(re.findall(r"mount\.axis\d\.is_enabled=(\w+)", answer.read().decode()))

        assert motors() == {"false"}
        code, output, _ = console.run("instruments", "probe", address, "--driver", "mount_pwi4")
        assert (code, output.splitlines()[1].split()[:2]) == (0, ["yes", "mount_pwi4"])
        assert motors() == {"false"}


def test_a_probe_leaves_an_acquisition_running(console: Console) -> None:
    with simulator("tagger_id900") as address:
        stage = zmq.Context.instance().socket(zmq.REQ)
        stage.connect(address.replace("zmq:", "tcp:"))
        with stage:

            def ask(text: str) -> str:
                stage.send(text.encode())
                return stage.recv().decode()

            ask("REC:ENAB ON")
            ask("REC:NUM INF")
            ask("REC:PLAY")
            assert ask("REC:STAG?") == "PLAYING"
            code, output, _ = console.run("instruments", "probe", address, "--driver", "tagger_id900")
            assert (code, output.splitlines()[1].split()[:2]) == (0, ["yes", "tagger_id900"])
            assert ask("REC:STAG?") == "PLAYING"


def test_nobody_at_an_address_is_said_and_exit_code_1(console: Console) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        nobody = f"tcp://127.0.0.1:{server.getsockname()[1]}"
    code, output, errors = console.run("instruments", "probe", nobody, "--timeout", "0.2")
    assert (code, errors) == (1, "")
    assert {line[:3] for line in output.splitlines()[2:]} == {"no "}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("probe", "gopher://x"), 'no driver takes an address like "gopher://x"'),
        (("probe", "tcp://h:1", "--driver", "mount_nextstar"), 'there is no driver "mount_nextstar"; known: '),
        (("probe", "tcp://h:1", "--timeout", "0"), "--timeout is 0"),
        (("probe", "tcp://h:1", "--pause", "-1"), "--pause is -1"),
        (("console", "gopher://x"), "is none of serial://PATH"),
        (("console", "http://x"), "http://HOST:PORT"),
        (("console", "serial:/dev/x", "--baud", "0"), "--baud is 0"),
        (("console", "serial:/dev/x", "--end", "never"), "--end"),
        (("sing",), "--help"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_one_sentence(
    console: Console, words: tuple[str, ...], sentence: str
) -> None:
    code, _, errors = console.run("instruments", *words)
    assert code == 2
    assert sentence in errors
    assert errors.count("\n") == 1


# --- The console -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_list_of_questions_is_asked_one_after_the_other_and_logged(tmp_path: Path) -> None:
    with simulator("detector_spd") as address:
        typed = "*IDN?\nhvolt 200\nhvolt?"
        code, lines, errors = talk(tmp_path, typed, address, "--end", "crlf")
    assert (code, errors) == (0, "")
    assert lines == [
        r"> *IDN?\r\n",
        r"< S-Fifteen Instruments SPD simulated-H\r\n",
        r"> hvolt 200\r\n",
        r"> hvolt?\r\n",
        r"< 200\r\n",
    ]
    (log,) = tmp_path.glob("wire-serial-dev-pts-*.jsonl")
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    assert bytes.fromhex(entries[1]["hex"]) == b"*IDN?\r\n"
    code, again, _ = talk(tmp_path, typed, f"wirelog://{log}", "--end", "crlf")
    assert again == lines


@pytest.mark.slow
def test_hexadecimal_bytes_and_escapes_reach_a_mount(tmp_path: Path) -> None:
    log = tmp_path / "mount.jsonl"
    with simulator("mount_nexstar", "--address", "tcp://127.0.0.1:0") as address:
        words = (address, "--log", str(log))
        assert talk(tmp_path, "4b 78\n56\n", *words, "--hex")[1] == ["> 4b 78", "< 78 23", "> 56", "< 04 29 23"]
        assert talk(tmp_path, "K\\x07\n", *words, "--end", "none")[1] == ["> K\\x07", "< \\x07#"]
        code, lines, errors = talk(tmp_path, "K\\q\n\nKx\n", *words, "--end", "none")
        assert (code, lines) == (0, ["> ", "> Kx", "< x#"])
        assert errors.startswith("K\\q has a backslash that stands for nothing")
    assert log.exists()


def test_a_line_that_is_gone_ends_the_talk_with_one_sentence(tmp_path: Path) -> None:
    with simulator("mount_nexstar", "--address", "tcp://127.0.0.1:0", "--faults", '{"hang_up_after": 1}') as address:
        code, lines, errors = talk(tmp_path, "Kx\nKy\n", address, "--end", "none")
    assert (code, lines[:2]) == (1, ["> Kx", "< x#"])
    assert errors.count("\n") == 1
    assert "is gone" in errors


@pytest.mark.parametrize("ending", ["Ctrl-D", "Ctrl-C"])
def test_at_a_terminal_what_comes_unasked_is_shown_and_ctrl_d_and_ctrl_c_end_in_order(
    tmp_path: Path, ending: str
) -> None:
    instrument, line = pty.openpty()
    tty.setraw(line)
    keyboard, terminal = pty.openpty()
    command = [*PROGRAM, "instruments", "console", f"serial://{os.ttyname(line)}"]
    with subprocess.Popen(
        command, stdin=terminal, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path, text=True
    ) as process:
        assert process.stdout is not None
        assert "Talking to serial:///dev/pts/" in process.stdout.readline()
        os.write(instrument, b"0R0,Ta=23.3C\r\n\xff")
        assert process.stdout.readline() == "< 0R0,Ta=23.3C\\r\\n\n"
        assert process.stdout.readline() == "< \\xff\n"
        os.write(keyboard, b"0R0\n")
        assert process.stdout.readline() == "> 0R0\\n\n"
        assert os.read(instrument, 100) == b"0R0\n"
        if ending == "Ctrl-D":
            os.write(keyboard, b"\x04")
        else:
            process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, output, errors) == (0, "", "")
    for descriptor in (instrument, line, keyboard, terminal):
        os.close(descriptor)


class _Status(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        asked = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f"{self.command} {self.path}\n{asked}".encode())

    do_PUT = do_GET  # noqa: N815  the name that the library calls

    def log_message(self, *_: object) -> None:
        pass


def test_requests_are_made_of_an_instrument_behind_http(tmp_path: Path) -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), _Status) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        address = f"http://127.0.0.1:{server.server_port}"
        typed = "GET /status\nGET /goto alt=4.5 az=1\nPUT /moveaxis Axis=0 Rate=0.5\nDELETE /all\n"
        code, lines, errors = talk(tmp_path, typed, address)
        server.shutdown()
        thread.join()
    assert code == 0
    assert lines[:3] == ["> GET /status", "< 200", "< GET /status\\n"]
    assert "< GET /goto?alt=4.5&az=1\\n" in lines
    assert lines[-2:] == ["< PUT /moveaxis\\n", "< Axis=0&Rate=0.5"]
    assert "begins with GET, PUT or POST" in errors


def test_messages_are_exchanged_over_zeromq(tmp_path: Path) -> None:
    zmq = pytest.importorskip("zmq")
    context = zmq.Context()
    server = context.socket(zmq.REP)
    port = server.bind_to_random_port("tcp://127.0.0.1")

    def serve() -> None:
        for _ in range(2):
            server.send(server.recv().upper())

    thread = threading.Thread(target=serve)
    thread.start()
    code, lines, errors = talk(tmp_path, "*idn?\nstat?\n", f"zmq://127.0.0.1:{port}")
    thread.join()
    server.close(0)
    context.term()
    assert (code, errors) == (0, "")
    assert lines == ["> *idn?", "< *IDN?", "> stat?", "< STAT?"]


def test_what_is_typed_and_what_is_shown() -> None:
    assert bytes_of(r"a\r\n\x00\0\t\\n") == b"a\r\n\0\0\t\\n"
    assert bytes_of("4B78 0a", True) == b"Kx\n"
    assert text_of(b"it's\r\nat \\ 3\xb0\n") == [r"it's\r\n", r"at \\ 3\xb0\n"]
    assert text_of(b"Kx\n", True) == ["4b 78 0a"]
    assert request_of('PUT /a "name=with spaces" b=c=d') == ("PUT", "/a", {"name": "with spaces", "b": "c=d"})
    for wrong in ("", "GET", "GET status", "GET /a b", "'"):
        with pytest.raises(BadInput, match="is no request"):
            request_of(wrong)
    with pytest.raises(BadInput, match="not in hexadecimal"):
        bytes_of("4", True)


# --- The simulated station -------------------------------------------------------------------------------


def test_simulate_says_where_everything_is_and_ends_all_of_it(tmp_path: Path) -> None:
    station = Path(__file__).parents[2] / "config" / "simulated.toml"
    more = '[instruments.detector_a]\ndriver = "detector_spd"\naddress = "serial://any"'
    text = station.read_text(encoding="utf-8").replace(more.replace("//", ""), more)
    entry = (
        '[instruments.supply_bias]\ndriver = "supply_sim928"\naddress = "serial:any"\nsimulate = true\n\n[recording]'
    )
    config = tmp_path / "station.toml"
    config.write_text(text.replace("[recording]", entry), encoding="utf-8")
    command = [*PROGRAM, "simulate", str(config), "--speed", "20"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            lines = list(iter(process.stdout.readline, "Ctrl-C ends them.\n"))
            assert process.poll() is None
            tables = "".join(lines).split("# For a station file")[1]
            found = dict(re.findall(r'\[instruments\.(\w+)\]\ndriver = "\w+"\naddress = "(.*)"', tables))
            assert {"tagger", "mount", "detector_a", "transmitter", "supply_bias"} <= set(found)
            assert "guard_address = " in tables
            for name, address in found.items():
                assert any(line.startswith(name) and address in line for line in lines), name
            code = subprocess.run(
                [*PROGRAM, "instruments", "probe", found["mount"], "--driver", "mount_nexstar"],
                stdout=subprocess.DEVNULL, check=False,
            ).returncode  # fmt: skip
            assert code == 0
            process.send_signal(signal.SIGINT)
            output, errors = process.communicate(timeout=DEADLINE_S)
        finally:
            process.kill()
    assert (process.returncode, output, errors) == (0, "", "")
    wait_until(lambda: not Path(found["mount"].removeprefix("serial:")).exists(), what="the end of the mount")


def test_a_station_without_anything_simulated_is_refused(console: Console, tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "config" / "simulated.toml").read_text(encoding="utf-8")
    config = tmp_path / "station.toml"
    config.write_text(text.replace("simulate = true", "").split("\n[simulation]")[0], encoding="utf-8")
    code, _, errors = console.run("simulate", config)
    assert (code, errors.count("\n")) == (2, 1)
    assert "simulate = true" in errors


@pytest.mark.parametrize("speed", ["0", "-1", "nan", "1000"])
def test_a_speed_at_which_nothing_can_be_simulated_is_refused(console: Console, speed: str) -> None:
    code, _, errors = console.run("simulate", f"--speed={speed}")
    assert code == 2
    assert "--speed is" in errors
