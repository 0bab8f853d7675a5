"""S15lib, the vendor's own client, on our simulators of the TDC1 and of the single-photon detector.

What it cannot do: it neither repairs slips nor follows the counter over a silence, and of the detector it never checks
what it has set.
"""

import re

import numpy as np
import pytest

instruments = pytest.importorskip("S15lib.instruments", reason="s15lib is not installed: pip install '.[counterpart]'")
detectors = pytest.importorskip("S15lib.instruments.single_photon_detector")
pytestmark = [pytest.mark.counterpart, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


def test_the_vendors_library_counts_and_reads_time_stamps_of_our_tdc1(start):
    device = instruments.TimestampTDC1(start("tagger_tdc1", "--pty").removeprefix("serial:"), integration_time=1)
    assert device.mode == "singles"
    assert re.match(rb"-0\.5\d* V", device.level)
    assert [min(device.get_counts(1)) > 100, len(device.get_counts(1))] == [True, 4]
    assert len(device.get_counts_and_coincidences(1)) == 8
    t_ns, patterns = device.get_timestamps(0.9)
    assert t_ns[-1] - t_ns[0] == pytest.approx(0.9e9, rel=0.1)
    assert np.all(np.diff(t_ns) >= 0)
    beacon = t_ns[np.asarray(patterns) == "0011"]
    assert np.median(np.diff(beacon)) == pytest.approx(100_000, abs=10)
    device._com.close()


def test_the_vendors_library_sets_and_reads_our_detector(start):
    device = detectors.SinglePhotonDetector(start("detector_spd", "--pty").removeprefix("serial:"))
    assert "SPD" in device.identity()
    device.hvolt, device.threshvolt, device.settemperature = 60.0, 0.25, -15.0
    assert (device.hvolt, device.threshvolt, device.settemperature) == (60.0, 0.25, -15.0)
    device.temp_stabilization_on()
    assert device.loop == 1
    assert -60.0 < device.temperature < 40.0
    assert device.counts(0.2) >= 0
    assert device.time == 200.0
    assert "hvolt" in device.help()
    device._com.close()
