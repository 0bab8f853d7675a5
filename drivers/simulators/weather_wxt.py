"""A Vaisala WXT520/530 weather transmitter seen from the far end of its serial line, in its ASCII protocol.

    python -m drivers.simulators.weather_wxt --pty

Device address 0. `0R1` to `0R3`, `0R5`, `0R` and `0R0` (composite) poll; with a small `r` the command ends with its
own three-character CRC (`0r0Kld`), and so does the answer; a wrong one is answered with the right one. `?` tells the
address, `0` alone acknowledges, `0XU` tells and changes the communication settings: M=P polled, M=A automatic.
Physics: slow weather with showers; the rain counter only grows.

Faults of its own: `invalid_values` (wind, temperature, humidity and pressure carry `#` for their unit),
`automatic` (it starts in automatic mode and speaks unasked), `imperial` (it is set to F, mph, inHg and inches).

Sources: WXT520 manual M210906EN-C, chapters 6, 7 and appendix C (CRC); WXT530 manual M211840EN-C, chapters 6 and 10
(`XU`, error texts); the CRC's letters as in WMT52 manual M210925EN-B. Intervals and weather are ours.
"""

import math
import re
from typing import NamedTuple

import numpy as np

from drivers.simulators.program import Loop, World, announce, arguments, run_program, world_of
from drivers.simulators.wire import Line, serve_lines
from groundstation.clock import NS_PER_S

_LATENCY_S = 0.025  # L=25 of the communication settings
_LONGEST_LINE = 80
_MESSAGES = {
    "1": ("Dn", "Dm", "Dx", "Sn", "Sm", "Sx"),
    "2": ("Ta", "Ua", "Pa"),
    "3": ("Rc", "Rd", "Ri", "Hc", "Hd", "Hi"),
    "5": ("Th", "Vh", "Vs", "Vr"),
    "0": ("Dn", "Dm", "Dx", "Sn", "Sm", "Sx", "Ta", "Ua", "Pa", "Rc", "Ri", "Th", "Vh", "Vs"),
}
_INTERVALS_S = {"1": 5, "2": 20, "3": 60, "5": 15}  # free: automatic mode
_MEASURED = ("Dn", "Dm", "Dx", "Sn", "Sm", "Sx", "Ta", "Ua", "Pa")
_STEP_S = 60.0  # of the rain counter


def crc(text: str) -> str:
    """Three characters of an answer or command, from the address up to what stands before them (appendix C)."""
    value = 0
    for byte in text.encode("ascii"):
        value ^= byte
        for _ in range(8):
            value = (value >> 1) ^ 0xA001 if value & 1 else value >> 1
    return "".join(chr(0x40 | part) for part in (value >> 12, value >> 6 & 0x3F, value & 0x3F))


class Value(NamedTuple):
    """A measured value with the letter of its unit, as they are written."""

    text: str
    unit: str


class Sky:
    """The weather at a moment, in metric units; world time in s since the start."""

    def __init__(self, seed: int) -> None:
        self._phases = np.random.default_rng((seed, 56)).uniform(0.0, 2 * math.pi, 8).tolist()
        self._rain_s = 0.0  # up to here the counters are
        self.rain_mm = 0.0
        self.rain_duration_s = 0.0

    def temperature_c(self, now_s: float) -> float:
        return 8.0 + 6.0 * self._slow(0, now_s, 86_400) + 0.4 * self._slow(1, now_s, 1_700)

    def humidity_percent(self, now_s: float) -> float:
        return min(100.0, 62.0 - 18.0 * self._slow(0, now_s, 86_400) + 12.0 * max(0.0, self._shower(now_s)))

    def pressure_hpa(self, now_s: float) -> float:
        return 1009.0 + 7.0 * self._slow(2, now_s, 400_000) + 0.1 * self._slow(3, now_s, 900)

    def wind_m_s(self, now_s: float) -> float:
        return max(0.0, 3.0 + 2.0 * self._slow(4, now_s, 20_000) + 0.7 * self._slow(5, now_s, 67))

    def wind_direction_deg(self, now_s: float) -> float:
        return (230.0 + 60.0 * self._slow(6, now_s, 50_000) + 9.0 * self._slow(7, now_s, 41)) % 360.0

    def rain_mm_h(self, now_s: float) -> float:
        return max(0.0, 6.0 * self._shower(now_s))

    def advance(self, now_s: float) -> None:
        """Let the rain fall up to a moment."""
        while self._rain_s < now_s:
            step_s = min(_STEP_S, now_s - self._rain_s)
            intensity = self.rain_mm_h(self._rain_s)
            self.rain_mm += intensity * step_s / 3600
            self.rain_duration_s += step_s if intensity else 0.0
            self._rain_s += step_s

    def _shower(self, now_s: float) -> float:
        """Above 0 while it rains."""
        return self._slow(2, now_s, 9_000) + self._slow(5, now_s, 3_100) - 1.3

    def _slow(self, which: int, now_s: float, period_s: float) -> float:
        return math.sin(2 * math.pi * now_s / period_s + self._phases[which])


class Transmitter:
    """The device: its messages, its commands, its mode."""

    def __init__(self, world: World, loop: Loop) -> None:
        self._world, self._loop = world, loop
        self._sky = Sky(world.parameters.seed)
        self._start_ns = loop.clock.utc_ns()
        self._special = world.faults.special
        self.settings = {"A": "0", "M": "A" if "automatic" in self._special else "P", "T": "0", "C": "2", "I": "0"}
        self.settings |= {"B": "19200", "D": "8", "P": "N", "S": "1", "L": "25"}
        self.lines: list[Line] = []
        for which in _INTERVALS_S:
            self._speak_for_ever(which)

    def message(self, which: str, with_crc: bool) -> str:
        """One data message without its line end."""
        if self._world.faults.wrong_model and which in "23":
            return self._text("Unknown cmd error", with_crc)
        values = self._values()
        names = [name for name in _MESSAGES[which] if not self._world.faults.wrong_model or name[0] in "DSTV"]
        fields = ",".join(f"{name}={values[name].text}{values[name].unit}" for name in names)
        text = f"0{'r' if with_crc else 'R'}{which},{fields}"
        return text + (crc(text) if with_crc else "")

    def obey(self, command: str) -> list[str]:
        """The lines that answer a command."""
        if command == "?":
            return ["0"]
        if command[0] != "0":
            return [self._text("Sync/address error", False)]
        rest = command[1:]
        if not rest:
            return ["0"]
        if found := re.fullmatch(r"R([01235]?)", rest):
            return self._data(found[1], False)
        if found := re.fullmatch(r"r([01235]?)(.{3})?", rest):
            right = crc(f"0r{found[1]}")
            return self._data(found[1], True) if found[2] == right else [self._text(f"Use chksum {right}", True)]
        if rest == "XU":
            name = "WMT52" if self._world.faults.wrong_model else "WXT530"
            return ["0XU," + ",".join(f"{key}={value}" for key, value in self.settings.items()) + f",N={name},V=1.00"]
        if found := re.fullmatch(r"XU,M=([AP])", rest):
            self.settings["M"] = found[1]
            return [f"0XU,M={found[1]}"]
        return [self._text("Unknown cmd error", False)]

    def _data(self, which: str, with_crc: bool) -> list[str]:
        return [self.message(one, with_crc) for one in ([which] if which else ["1", "2", "3", "5"])]

    def _text(self, text: str, with_crc: bool) -> str:
        message = f"0{'t' if with_crc else 'T'}X,{text}"
        return message + (crc(message) if with_crc else "")

    def _values(self) -> dict[str, Value]:
        now_s = (self._loop.clock.utc_ns() - self._start_ns) / NS_PER_S
        sky = self._sky
        sky.advance(now_s)
        wind, direction = sky.wind_m_s(now_s), sky.wind_direction_deg(now_s)
        imperial = "imperial" in self._special
        speed, speed_unit = (2.236936, "S") if imperial else (1.0, "M")
        temperature_c = sky.temperature_c(now_s)
        rain, rain_unit, digits = (1 / 25.4, "I", 3) if imperial else (1.0, "M", 2)
        values = {
            "Dn": Value(f"{(direction - 12) % 360:03.0f}", "D"),
            "Dm": Value(f"{direction % 360:03.0f}", "D"),
            "Dx": Value(f"{(direction + 14) % 360:03.0f}", "D"),
            "Sn": Value(f"{0.7 * wind * speed:.1f}", speed_unit),
            "Sm": Value(f"{wind * speed:.1f}", speed_unit),
            "Sx": Value(f"{1.4 * wind * speed:.1f}", speed_unit),
            "Ta": Value(f"{temperature_c * 1.8 + 32:.1f}", "F") if imperial else Value(f"{temperature_c:.1f}", "C"),
            "Ua": Value(f"{sky.humidity_percent(now_s):.1f}", "P"),
            "Pa": Value(f"{sky.pressure_hpa(now_s) * 0.0295300:.2f}", "I")
            if imperial
            else Value(f"{sky.pressure_hpa(now_s):.1f}", "H"),
            "Rc": Value(f"{sky.rain_mm * rain:.{digits}f}", rain_unit),
            "Rd": Value(f"{sky.rain_duration_s:.0f}", "s"),
            "Ri": Value(f"{sky.rain_mm_h(now_s) * rain:.{digits - 1}f}", rain_unit),
            "Hc": Value("0.0", "M"),
            "Hd": Value("0", "s"),
            "Hi": Value("0.0", "M"),
            "Th": Value(f"{temperature_c + 1.5:.1f}", "C"),
            "Vh": Value("0.0", "N"),
            "Vs": Value("12.0", "V"),
            "Vr": Value("3.475", "V"),
        }
        if "invalid_values" in self._special:
            values |= {name: values[name]._replace(unit="#") for name in _MEASURED}
        return values

    def _speak_for_ever(self, which: str) -> None:
        if self.settings["M"] == "A":
            for line in self.lines:
                line.send(f"{self.message(which, False)}\r\n".encode())
        self._loop.at(self._loop.clock.utc_ns() + _INTERVALS_S[which] * NS_PER_S, lambda: self._speak_for_ever(which))


class Port:
    """One line to the device."""

    def __init__(self, transmitter: Transmitter) -> None:
        self._transmitter = transmitter
        self._received = b""

    def receive(self, line: Line, data: bytes) -> None:
        *commands, rest = (self._received + data).split(b"\r\n")
        self._received = rest[-_LONGEST_LINE:]
        for command in commands:
            text = command.decode("ascii", "replace")
            if text:
                answer = "".join(f"{answer}\r\n" for answer in self._transmitter.obey(text))
                line.reply(answer.encode("ascii", "replace"), _LATENCY_S)


def main() -> None:
    options = arguments("A simulated Vaisala WXT weather transmitter on a serial line or TCP.").parse_args()
    world = world_of(options)
    loop = Loop(world.clock)
    transmitter = Transmitter(world, loop)

    def joined(line: Line) -> None:
        line.unsolicited = lambda: f"{transmitter.message('1', False)}\r\n".encode()
        transmitter.lines.append(line)

    address = serve_lines(loop, world.faults, options, lambda: Port(transmitter).receive, joined=joined)
    loop.supervise(options)
    announce(address=address)
    loop.run()


if __name__ == "__main__":
    run_program(main)
