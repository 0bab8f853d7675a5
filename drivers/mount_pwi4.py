"""PlaneWave mounts, through PlaneWave's own program PWI4 (HTTP, port 8220).

Every command is a GET and answers with the whole status, a line `key=value` each; keys come and go with the version,
so what is missing is unknown and never zero. The mount follows a path of our points, or an element set, by its own
clock; its offsets are live. Sources: PlaneWave's `pwi4_client.py`; INDI `planewave_mount.cpp`; `pwi` 0.14.0.
"""

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from drivers.mounts import reading_between, require_direction, try_all
from drivers.pwi4 import Status, flag, number, parse_position, parse_reply, parse_timestamp, path_points
from drivers.settings import LinkSettings, closed_on_error, parse_settings
from drivers.transport import HttpLink, open_http
from groundstation.clock import NS_PER_S, Clock, monotonic_s, utc_text
from groundstation.errors import BadInput, InstrumentFault, TransportLost, TransportTimeout, WireError, WrongInstrument
from groundstation.instruments import (
    DriverDescription,
    Identity,
    MountCapabilities,
    MountReading,
    Settings,
    TrajectoryMount,
)

DRIVER = DriverDescription(
    instrument="PlaneWave mounts (L series and others) through PWI4",
    capability="mount",
    schemes=("http",),
    documentation="PlaneWave's pwi4_client.py and two other clients; complete for slews, paths, element sets and "
    "offsets (offsets need PWI4 4.0.11). Not documented: free rates of a mount at rest, so it follows paths only; how "
    "PWI4 interpolates between the points of a path, and across azimuth 0",
    tested_with="pwi 0.14.0 (client of the simulator)",
)

_READY_S = 10.0  # world time for the program to reach its mount and switch its motors on: free
_SET_S = 2.0  # world time until an offset shows in the status: free
_POLL_S = 0.1
_OFFSET_TOLERANCE_ARCSEC = 0.1
_LIMIT_ARCSEC = 7200.0  # free: a larger correction means that something else is wrong


@dataclass(frozen=True)
class Pwi4Settings(LinkSettings):
    """Settings of the station file; what PWI4 does not tell of its mount stands here.

    `clock_uncertainty_s`: how well the clock of PWI4's computer is known. `max_clock_difference_s`: a reading whose
    time is farther from ours is refused.
    """

    max_rate_deg_s: float = 20.0
    max_acceleration_deg_s2: float = 10.0
    command_latency_s: float = 0.1
    clock_uncertainty_s: float = 0.005
    max_clock_difference_s: float = 1.0


@dataclass(frozen=True)
class _Path:
    """What was loaded: our points, or an element set."""

    utc_ns: NDArray[np.int64]
    azimuth_deg: NDArray[np.float64]
    elevation_deg: NDArray[np.float64]

    def direction(self, utc_ns: int) -> NDArray[np.float64]:
        """Unit vector (3,) of where the path is."""
        azimuth, elevation = (
            math.radians(float(np.interp(utc_ns, self.utc_ns, angles)))
            for angles in (self.azimuth_deg, self.elevation_deg)
        )
        level = math.cos(elevation)
        return np.array([level * math.sin(azimuth), level * math.cos(azimuth), math.sin(elevation)])

    def along_arcsec(self, utc_ns: int, offset_s: float) -> float:
        """How far along the track the path is `offset_s` later."""
        later = utc_ns + round(offset_s * NS_PER_S)
        chord = float(np.linalg.norm(self.direction(later) - self.direction(utc_ns)))
        return math.copysign(math.degrees(2.0 * math.asin(min(1.0, chord / 2.0))) * 3600.0, offset_s)


@dataclass(frozen=True)
class _Elements:
    name: str
    line1: str
    line2: str


class Pwi4Mount:
    """A PlaneWave mount: a `TrajectoryMount`. All calls may raise TransportTimeout, TransportLost, WireError and
    InstrumentFault. Questions are asked once more when they failed on the way, commands are not."""

    def __init__(self, http: HttpLink, clock: Clock, settings: Pwi4Settings) -> None:
        self._http, self._clock, self._settings = http, clock, settings
        self._loaded: _Path | _Elements | None = None
        self._has_offsets = False  # of ours
        self._capabilities = MountCapabilities(
            settings.max_rate_deg_s,
            settings.max_acceleration_deg_s2,
            rate_quantum_arcsec_s=0.001,
            command_latency_s=settings.command_latency_s,
            follows="trajectory",
        )

    @property
    def capabilities(self) -> MountCapabilities:
        return self._capabilities

    def identify(self) -> Identity:
        """The program and its version. Raises WrongInstrument for anything but PWI4."""
        try:
            status = self._ask()
        except (WireError, InstrumentFault) as error:
            raise WrongInstrument(f"{self._http.address} does not answer as PWI4: {error}") from error
        if "pwi4.version" not in status and "mount.is_connected" not in status:
            raise WrongInstrument(f"{self._http.address} answers without pwi4.version; check the address")
        return Identity("PlaneWave PWI4", status.get("pwi4.version", ""))

    def get_ready(self) -> None:
        """Have PWI4 connect to its mount and switch both motors on. InstrumentFault when it does not."""
        self._command("/mount/connect")
        self._wait_for(lambda s: flag(s, "mount.is_connected") is not False, "does not reach its mount", _READY_S)
        for axis in ("0", "1"):
            self._command("/mount/enable", axis=axis)
            key = f"mount.axis{axis}.is_enabled"
            self._wait_for(lambda s, key=key: flag(s, key) is not False, f"cannot enable axis {axis}", _READY_S)  # type: ignore[misc]

    def read_position(self) -> MountReading:
        """Where the mount points, and when: its own `mount.timestamp_utc` where it gives one, else the middle of the
        exchange. Raises InstrumentFault when PWI4 has lost its mount or its clock is far from ours."""
        sent_ns: list[int] = []
        status = self._ask(before=lambda: sent_ns.append(self._clock.utc_ns()))
        received_ns = self._clock.utc_ns()
        if flag(status, "mount.is_connected") is False:
            raise InstrumentFault(f"PWI4 at {self._http.address} is not connected to its mount; connect again")
        azimuth_deg, altitude_deg = parse_position(status)
        text = status.get("mount.timestamp_utc")
        if not text:
            return reading_between(azimuth_deg, altitude_deg, sent_ns[-1], received_ns)
        read_ns, digit_ns = parse_timestamp(text)
        most_ns = self._settings.max_clock_difference_s * NS_PER_S
        if not sent_ns[-1] - most_ns <= read_ns <= received_ns + most_ns:
            raise InstrumentFault(
                f"PWI4 at {self._http.address} read its mount at {utc_text(read_ns)}, our clock says "
                f"{utc_text(received_ns)}; set the clock of its computer"
            )
        return MountReading(
            azimuth_deg, altitude_deg, read_ns, digit_ns / 2 / NS_PER_S + self._settings.clock_uncertainty_s
        )

    def set_rates(self, azimuth_arcsec_s: float, elevation_arcsec_s: float) -> None:
        """Always InstrumentFault: PWI4 documents rates of offsets to a target only, none of a mount at rest."""
        raise InstrumentFault("PWI4 has no free rates; give the mount a path (load_trajectory)")

    def go_to(self, azimuth_deg: float, elevation_deg: float) -> None:
        """Start a slew; our offsets are taken away first. BadInput beyond -90..90 deg elevation."""
        require_direction(azimuth_deg, elevation_deg)
        if self._has_offsets:
            self._clear_offsets()
        azimuth = f"{azimuth_deg % 360.0:.7f}"
        self._command("/mount/goto_alt_az", alt_degs=f"{elevation_deg:.7f}", az_degs=azimuth)

    def is_slewing(self) -> bool:
        """As PWI4 says. Raises WireError when it does not."""
        slewing = flag(self._ask(), "mount.is_slewing")
        if slewing is None:
            raise WireError("PWI4 answered without mount.is_slewing")
        return slewing

    def stop(self) -> None:
        """Stop every motion and tracking; tries all before it raises."""
        commands = [partial(self._command, "/mount/stop"), partial(self._command, "/mount/tracking_off")]
        if self._has_offsets:
            commands.append(partial(self._command, "/mount/offset", path_stop_rate="0"))
        try_all(*commands)

    def park(self) -> None:
        """Start a slew to PWI4's own park position."""
        self._command("/mount/park")

    def close(self) -> None:
        """Give the link back; commands nothing."""
        self._http.close()

    def load_trajectory(
        self, utc_ns: NDArray[np.int64], azimuth_deg: NDArray[np.float64], elevation_deg: NDArray[np.float64]
    ) -> None:
        """Give it the path (n,). BadInput for less than two points, or times that do not ascend."""
        path = _Path(np.asarray(utc_ns, np.int64), np.asarray(azimuth_deg), np.asarray(elevation_deg))
        if path.utc_ns.size < 2 or not path.utc_ns.shape == path.azimuth_deg.shape == path.elevation_deg.shape:
            raise BadInput(f"a path of {path.utc_ns.size} times cannot be followed; give at least 2 points, each whole")
        if np.any(np.diff(path.utc_ns) <= 0):
            raise BadInput("the times of a path must ascend")
        angles = np.concatenate((path.azimuth_deg, path.elevation_deg))
        if not np.isfinite(angles).all() or np.abs(path.elevation_deg).max() > 90.0:
            raise BadInput("the path leaves -90 to 90 deg elevation or holds no numbers; it was not loaded")
        self._loaded = None
        self._command("/mount/custom_path/new", type="altaz")
        points = path_points(path.utc_ns, path.azimuth_deg, path.elevation_deg)
        parse_reply(self._http.request("POST", "/mount/custom_path/add_point_list", form={"data": points}))
        self._loaded = path

    def load_elements(self, name: str, line1: str, line2: str) -> None:
        """Keep an element set; PWI4 gets it with `start_trajectory`, for it follows at once."""
        for number_, line in ((1, line1), (2, line2)):
            if len(line) != 69 or not line.isascii() or line[:2] != f"{number_} ":
                raise BadInput(f'line {number_} of the element set "{name}" is damaged; copy it again from its source')
        self._loaded = _Elements(name, line1, line2)

    def start_trajectory(self) -> None:
        """Follow what was loaded, without offsets. BadInput when nothing was."""
        self._clear_offsets()
        if isinstance(self._loaded, _Path):
            self._command("/mount/custom_path/apply")
        elif isinstance(self._loaded, _Elements):
            lines = {"line1": self._loaded.name, "line2": self._loaded.line1, "line3": self._loaded.line2}
            self._command("/mount/follow_tle", **lines)
        else:
            raise BadInput("nothing was loaded that the mount could follow; load a path or an element set first")

    def set_time_offset_s(self, offset_s: float) -> None:
        """Point to where the path is so much later.

        PWI4 knows offsets along the track in arcseconds only: this one is right at the moment of the call, and gets
        the rate at which the path's own speed changes it. Call it again from time to time. Behind an element set the
        speed is the one that the mount measures (InstrumentFault when its version does not tell).
        """
        if not math.isfinite(offset_s):
            raise BadInput(f"a time offset of {offset_s} s is none")
        now_ns = self._clock.utc_ns()
        if isinstance(self._loaded, _Path):
            total = self._loaded.along_arcsec(now_ns, offset_s)
            rate = (self._loaded.along_arcsec(now_ns + NS_PER_S, offset_s) - total) if offset_s else 0.0
        else:
            total, rate = offset_s * self._measured_speed_arcsec_s(), 0.0
        self._set_offset("path", total, rate)

    def set_axis_offsets_arcsec(self, azimuth_arcsec: float, elevation_arcsec: float) -> None:
        """Add to both axes' angles: offsets of axis 0 and axis 1."""
        self._set_offset("axis0", azimuth_arcsec)
        self._set_offset("axis1", elevation_arcsec)

    def _set_offset(self, axis: str, total_arcsec: float, rate_arcsec_s: float | None = None) -> None:
        """Set it, and see it in the status where the version tells it. Raises InstrumentFault when it differs."""
        if not abs(total_arcsec) <= _LIMIT_ARCSEC:
            raise BadInput(f"an offset of {total_arcsec} arcsec is beyond {_LIMIT_ARCSEC:g}; nothing was set")
        parameters = {f"{axis}_set_total_arcsec": f"{total_arcsec:.4f}"}
        tolerance = _OFFSET_TOLERANCE_ARCSEC
        if rate_arcsec_s is not None:
            parameters[f"{axis}_set_rate_arcsec_per_sec"] = f"{rate_arcsec_s:.6f}"
            tolerance += abs(rate_arcsec_s) * (_SET_S + self._http.timeout_s * self._clock.speed)
        self._has_offsets = True
        self._command("/mount/offset", **parameters)

        def is_set(status: Status) -> bool:
            found = number(status, f"mount.offsets.{axis}_arcsec.total")
            return found is None or abs(found - total_arcsec) <= tolerance

        self._wait_for(is_set, f"did not take an {axis} offset of {total_arcsec:.3f} arcsec", _SET_S)

    def _clear_offsets(self) -> None:
        self._command("/mount/offset", path_reset="0", axis0_reset="0", axis1_reset="0")
        self._has_offsets = False

    def _measured_speed_arcsec_s(self) -> float:
        status = self._ask()
        rates = [number(status, f"mount.axis{axis}.measured_velocity_degs_per_sec") for axis in (0, 1)]
        azimuth_rate, elevation_rate = rates
        if azimuth_rate is None or elevation_rate is None:
            raise InstrumentFault("this version of PWI4 does not tell how fast its axes turn; load a path of points")
        _, altitude_deg = parse_position(status)
        return 3600.0 * math.hypot(azimuth_rate * math.cos(math.radians(altitude_deg)), elevation_rate)

    def _wait_for(self, reached: Callable[[Status], bool], complaint: str, world_s: float) -> None:
        """Ask until it is so; the span is world time, but at least five questions."""
        deadline = monotonic_s() + max(world_s / self._clock.speed, 5 * _POLL_S)
        while not reached(self._ask()):
            if monotonic_s() > deadline:
                self._give_up(complaint)
            self._clock.sleep_s(_POLL_S)

    def _give_up(self, complaint: str) -> NoReturn:
        raise InstrumentFault(f"PWI4 at {self._http.address} {complaint}; see its own window")

    def _ask(self, before: Callable[[], None] | None = None) -> Status:
        """The status; asked once more when that failed on the way."""
        for attempt in range(2):
            if before:
                before()
            try:
                return parse_reply(self._http.request("GET", "/status"))
            except (TransportTimeout, TransportLost, WireError):
                if attempt:
                    raise
        raise AssertionError("unreachable")

    def _command(self, path: str, **parameters: str) -> Status:
        return parse_reply(self._http.request("GET", path, query=parameters or None))


def probe(address: str, clock: Clock, settings: Settings) -> Identity:
    """Who answers; the motors stay as they are."""
    with contextlib.closing(_opened(address, clock, settings)) as mount:
        return mount.identify()


def connect(address: str, clock: Clock, settings: Settings) -> TrajectoryMount:
    """Connect, identify, reach the mount and switch its motors on; `clock` gives the world time of each reading."""
    mount = _opened(address, clock, settings)
    with closed_on_error(mount):
        mount.identify()
        mount.get_ready()
    return mount


def _opened(address: str, clock: Clock, settings: Settings) -> Pwi4Mount:
    positive = ("timeout_s", "max_rate_deg_s", "max_acceleration_deg_s2", "max_clock_difference_s")
    chosen = parse_settings(Pwi4Settings, settings, "mount_pwi4", positive)
    return Pwi4Mount(open_http(address, timeout_s=chosen.timeout_s, log=chosen.log), clock, chosen)
