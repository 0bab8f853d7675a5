"""Every number of the simulated world, with its source. Where a paper prints none, the comment says "free".

Liao 2017 is S.-K. Liao et al., "Satellite-to-ground quantum key distribution", Nature 549, 43 (2017),
arXiv 1707.00542: the pass of Micius over Xinglong on 19 December 2016.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class SourceParameters:
    """The transmitter's decoy-state BB84 source."""

    slot_rate_hz: int = 100_000_000  # Liao 2017
    beacon_rate_hz: int = 10_000  # free: not printed for Micius
    intensity_signal: float = 0.8  # Liao 2017, at the telescope's exit
    intensity_decoy: float = 0.1  # Liao 2017
    intensity_vacuum: float = 0.0  # Liao 2017
    probability_signal: float = 0.5  # Liao 2017
    probability_decoy: float = 0.25  # Liao 2017
    probability_vacuum: float = 0.25  # Liao 2017
    disclosed_signal_fraction: float = 0.1  # free
    pulse_fwhm_ps: float = 200.0  # Liao 2017: 0.2 ns
    #: Delay of each laser: signal H, V, D, A, then decoy H, V, D, A. Zero here; A. V. Miller, arXiv 2505.06532,
    #: found up to 300 ps in Micius.
    laser_delay_ps: tuple[float, float, float, float, float, float, float, float] = (0.0,) * 8
    polarisation_contrast: float = 280.0  # Liao 2017: average 280:1


@dataclass(frozen=True)
class LinkParameters:
    """From the transmitter's exit to the detectors, as a function of range and pointing."""

    #: 1/e^2 half-width of the coupling into the receiver against the mount's pointing error. Free: wide enough
    #: that 20 arcsec cost 0.9 %.
    coupling_half_width_arcsec: float = 300.0
    #: Residual rotation of the polarisation frame. Free, see `DetectorParameters.background_hz`.
    misalignment_deg: float = 4.4
    cloud_transmittance: float = 1.0  # free: 1 = clear sky


@dataclass(frozen=True)
class DetectorParameters:
    """Each of the four single-photon detectors."""

    efficiency: float = 0.5  # Liao 2017
    dark_hz: float = 25.0  # Liao 2017: below 25 Hz
    #: Background light per detector inside the field of view.
    background_hz: float = 50.0
    field_of_view_arcsec: float = 120.0  # free; `background_hz` holds for this field of view
    jitter_fwhm_ps: float = 350.0  # Liao 2017
    dead_time_ns: float = 50.0  # free: typical of silicon avalanche diodes
    afterpulse_probability: float = 0.005  # free: typical of silicon avalanche diodes
    afterpulse_time_ns: float = 100.0  # free


@dataclass(frozen=True)
class BeaconParameters:
    """The synchronisation pulses as the photodiode and its discriminator deliver them."""

    jitter_rms_ps: float = 500.0  # free; 467 to 497 ps were achieved end to end (A. V. Miller 2023)
    dropout_probability: float = 0.01  # free: single pulses lost
    fade_rate_hz: float = 0.05  # free: longer losses
    fade_duration_s: float = 0.03  # free
    spurious_hz: float = 20.0  # free


@dataclass(frozen=True)
class ClockParameters:
    """The clocks of the two ends against UTC."""

    tagger_frequency_offset: float = 2e-10  # free: a GPS-disciplined oscillator
    tagger_start_s: float = 4321.0  # free: the tagger's own time when the world begins
    satellite_offset_s: float = 3e-7  # free: GPS time on board
    satellite_frequency_offset: float = 2e-8  # free: an ovenised quartz
    satellite_frequency_drift_per_s: float = 2e-11  # free
    pps_jitter_rms_ns: float = 15.0  # free: a GPS receiver's 1PPS
    orbit_time_error_s: float = 0.0  # free: the satellite is early on its orbit by this much


@dataclass(frozen=True)
class MountParameters:
    """A two-axis servo mount of the NexStar class."""

    park_azimuth_deg: float = 0.0
    park_elevation_deg: float = 0.0
    max_rate_deg_s: float = 4.5  # Celestron NexStar 130SLT, driver defaults in seeing-things/track
    max_acceleration_deg_s2: float = 10.0  # same
    rate_quantum_arcsec_s: float = 0.25  # NexStar rate command
    command_latency_s: float = 0.03  # free: world time from the last byte of a command to its effect
    line_baud: float = 9600.0  # NexStar protocol; ten bits to a byte, world time
    encoder_noise_rms_arcsec: float = 0.3  # free
    firmware_major: int = 4
    firmware_minor: int = 41


@dataclass(frozen=True)
class SpdParameters:
    """The electronics of an S-Fifteen single-photon detector module."""

    operating_bias_v: float = 190.0  # free: where the efficiency is the one of `DetectorParameters`
    breakdown_v: float = 170.0  # free
    set_temperature_c: float = -20.0  # free
    ambient_c: float = 20.0  # free
    settling_time_s: float = 5.0  # free: time constant of the cooler
    threshold_v: float = 0.5  # free


@dataclass(frozen=True)
class WorldParameters:
    """The whole simulated world; everything random in it derives from `seed`."""

    seed: int = 20161219
    source: SourceParameters = field(default_factory=SourceParameters)
    link: LinkParameters = field(default_factory=LinkParameters)
    detectors: DetectorParameters = field(default_factory=DetectorParameters)
    beacon: BeaconParameters = field(default_factory=BeaconParameters)
    clocks: ClockParameters = field(default_factory=ClockParameters)
    mount: MountParameters = field(default_factory=MountParameters)
    spd: SpdParameters = field(default_factory=SpdParameters)
