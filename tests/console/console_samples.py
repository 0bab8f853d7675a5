"""A snapshot from the middle of the published pass, and a strategy for any snapshot at all."""

from hypothesis import strategies as st

from groundstation.clock import parse_utc
from groundstation.console.status import PassStatus

MID_PASS = PassStatus(
    mode="SIMULATION", state="tracking", station="Xinglong", satellite="Micius", speed=5.0,
    utc_ns=parse_utc("2016-12-19T16:51:03.400Z"),
    start_utc_ns=parse_utc("2016-12-19T16:49:57.550Z"),
    stop_utc_ns=parse_utc("2016-12-19T16:54:30.050Z"),
    culmination_utc_ns=parse_utc("2016-12-19T16:52:13.500Z"),
    azimuth_deg=342.417, elevation_deg=31.052, range_km=893.1, pointing_error_arcsec=2.43, mount_age_s=0.2,
    counts_hz={"H": 3120.0, "V": 3098.2, "D": 3140.0, "A": 3075.9, "sync": 9902.0, "pps": 1.0},
    detector_age_s=0.4,
    gated_hz=11_580.0, sifted_hz=5_530.0, sifted_bits=172_345, qber=0.0109, qber_standard_error=0.0008,
    analysis_lag_s=0.3, analysis_age_s=0.5,
    recorded_tags=1_456_021, dropped=0, disk_free_gb=412.55, disk_minutes_left=48_000.0,
    last_event="tracking: error below 5 arcsec",
)  # fmt: skip

times = st.none() | st.integers(0, 4 * 10**18)
statuses = st.builds(
    PassStatus,
    mode=st.sampled_from([None, "SIMULATION", "LIVE", "REPLAY"]),
    state=st.none() | st.text(max_size=40), station=st.none() | st.text(max_size=60),
    satellite=st.none() | st.text(max_size=60), speed=st.none() | st.floats(0, 1e6),
    utc_ns=times, start_utc_ns=times, stop_utc_ns=times, culmination_utc_ns=times,
    azimuth_deg=st.none() | st.floats(), pointing_error_arcsec=st.none() | st.floats(),
    mount_age_s=st.none() | st.floats(0, 1e9),
    counts_hz=st.dictionaries(st.sampled_from(["H", "V", "D", "A", "sync", "pps"]), st.floats(0, 1e12)),
    gated_hz=st.none() | st.floats(0, 1e12), sifted_bits=st.none() | st.integers(0, 10**15),
    qber=st.none() | st.floats(0, 1), qber_standard_error=st.none() | st.floats(0, 1),
    dropped=st.none() | st.integers(0, 10**12), alarms=st.lists(st.text(max_size=200), max_size=5).map(tuple),
    last_event=st.none() | st.text(max_size=200),
)  # fmt: skip
