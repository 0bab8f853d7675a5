"""A Single Quantum driver for nanowire detectors, seen from its two TCP ports: control (JSON) and counts (CSV).

    python -m drivers.simulators.nanowires_websq --address tcp://127.0.0.1:12000 --counts-address tcp://127.0.0.1:12345

A client sends bare JSON objects; the server's messages end with ETB (0x17), and several objects may be glued inside
one. Every change is broadcast to all clients. Each measurement period gives one line `unix time,counts,...` on the
counts port. Source: the vendor's client `WebSQControl.py`; it is all that is published, so ranges, texts of errors
and the wire's physics are ours. Detectors 0 to 3 of the world are channels 1 to 4.

What goes wrong on request (`special`): "latch" (channel 1 latches once, so long after it was first biased),
"latch_again" (it does so after every reset), "blinded" (bright light: nothing counts), "warm" (the cryostat is
warming up, and all wires with it), "braces" (a label whose text contains braces), "silent_set" (settings are not
taken, and nothing says so), "split_lines" (counts arrive in halves of lines), "disabled" (the detectors must be
enabled first; they are enabled at the start otherwise). The wrong model is a cryostat that tells its pressure only.
"""

import json
import math
import socket
from datetime import UTC, datetime, timedelta

import numpy as np

from drivers.simulators.nanowire import Nanowire
from drivers.simulators.program import Loop, World, announce, arguments, run_program, world_of
from drivers.simulators.wire import Line, Receiver, TcpLine, listen, serve_lines, tcp_address_of
from groundstation.clock import NS_PER_S
from groundstation.errors import BadInput

Json = dict[str, object]

_ETB = b"\x17"
_LATENCY_S = 0.005  # free
_GLUED = 3  # free: objects in one message of the list of all labels
_BIAS_LIMIT_UA = 90.9  # WebSQControl.py: of the scan
_TRIGGER_LIMIT_MV = 1000.0  # free
_SHORTEST_PERIOD_MS, _LONGEST_PERIOD_MS = 10.0, 10_000.0  # WebSQControl.py; the longest is free
_LATCHES_AFTER_S = 2.0  # free, world time
_COLD_K, _FIRST_STAGE_K, _BOARD_C = 2.5, 40.0, 35.0  # WebSQControl.py: about 2.5 K and 40 K
_SUPERCONDUCTING_BELOW_K = 4.0  # free
_WARMS_K_S = 0.05  # free
_HISTORY = 200  # WebSQControl.py
_HISTORY_STEP_S = 10.0  # free
_AUTO_BIAS_S = 5.0  # free
_UPDATE_WALL_S = 0.1


class WebSq:
    """The electronics: labels and their values, and what each command does to the wires."""

    def __init__(self, world: World, loop: Loop, channels: int, bias_ua: float) -> None:
        self._world, self._loop = world, loop
        self._special = world.faults.special
        dark_hz = world.parameters.detectors.dark_hz
        self._wires = [Nanowire(dark_hz) for _ in range(channels)]
        self._random = np.random.default_rng(world.parameters.seed)
        self._started_ns = loop.clock.utc_ns()
        self._latches_left = 1 if "latch" in self._special else 0
        self._clients: list[Line] = []
        self._auto_dark_hz = [100.0] * channels
        self._scan: dict[str, float] = {"IVScanStart": 0.0, "IVScanEnd": 30.0, "IVScanIncrement": 0.5}
        self._ic_scan: list[Json] = []
        self._iv_scan: list[Json] = []
        self.values: dict[str, object] = {
            "NumberOfDetectors": channels,
            "DetectorEnable": "disabled" not in self._special,
            "InptMeasurementPeriod": 100.0,
            "BiasCurrent": [bias_ua] * channels,
            "TriggerLevel": [20.0] * channels,
            "BiasVoltage": [0.0] * channels,
            "BiasCurrentAutoIV": [0.0] * channels,
            "StartAutoIV": False,
            "IVScanEnable": False,
            **self._scan,
        }
        if "braces" in self._special:
            self.values["Note"] = 'glued "}{" and {"label":"BiasCurrent","value":[9]}'
        self._update_for_ever()

    @property
    def period_s(self) -> float:
        return float(str(self.values["InptMeasurementPeriod"])) * 1e-3

    def join(self, line: Line) -> None:
        """A new client of the control port."""
        self._clients.append(line)
        line.unsolicited = lambda: _message({"label": "BiasCurrent", "value": self.values["BiasCurrent"]})

    def receiver(self) -> Receiver:
        """What receives the bytes of one control connection."""
        decoder, text = json.JSONDecoder(), ""

        def receive(line: Line, data: bytes) -> None:
            nonlocal text
            text += data.decode("utf-8", "replace")
            while (start := text.find("{")) >= 0:
                try:
                    found, end = decoder.raw_decode(text, start)
                except (ValueError, RecursionError):
                    text = text[start:][-65536:]
                    return
                text = text[end:]
                self._obey(line, found)
            text = ""

        return receive

    def counts(self, start_ns: int, stop_ns: int) -> list[float]:
        """What each channel counts in an interval of world time."""
        self._follow()
        if "blinded" in self._special:
            return [0.0] * len(self._wires)
        seconds = (stop_ns - start_ns) / NS_PER_S
        counts = []
        for channel, wire in enumerate(self._wires):
            clicks = self._world.board.clicks_between(channel, start_ns, stop_ns)
            dark = wire.dark_hz() * seconds
            counts.append(float(self._random.poisson(dark)) if clicks is None else float(round(clicks)))
        return counts

    def _obey(self, line: Line, given: Json) -> None:
        if self._world.faults.wrong_model:
            line.reply(_message({"label": "CompressorPressure", "value": 14.2}), _LATENCY_S)
            return
        request, label, value = given.get("request"), given.get("label"), given.get("value")
        command = given.get("command")
        lists = {"SetAllBiasCurrents": "BiasCurrent", "SetAllTriggerLevels": "TriggerLevel"}
        if request is not None:
            self._answer(line, str(request))
        elif command in lists:
            self._set_list(line, lists[str(command)], value)
        elif command == "SetMeasurementPeriod":
            self._set_period(line, value)
        elif command == "DetectorEnable" and isinstance(value, bool):
            self._set("DetectorEnable", value)
        elif command == "DarkCountsAutoIV" and isinstance(value, int | float | list):
            wanted = value if isinstance(value, list) else [value] * len(self._wires)
            self._auto_dark_hz = [float(item) for item in wanted if isinstance(item, int | float)]
        elif command == "AutoCaliBiasCurrents" and value is True:
            self._start_auto_bias(line)
        elif command == "IVScanEnable" and isinstance(value, bool):
            self._scan_enable(value)
        elif label in self._scan and isinstance(value, int | float):
            self._scan[str(label)] = float(value)
            self._set(str(label), float(value))
        else:
            self._complain(line, f"Unknown command {json.dumps(given)[:200]}")

    def _answer(self, line: Line, request: str) -> None:
        self._follow()
        if request == "labelProps":
            labels = [_label(name, self._properties(name)) for name in self.values]
            for first in range(0, len(labels), _GLUED):
                line.reply(b"".join(labels[first : first + _GLUED]) + _ETB, _LATENCY_S)
        elif request == "BiasVoltage":
            line.reply(_message({"label": "BiasVoltage", "value": self.values["BiasVoltage"]}), _LATENCY_S)
        elif request == "TemperatureHistory":
            line.reply(_message({"label": "temperature_long_memory", "value": self._temperatures()}), _LATENCY_S)
        elif request == "IVHistory":
            for name, scan in (("ic_scan_history", self._ic_scan), ("iv_scan_history", self._iv_scan)):
                line.reply(_message({"label": name, "value": {"value": scan}}), _LATENCY_S)
        else:
            self._complain(line, f"Unknown request {request[:200]}")

    def _properties(self, name: str) -> Json:
        bounds = {
            "BiasCurrent": [-_BIAS_LIMIT_UA, _BIAS_LIMIT_UA],
            "TriggerLevel": [-_TRIGGER_LIMIT_MV, _TRIGGER_LIMIT_MV],
            "InptMeasurementPeriod": [_SHORTEST_PERIOD_MS, _LONGEST_PERIOD_MS],
        }
        units = {"BiasCurrent": "uA", "BiasVoltage": "mV", "TriggerLevel": "mV", "InptMeasurementPeriod": "ms"}
        return {"bounds": bounds.get(name, []), "units": units.get(name, ""), "value": self.values[name]}

    def _set_list(self, line: Line, name: str, value: object) -> None:
        limit = _BIAS_LIMIT_UA if name == "BiasCurrent" else _TRIGGER_LIMIT_MV
        if not isinstance(value, list) or len(value) != len(self._wires):
            self._complain(line, f"{name} needs {len(self._wires)} values")
        elif not all(type(item) in (int, float) and abs(item) <= limit for item in value):
            self._complain(line, f"{name} out of bounds: {json.dumps(value)[:200]}")
        else:
            self._set(name, [float(item) for item in value])

    def _set_period(self, line: Line, value: object) -> None:
        if isinstance(value, int | float) and _SHORTEST_PERIOD_MS <= value <= _LONGEST_PERIOD_MS:
            self._set("InptMeasurementPeriod", float(value))
        else:
            self._complain(line, f"InptMeasurementPeriod out of bounds: {json.dumps(value)[:200]}")

    def _set(self, name: str, value: object) -> None:
        """Take a value over and tell everybody."""
        if "silent_set" in self._special:
            return
        self.values[name] = value
        self._follow()
        for client in self._clients:
            client.reply(_message({"label": name, "value": value}), _LATENCY_S)

    def _complain(self, line: Line, text: str) -> None:
        line.reply(_message({"label": "Error", "value": text}), _LATENCY_S)

    def _start_auto_bias(self, line: Line) -> None:
        if len(self._auto_dark_hz) != len(self._wires):
            self._complain(line, f"DarkCountsAutoIV needs {len(self._wires)} values")
            return

        def finish() -> None:
            found = [wire.bias_for(dark) for wire, dark in zip(self._wires, self._auto_dark_hz, strict=True)]
            self._set("BiasCurrent", found)
            self._set("BiasCurrentAutoIV", found)
            self._set("StartAutoIV", False)

        self._set("StartAutoIV", True)
        self._loop.at(self._loop.clock.utc_ns() + round(_AUTO_BIAS_S * NS_PER_S), finish)

    def _scan_enable(self, on: bool) -> None:
        self._set("IVScanEnable", on)
        step = max(abs(self._scan["IVScanIncrement"]), 0.01)
        span = self._scan["IVScanEnd"] - self._scan["IVScanStart"]
        points = min(int(abs(span) / step) + 1, 1000)
        if on:
            biases = [self._scan["IVScanStart"] + math.copysign(step * i, span) for i in range(points)]
            done_ns = self._loop.clock.utc_ns() + round(points * self.period_s * NS_PER_S)
            self._loop.at(done_ns, lambda: self._finish_scan(biases))

    def _finish_scan(self, biases: list[float]) -> None:
        if not self.values["IVScanEnable"]:
            return
        self._ic_scan, self._iv_scan = [], []
        for bias_ua in biases:
            ic, iv = {"biasCurrent": bias_ua}, {"biasCurrent": bias_ua}
            for number, wire in enumerate(self._wires, start=1):
                probe = Nanowire(self._world.parameters.detectors.dark_hz)
                probe.bias_ua, probe.trigger_mv, probe.enabled = bias_ua, wire.trigger_mv, True
                probe.update(0, self._cold_k() < _SUPERCONDUCTING_BELOW_K)
                ic[f"y{number}"] = float(self._random.poisson(probe.dark_hz() * self.period_s))
                iv[f"v{number}"] = probe.voltage_mv()
            self._ic_scan.append(dict(ic))
            self._iv_scan.append(dict(iv))
        self._set("IVScanEnable", False)

    def _follow(self) -> None:
        """Bring the wires up to what is set, to the temperature and to the faults."""
        now_ns = self._loop.clock.utc_ns()
        cold = self._cold_k() < _SUPERCONDUCTING_BELOW_K
        biases, triggers = _numbers(self.values["BiasCurrent"]), _numbers(self.values["TriggerLevel"])
        for wire, bias_ua, trigger_mv in zip(self._wires, biases, triggers, strict=True):
            wire.bias_ua, wire.trigger_mv, wire.enabled = bias_ua, trigger_mv, bool(self.values["DetectorEnable"])
            wire.update(now_ns, cold)
        first = self._wires[0]
        if first.biased_ns is not None and not first.latched:
            due = now_ns - first.biased_ns >= _LATCHES_AFTER_S * NS_PER_S
            if "latch_again" in self._special or (self._latches_left and due):
                first.latched, self._latches_left = True, 0
        self.values["BiasVoltage"] = [wire.voltage_mv() for wire in self._wires]

    def _cold_k(self) -> float:
        elapsed_s = (self._loop.clock.utc_ns() - self._started_ns) / NS_PER_S
        return _COLD_K + (_WARMS_K_S * elapsed_s + 1.0 if "warm" in self._special else 0.0)

    def _temperatures(self) -> Json:
        now_ns = self._loop.clock.utc_ns()
        kept = min(_HISTORY, 1 + int((now_ns - self._started_ns) / NS_PER_S / _HISTORY_STEP_S))
        moments = [now_ns - round((kept - 1 - i) * _HISTORY_STEP_S * NS_PER_S) for i in range(kept)]
        epoch = datetime(1970, 1, 1, tzinfo=UTC)
        stamps = [epoch + timedelta(microseconds=moment // 1000) for moment in moments]
        return {
            "x": [stamp.strftime("%d-%b-%y %H:%M:%S.%f") for stamp in stamps],
            "T": [self._cold_k()] * kept,
            "T2": [_FIRST_STAGE_K] * kept,
            "V_avrg": [0.0] * kept,
            "BoardTemp1": [_BOARD_C] * kept,
            "BoardTemp2": [_BOARD_C] * kept,
        }

    def _update_for_ever(self) -> None:
        self._follow()
        now_ns = self._loop.clock.utc_ns()
        blinded = "blinded" in self._special
        for channel, wire in enumerate(self._wires):
            efficiency, dark_hz = (0.0, 0.0) if blinded else (wire.efficiency(), wire.dark_hz())
            self._world.board.set_detector(channel, efficiency, dark_hz, now_ns)
        self._loop.after_wall_s(_UPDATE_WALL_S, self._update_for_ever)


class CountsLine(TcpLine):
    """One client of the counts, forgotten when it hangs up."""

    def __init__(self, loop: Loop, world: World, client: socket.socket, clients: list[Line]) -> None:
        self._clients = clients
        clients.append(self)
        super().__init__(loop, world.faults, lambda line, data: None, client)

    def _close(self) -> None:
        self._clients.remove(self)
        super()._close()


class CountsPort:
    """Sends every client one line per measurement period."""

    def __init__(self, websq: WebSq, world: World, loop: Loop, address: str | None) -> None:
        self._websq, self._world, self._loop = websq, world, loop
        self._server = listen(address)
        self.address = tcp_address_of(self._server)
        self._clients: list[Line] = []
        self._period_began_ns = loop.clock.utc_ns()
        loop.watch(self._server.fileno(), self._accept)
        self._wait()

    def _accept(self) -> None:
        try:
            client, _ = self._server.accept()
        except (BlockingIOError, ConnectionError):
            return
        CountsLine(self._loop, self._world, client, self._clients)

    def _wait(self) -> None:
        length_ns = round(self._websq.period_s * NS_PER_S)
        self._loop.at(self._period_began_ns + length_ns, lambda: self._finish(self._period_began_ns + length_ns))

    def _finish(self, end_ns: int) -> None:
        counts = self._websq.counts(self._period_began_ns, end_ns)
        line = ",".join([f"{end_ns / NS_PER_S:.3f}", *(f"{count:.1f}" for count in counts)]).encode() + b"\n"
        halves = 2 if "split_lines" in self._world.faults.special else 1
        size = -(-len(line) // halves)
        for client in list(self._clients):
            for part in range(halves):
                client.reply(line[part * size : (part + 1) * size], part * _LATENCY_S)
        self._period_began_ns = end_ns
        self._wait()


def _label(name: str, value: object) -> bytes:
    return json.dumps({"label": name, "value": value}).encode("utf-8")


def _message(given: Json) -> bytes:
    return json.dumps(given).encode("utf-8") + _ETB


def _numbers(value: object) -> list[float]:
    return [float(item) for item in value] if isinstance(value, list) else []


def main() -> None:
    parser = arguments("A simulated Single Quantum driver of superconducting nanowires.")
    parser.add_argument("--counts-address", metavar="ADDR", help="tcp://127.0.0.1:PORT of the counts (0 = any)")
    parser.add_argument("--channels", type=int, default=4, help="1 to 4 (default 4)")
    parser.add_argument("--bias-ua", type=float, default=0.0, metavar="UA", help="of every wire at first (default 0)")
    options = parser.parse_args()
    if options.channels not in range(1, 5) or not abs(options.bias_ua) <= _BIAS_LIMIT_UA:
        raise BadInput(
            f"--channels {options.channels} --bias-ua {options.bias_ua}: give 1 to 4, and {_BIAS_LIMIT_UA} uA at most"
        )
    world = world_of(options)
    loop = Loop(world.clock)
    websq = WebSq(world, loop, options.channels, options.bias_ua)
    address = serve_lines(loop, world.faults, options, websq.receiver, over_tcp=True, joined=websq.join)
    counts = CountsPort(websq, world, loop, options.counts_address)
    loop.supervise(options)
    port = int(counts.address.rpartition(":")[2])
    announce(address=address, counts_address=counts.address, settings={"counts_port": port})
    loop.run()


if __name__ == "__main__":
    run_program(main)
