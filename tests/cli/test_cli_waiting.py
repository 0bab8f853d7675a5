"""A real station waits for its pass without touching anything."""

import re
import signal
import subprocess
import sys
from pathlib import Path

SIMULATED = Path(__file__).parents[2] / "config" / "simulated.toml"
HARDWARE = 'address = "serial:/dev/absent"\nguard_address = "serial:/dev/gone"'


def test_a_real_station_says_when_it_will_connect_and_records_nothing_before(tmp_path):
    text = SIMULATED.read_text().split("\n[simulation]\n")[0]
    text = text.replace("simulate = true", "simulate = false")
    text = text.replace('search_from = "2016-12-19T16:00:00Z"', 'search_from = "now"')
    text = text.replace("search_hours = 2.0", "search_hours = 96.0")
    text = re.sub('address = "serial:any".*', HARDWARE, text)
    station = tmp_path / "station.toml"
    station.write_text(text)
    command = [
        sys.executable,
        "-m",
        "groundstation.cli",
        "run",
        "--config",
        str(station),
        "--output",
        str(tmp_path / "o"),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "instruments are connected at" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        try:
            _, complaint = process.communicate(timeout=20)
        finally:
            process.kill()
    assert process.returncode == 1
    assert complaint == "groundstation: stopped\n"
    assert not (tmp_path / "o" / "recording").exists()
