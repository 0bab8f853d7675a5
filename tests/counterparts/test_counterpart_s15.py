"""S15lib, the library of S-Fifteen Instruments, reads our simulated TDC1 and reads and sets our simulated SPD.

What it cannot do: it decodes a TDC1's words only after the stream has ended, and repairs no lost bytes; it follows the
turns of the counter only as far as the dummy words tell them. It sets the SPD without looking whether that was taken,
knows none of its errors, and waits 0.1 s for an answer, which is made longer here for a busy machine. It speaks with a
TDC2 through a vendor's program on the host, never over a wire that we simulate.
"""

import re

import numpy as np
import pytest

pytestmark = [pytest.mark.counterpart("S15lib"), pytest.mark.filterwarnings("ignore::DeprecationWarning")]


def test_it_counts_and_reads_time_stamps_of_the_tdc1(start_serial):
    from S15lib.instruments import TimestampTDC1

    device = TimestampTDC1(start_serial("tagger_tdc1"), integration_time=1)
    try:
        assert device.mode == "singles"
        assert re.match(rb"-0\.5\d* V", device.level)
        counts = device.get_counts(1)
        assert len(counts) == 4
        assert min(counts) > 100
        assert len(device.get_counts_and_coincidences(1)) == 8
        t_ns, patterns = device.get_timestamps(0.9)
    finally:
        device._com.close()
    assert t_ns[-1] - t_ns[0] == pytest.approx(0.9e9, rel=0.1)
    assert np.all(np.diff(t_ns) >= 0)
    beacon = t_ns[np.asarray(patterns) == "0011"]
    assert np.median(np.diff(beacon)) == pytest.approx(100_000, abs=10)


@pytest.fixture
def spd(start_serial, fast_clock):
    """Detector D, in a world ten times faster."""
    from S15lib.instruments.single_photon_detector import SinglePhotonDetector

    device = SinglePhotonDetector(start_serial("detector_spd", "--detector", 2, "--clock", fast_clock(10)))
    device._com.timeout = 5.0
    yield device
    device._com.close()


def test_it_knows_the_spd_and_what_it_understands(spd):
    assert "SPD" in spd.identity()
    assert "counts?" in spd.help()
    assert spd.save_settings() != ""


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hvolt", 181.5),
        ("threshvolt", 0.75),
        ("constp", 2.5),
        ("consti", 0.25),
        ("pvolt", 1.5),
        ("time", 250.0),
        ("delay", 40),
        ("settemperature", -15.0),
        ("loop", 0),
    ],
)
def test_it_sets_the_spd_and_reads_it_back(spd, name, value):
    assert getattr(spd, name) != value
    setattr(spd, name, value)
    assert getattr(spd, name) == value


def test_it_sees_the_spd_count_only_above_breakdown(spd):
    spd.hvolt = 100.0
    assert spd.counts(1.0) == 0
    spd.hvolt = 190.0
    assert spd.counts(10.0) > 20  # dark counts: 25 in a second when cold, more when warm


def test_it_cools_the_spd_and_lets_it_warm_up(spd, eventually):
    eventually(lambda: spd.temperature == pytest.approx(-20.0, abs=0.5))
    spd.temp_stabilization_off()
    assert spd.loop == 0
    eventually(lambda: spd.temperature > 0.0)
    spd.temp_stabilization_on()
    eventually(lambda: spd.temperature < -10.0)
