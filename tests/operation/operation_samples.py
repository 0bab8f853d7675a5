"""A mount with real dynamics and detectors without wires, for the tests of whoever drives them."""

import threading
import time

from groundstation.errors import InstrumentFault
from groundstation.instruments import Identity, MountCapabilities, MountReading
from groundstation.simulation.mount import MountDynamics
from groundstation.simulation.parameters import MountParameters

_COUNTS_PER_TURN = 1 << 24


class DynamicsMount:
    """The simulated telescope behind the capability `Mount`. `fail`: called before each command with its name;
    what it raises is what the link does."""

    def __init__(self, clock, park_deg=(0.0, 0.0)):
        parameters = MountParameters(park_azimuth_deg=park_deg[0], park_elevation_deg=park_deg[1])
        self._clock, self.fail = clock, lambda command: None
        self._lock = threading.Lock()
        self.dynamics = MountDynamics(parameters, clock.utc_ns())
        self.commands = []
        self.capabilities = MountCapabilities(
            parameters.max_rate_deg_s,
            parameters.max_acceleration_deg_s2,
            parameters.rate_quantum_arcsec_s,
            parameters.command_latency_s,
        )

    def _begin(self, command):
        self.commands.append(command)
        self.fail(command)
        return self._clock.utc_ns()

    def identify(self):
        return Identity("dynamics")

    def read_position(self):
        with self._lock:
            now = self._begin("read_position")
            azimuth, elevation = (
                self.dynamics.encoder(a, now) * 360.0 / _COUNTS_PER_TURN for a in ("azimuth", "elevation")
            )
            return MountReading(azimuth, elevation - 360.0 * (elevation > 180.0), now, 0.0)

    def set_rates(self, azimuth_arcsec_s, elevation_arcsec_s):
        with self._lock:
            now = self._begin("set_rates")
            self.dynamics.set_rate("azimuth", azimuth_arcsec_s, now)
            self.dynamics.set_rate("elevation", elevation_arcsec_s, now)

    def go_to(self, azimuth_deg, elevation_deg):
        with self._lock:
            now = self._begin("go_to")
            self.dynamics.go_to("azimuth", azimuth_deg, now)
            self.dynamics.go_to("elevation", elevation_deg, now)

    def is_slewing(self):
        with self._lock:
            now = self._begin("is_slewing")
            return any(self.dynamics.is_slewing(axis, now) for axis in ("azimuth", "elevation"))

    def stop(self):
        with self._lock:
            self.dynamics.stop(self._begin("stop"))

    def close(self):
        pass

    @property
    def rates_deg_s(self):
        """How fast both axes will turn once all commands have taken effect: for ever, that is."""
        return tuple(axis.pieces[-1].rate_deg_s for axis in (self.dynamics.azimuth, self.dynamics.elevation))

    def pointing_deg(self):
        return self.dynamics.pointing_deg(self._clock.utc_ns())


class FakeDetector:
    """Takes its settings and cools at once, unless told that it is broken."""

    def __init__(self, temperature_c=20.0, cools=True, broken=False):
        self._temperature_c, self._setpoint_c, self._cools, self.broken = temperature_c, temperature_c, cools, broken
        self.bias, self.history, self.cooling = 0.0, [], False

    def identify(self):
        return Identity("detector")

    def bias_v(self):
        self._check()
        return self.bias

    def set_bias_v(self, bias_v):
        self._check()
        self.bias = bias_v
        self.history.append(bias_v)

    def temperature_c(self):
        self._check()
        return self._setpoint_c if self._cools and self.cooling else self._temperature_c

    def set_temperature_setpoint_c(self, temperature_c):
        self._check()
        self._setpoint_c = temperature_c

    def is_cooling(self):
        self._check()
        return self.cooling

    def switch_cooling(self, on):
        self._check()
        self.cooling = on

    def counts(self, integration_s):
        self._check()
        return round(1_000 * integration_s)

    def close(self):
        pass

    def _check(self):
        if self.broken:
            raise InstrumentFault("the detector does not answer")


def eventually(condition, timeout_s=10.0):
    """Poll until something is true."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not become true in time"
        time.sleep(0.002)
