"""A synthetic pass that looks like the published one: a straight flight over a falling horizon."""

from dataclasses import replace

import numpy as np

from groundstation.clock import NS_PER_S, parse_utc
from groundstation.pipeline.result import PHASE_BINS, GapRecord, PassResult, SimulationTruth

CLOSEST_NS = parse_utc("2016-12-19T16:52:13.800Z")
HALF_WINDOW_NS = round(136.25 * NS_PER_S)


def path_at(time_s):
    """Azimuth and elevation in degrees and range in km at seconds from the closest approach."""
    azimuth, elevation = np.radians(285.7), np.radians(47.83)
    start = 645.37 * np.array(
        [np.sin(azimuth) * np.cos(elevation), np.cos(azimuth) * np.cos(elevation), np.sin(elevation)]
    )
    heading = np.radians(195.7)
    along = 7.55 * np.asarray(time_s, dtype=float)
    east = start[0] + along * np.sin(heading)
    north = start[1] + along * np.cos(heading)
    up = start[2] - along**2 / (2 * 6870.0)
    distance = np.sqrt(east**2 + north**2 + up**2)
    return np.degrees(np.arctan2(east, north)) % 360, np.degrees(np.arcsin(up / distance)), distance


def plausible_result(seed=1, **changes):
    """A full, complete, simulated pass; `changes` replace fields."""
    random = np.random.default_rng(seed)
    seconds = 273
    start_ns, stop_ns = CLOSEST_NS - HALF_WINDOW_NS, CLOSEST_NS + HALF_WINDOW_NS
    middle = np.arange(seconds) + 0.5 - 136.25
    _, _, range_km = path_at(middle)
    length = np.clip(272.5 - np.arange(seconds), 0, 1)
    signal = random.poisson(12_400 * (645 / range_km) ** 3.7 * length)
    disclosed = random.binomial(signal, 0.1)
    errors = random.binomial(disclosed, 0.009 + 12 / np.maximum(signal, 1))
    gated = random.poisson(signal * 2.1)
    background = random.poisson(75 * length[:, None] * np.ones(4)) + random.poisson(gated[:, None] * 0.262 * np.ones(4))
    tags = np.column_stack((background, random.poisson(9_900 * length), (length > 0.2).astype(np.int64))).astype(
        np.int64
    )
    path_s = np.arange(-209.0, 207.5, 1.0)
    azimuth, elevation, distance = path_at(path_s)
    mount_s = np.arange(-150.0, 140.0, 0.2)
    mount_azimuth, mount_elevation, _ = path_at(np.maximum(mount_s, -140.0))
    lag = 900 * np.exp(-np.maximum(mount_s + 137.5, 0) / 0.8) * (mount_s < -130)
    pointing = np.abs(random.normal(0, 1.9, mount_s.size)) + lag
    rectilinear = random.binomial(disclosed.sum(), 0.5)
    signal_disclosed = np.array([rectilinear, disclosed.sum() - rectilinear])
    signal_rest = signal.sum() - disclosed.sum()
    sifted = np.zeros((3, 2, 2), np.int64)
    sifted[0] = np.column_stack(((signal_rest // 2, signal_rest - signal_rest // 2), signal_disclosed))
    sifted[1, :, 1] = (52_100, 51_987)
    sifted[2, :, 1] = (640, 655)
    tally = np.zeros((3, 2), np.int64)
    tally[0] = (errors.sum() // 2, errors.sum() - errors.sum() // 2)
    tally[1:] = ((980, 1010), (317, 330))
    centre_ns = (np.arange(PHASE_BINS) + 0.5) / PHASE_BINS * 10 - 5
    shape = np.exp(-0.5 * (centre_ns / 0.54) ** 2)
    phase = random.poisson(gated.sum() / 4 * shape / shape.sum() + 200 + np.zeros((4, 1)))
    result = PassResult(
        mode="simulation", complete=True, remarks=(), station="Xinglong", satellite="Micius",
        window_start_utc_ns=start_ns, window_stop_utc_ns=stop_ns,
        slot_period_ps=10_000, gate_half_width_ps=1_000,
        detections=int(tags[:, :4].sum()), gated=int(gated.sum()), double_clicks=213, unanswered=0,
        sifted=sifted, errors=tally,
        answered=np.array([2 * signal.sum(), 208_000, 2_600]),
        tags_per_second=tags, gated_per_second=gated, signal_per_second=signal,
        disclosed_per_second=disclosed, errors_per_second=errors,
        unused_s_per_second=np.zeros(seconds), range_km_per_second=range_km,
        phase_histogram=phase,
        path_utc_ns=CLOSEST_NS + (path_s * NS_PER_S).astype(np.int64),
        path_azimuth_deg=azimuth, path_elevation_deg=elevation, path_range_km=distance,
        mount_utc_ns=CLOSEST_NS + (mount_s * NS_PER_S).astype(np.int64),
        mount_azimuth_deg=mount_azimuth, mount_elevation_deg=mount_elevation, pointing_error_arcsec=pointing,
        beacon_residual_rms_ps=507.3, beacon_pulses_used=2_688_931, beacon_pulses_rejected=5_912,
        unsynchronised_s=0.0, excluded_s=0.0,
        ledger_seen=9_000_000, ledger_recorded=9_000_000, ledger_dropped={}, ledger_missed=0, gaps=(),
        simulation=SimulationTruth(
            photon_clicks_gated=3_400_000, slots_assigned_wrongly=11,
            signal_sifted=int(signal.sum()), signal_errors=int(signal.sum() * 0.0109),
            pointing_utc_ns=CLOSEST_NS + (mount_s * NS_PER_S).astype(np.int64),
            pointing_error_arcsec=pointing * 1.1,
        ),
        provenance={"software": "groundstation 0.1.0", "command": "run --speed 20", "host": "xinglong"},
    )  # fmt: skip
    return replace(result, **changes)


def broken_result():
    """The same pass with a dead link in the middle: gaps, drops, excluded time, remarks."""
    whole = plausible_result()
    dead = slice(150, 175)
    cut = {}
    for name in ("tags_per_second", "gated_per_second", "signal_per_second", "disclosed_per_second",
                 "errors_per_second"):  # fmt: skip
        values = getattr(whole, name).copy()
        values[dead] = 0
        values[201] = np.round(values[201] * 0.6).astype(np.int64)
        cut[name] = values
    unused_s = whole.unused_s_per_second.copy()
    unused_s[dead], unused_s[201] = 1.0, 0.4
    return replace(
        whole,
        complete=False,
        remarks=(
            "The link to the time tagger was lost for 25.0 s; nothing is known of what it missed.",
            "0.4 s of the window are excluded because 812 tags in it are unaccounted for.",
        ),
        excluded_s=25.4,
        unsynchronised_s=1.2,
        ledger_recorded=8_999_188,
        ledger_dropped={"queue full": 800, "bad word": 12},
        ledger_missed=None,
        gaps=(
            GapRecord(150_000_000_000_000, 175_000_000_000_000, None, "link lost"),
            GapRecord(201_300_000_000_000, 201_700_000_000_000, 812, "overflow <of> the buffer"),
        ),
        unused_s_per_second=unused_s,
        **cut,
    )


def empty_result():
    """A pass of which nothing came: no clicks, no readings, no path, no truth."""
    nothing_s, nothing = np.zeros(0, np.int64), np.zeros(0)
    return plausible_result(
        mode="live", complete=False, remarks=("Nothing was recorded.",), simulation=None, provenance={},
        detections=0, gated=0, double_clicks=0,
        sifted=np.zeros((3, 2, 2), np.int64), errors=np.zeros((3, 2), np.int64),
        answered=np.zeros(3, np.int64),
        tags_per_second=np.zeros((0, 6), np.int64), gated_per_second=nothing_s, signal_per_second=nothing_s,
        disclosed_per_second=nothing_s, errors_per_second=nothing_s,
        unused_s_per_second=nothing, range_km_per_second=nothing,
        phase_histogram=np.zeros((4, PHASE_BINS), np.int64),
        path_utc_ns=nothing_s, path_azimuth_deg=nothing, path_elevation_deg=nothing, path_range_km=nothing,
        mount_utc_ns=nothing_s, mount_azimuth_deg=nothing, mount_elevation_deg=nothing,
        pointing_error_arcsec=nothing, beacon_residual_rms_ps=float("nan"),
        beacon_pulses_used=0, beacon_pulses_rejected=0, unsynchronised_s=272.5, excluded_s=272.5,
        ledger_seen=0, ledger_recorded=0, ledger_missed=None,
    )  # fmt: skip
