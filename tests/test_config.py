"""The station file: the shipped one loads, and whatever is wrong with one is said in one sentence with its line."""

import contextlib
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundstation.config import INSTRUMENTS, capability_of, load_config
from groundstation.core.tags import CHANNELS
from groundstation.errors import BadInput

SHIPPED = Path(__file__).parents[1] / "config" / "simulated.toml"
TEXT = SHIPPED.read_text()


@pytest.fixture
def load(tmp_path):
    """Load the shipped file with some of its text replaced."""

    def load_changed(*changes, text=TEXT):
        for old, new in changes:
            assert text.count(old) >= 1, old
            text = text.replace(old, new, 1)
        path = tmp_path / "station.toml"
        path.write_text(text)
        return load_config(path)

    return load_changed


def line_of(fragment, text=TEXT):
    return next(number for number, line in enumerate(text.splitlines(), 1) if fragment in line)


def test_the_shipped_file_is_the_published_pass():
    config = load_config(SHIPPED)
    assert config.simulated
    assert config.station.name == "Xinglong"
    assert config.elements().line1.startswith("1 41731U 16051A")
    assert set(config.instruments) == set(INSTRUMENTS)
    assert all(entry.simulate for entry in config.instruments.values())
    assert config.simulation.seed == 20161219


def test_the_wiring_becomes_sets_of_inputs():
    config = load_config(SHIPPED)
    assert config.patterns() == {"H": 1, "V": 2, "D": 4, "A": 8, "sync": 0b0011, "pps": 0b1100}
    assert config.delays_ps() == dict.fromkeys(CHANNELS, 0)


def test_a_delay_of_a_channel_is_kept(load):
    assert load(("V = { inputs = [2] }", "V = { inputs = [2], delay_ps = -250 }")).delays_ps()["V"] == -250


def test_every_optional_table_may_be_left_out(load):
    kept = re.sub(r"(?ms)^\[(window|recording|operation|analysis)\].*?(?=^\[|^#|\Z)", "", TEXT)
    config, whole = load(text=kept), load_config(SHIPPED)
    assert config.operation == whole.operation
    assert config.recording == whole.recording
    assert config.analysis == whole.analysis
    assert config.window.search_from == "now"


@pytest.mark.parametrize(
    ("old", "new", "key", "nearest"),
    [
        ("latitude_deg", "lattitude_deg", "lattitude_deg", "latitude_deg"),
        ("commit_interval_s", "comit_interval_s", "comit_interval_s", "commit_interval_s"),
        ("gate_half_width_ps = 1000 ", "gate_half_width_ns = 1 ", "gate_half_width_ns", "gate_half_width_ps"),
        ("tracking_period_s", "tracking_priod_s", "tracking_priod_s", "tracking_period_s"),
        ("as_of", "asof", "asof", "as_of"),
        ("seed = 20161219", "sead = 1", "sead", "seed"),
        ("[window]", "[windw]", "windw", "window"),
        ("A = { inputs = [4] }", "A = { input = [4] }", "input", "inputs"),
        ('driver = "detector_spd"', 'drivr = "detector_spd"', "drivr", "driver"),
    ],
)
def test_an_unknown_key_is_named_with_its_line_and_the_nearest_valid_one(load, old, new, key, nearest):
    line = line_of(old)
    with pytest.raises(BadInput, match=f'station.toml, line {line}: .*has no key "{key}".*"{nearest}"'):
        load((old, new))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "latitude_deg = 40.39587",
            'latitude_deg = "north"',
            r"\[station.latitude_deg\] is 'north'; it must be a number",
        ),
        ("simulate = true", "simulate = 1", "must be true or false"),
        ("beacon_pulses_per_fit = 1000", "beacon_pulses_per_fit = 1000.5", "must be a whole number"),
        ('name = "Xinglong"', "name = 7", "must be a text"),
        ("H = { inputs = [1] }", "H = { inputs = 1 }", "must be a list"),
        ("H = { inputs = [1] }", "H = 1", "must be a table"),
        ("H = { inputs = [1] }", 'H = { inputs = ["1"] }', "must be a whole number"),
        ("H = { inputs = [1] }", "H = { inputs = [true] }", "must be a whole number"),
        ("seed = 20161219", "seed = 20161219\nlink = 5", "must be a table"),
        ("altitude_m = 890.0", f"altitude_m = 1{'0' * 400}", "must be a number"),
    ],
)
def test_a_wrong_type_is_named_with_its_line_and_what_it_must_be(load, old, new, said):
    with pytest.raises(BadInput, match=rf"station.toml, line \d+: .*{said}"):
        load((old, new))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("latitude_deg = 40.39587", "latitude_deg = 140", "latitude_deg is 140.0; it must be from -90 to 90"),
        ("latitude_deg = 40.39587", "latitude_deg = nan", "latitude_deg is nan; it must be from -90 to 90"),
        ("commit_interval_s = 0.1", "commit_interval_s = -1", "it must be from 0.001 to 60"),
        ("tracking_period_s = 0.1", "tracking_period_s = 0", "it must be from 0.01 to 10"),
        ("guard_timeout_s = 2.0", "guard_timeout_s = 0", "guard_timeout_s is 0.0"),
        ("gate_half_width_ps = 1000 ", "gate_half_width_ps = 0 ", "gate_half_width_ps is 0;"),
        ("beacon_pulses_per_fit = 1000", "beacon_pulses_per_fit = 0", "beacon_pulses_per_fit is 0;"),
        ("max_range_km = 1200.0", "max_range_km = -1.0", "max_range_km is -1.0;"),
        ("seed = 20161219", "seed = -1", "seed is -1;"),
    ],
)
def test_a_number_that_cannot_work_is_named_with_its_line_and_the_limits(load, old, new, said):
    with pytest.raises(BadInput, match=re.escape(f"station.toml, line {line_of(old)}: ") + ".*" + re.escape(said)):
        load((old, new))


def test_a_missing_key_is_named_with_the_line_of_its_table(load):
    with pytest.raises(
        BadInput, match=rf'line {line_of("[station]")}: \[station\] lacks the key "longitude_deg"; add it'
    ):
        load(("longitude_deg = 117.57746\n", ""))


def test_a_missing_table_is_named(load):
    with pytest.raises(BadInput, match=r'station.toml: the file lacks the key "satellite"'):
        load(text=re.sub(r"(?ms)^\[satellite\].*?(?=^\[)", "", TEXT))


@pytest.mark.parametrize("name", INSTRUMENTS)
def test_every_instrument_has_to_be_there(load, name):
    text = re.sub(rf"(?ms)^\[instruments\.{name}\].*?(?=^\[)", "", TEXT)
    with pytest.raises(BadInput, match=rf"\[instruments.{name}\] is missing; add it"):
        load(text=text)


def test_an_unknown_instrument_is_named_with_its_line(load):
    with pytest.raises(
        BadInput, match=rf'line {line_of("[instruments.mount]")}: there is no instrument "camera"; known: tagger, '
    ):
        load(("[instruments.mount]", "[instruments.camera]"))


@pytest.mark.parametrize("name", ["tagger_2", "time_base", "weather", "rotator", "dome", "supply", "nanowires"])
@pytest.mark.parametrize("suffix", ["", "_roof"])
def test_more_instruments_may_be_there(load, name, suffix):
    entry = f'[instruments.{name}{suffix}]\ndriver = "x"\naddress = "tcp://127.0.0.1:0"\n\n[recording]'
    config = load(("[recording]", entry))
    assert f"{name}{suffix}" in config.instruments
    assert capability_of(name + suffix) == name.removesuffix("_2")


@pytest.mark.parametrize("name", ["tagger_3", "mount_2", "detector_x", "weatherstation", "tagger_"])
def test_what_is_spelt_like_none_of_them_is_refused(load, name):
    with pytest.raises(BadInput, match=f'there is no instrument "{name}"; known: .*weather_roof'):
        load(("[recording]", f'[instruments.{name}]\ndriver = "x"\naddress = "serial:any"\n\n[recording]'))


def test_channels_that_are_wired_alike_are_refused(load):
    with pytest.raises(BadInput, match=rf"line {line_of('[channels]')}: two \[channels\] have the same inputs"):
        load(("V = { inputs = [2] }", "V = { inputs = [1] }"))
    with pytest.raises(BadInput, match=r"two \[channels\] have the same inputs"):
        load(("pps = { inputs = [3, 4] }", "pps = { inputs = [2, 1] }"))


def test_an_input_that_is_named_twice_is_one_input(load):
    assert load(("H = { inputs = [1] }", "H = { inputs = [1, 1] }")).patterns()["H"] == 0b0001


@pytest.mark.parametrize("inputs", ["[]", "[0]", "[9]", "[1, 12]", "[-1]"])
def test_inputs_that_no_tagger_has_are_refused(load, inputs):
    with pytest.raises(BadInput, match=rf"line {line_of('D = {')}: \[channels.D\] inputs must be numbers from 1 to 8"):
        load(("D = { inputs = [3] }", f"D = {{ inputs = {inputs} }}"))


@pytest.mark.parametrize("change", [("A = { inputs = [4] }\n", ""), ("A = {", "B = {")])
def test_the_channels_are_exactly_six(load, change):
    with pytest.raises(BadInput, match=r"\[channels\] must name exactly H, V, D, A, sync, pps"):
        load(change)


def test_a_simulated_instrument_needs_a_world(load):
    with pytest.raises(BadInput, match=r"there is no table \[simulation\]"):
        load(("[simulation]\nseed = 20161219", ""))


def test_a_station_in_which_nothing_is_simulated_needs_none(load):
    config = load(text=TEXT.replace("simulate = true", "").replace("[simulation]\nseed = 20161219", ""))
    assert not config.simulated
    assert config.simulation is None


def test_a_file_that_is_not_there_is_said_to_be(tmp_path):
    with pytest.raises(BadInput, match=r"station file .*nowhere.toml cannot be read: No such file or directory"):
        load_config(tmp_path / "nowhere.toml")


def test_a_directory_or_a_picture_is_no_station_file(tmp_path):
    with pytest.raises(BadInput, match="cannot be read: Is a directory"):
        load_config(tmp_path)
    (tmp_path / "picture.toml").write_bytes(b"\xff\xd8\xff\xe0\x00\x10JFIF")
    with pytest.raises(BadInput, match="cannot be read: it is not a text file"):
        load_config(tmp_path / "picture.toml")


@pytest.mark.parametrize(
    "text", ["station = ", "[station\nname = 1", 'name = "a" "b"', "a = 1\na = 2", "x = " + "[" * 5_000]
)
def test_what_is_no_toml_is_refused_with_the_reason(load, text):
    with pytest.raises(BadInput, match="is not valid TOML: "):
        load(text=text)


def test_a_satellite_needs_its_two_lines(load):
    with pytest.raises(BadInput, match='needs either "tle" with the two lines or "tle_file"'):
        load(text=re.sub(r"(?ms)^tle = \[.*?\]\n", "", TEXT)).elements()


def test_elements_may_stand_in_a_file_of_their_own(load, tmp_path):
    lines = load_config(SHIPPED).satellite.tle
    (tmp_path / "micius.tle").write_text("MICIUS\n" + "\n".join(lines) + "\n")
    text = re.sub(r"(?ms)^tle = \[.*?\]\n", f'tle_file = "{tmp_path}/micius.tle"\n', TEXT)
    assert load(text=text).elements().line2 == lines[1]


@settings(max_examples=150, deadline=None)
@given(start=st.integers(0, len(TEXT)), length=st.integers(0, 60), new=st.text(max_size=12))
def test_whatever_is_scribbled_into_the_file_the_answer_is_a_station_or_a_sentence(
    tmp_path_factory, start, length, new
):
    path = tmp_path_factory.getbasetemp() / "scribbled.toml"
    path.write_text(TEXT[:start] + new + TEXT[start + length :], encoding="utf-8", errors="replace")
    with contextlib.suppress(BadInput):
        config = load_config(path)
        config.elements()
        assert len(set(config.patterns().values())) == len(CHANNELS)
