"""An IDQ ID900 or ID1000 Time Controller and IDQ's DataLinkTarget service, from the far end of their sockets.

    python -m drivers.simulators.tagger_id900 --address zmq://127.0.0.1:5555 --dlt-address zmq://127.0.0.1:6060

Three kinds of ZeroMQ sockets: SCPI by REQ/REP, the service by REQ/REP with JSON answers, and one PAIR per stream on the
port that `start-stream` names; four free ones are announced. Tags come in sub-acquisitions of PWID that begin every
PPER, each in one message at its end, with times from 0 again; a channel that had none in it sends none. Inputs 1 to 4
see the world's light; a signal that is split onto two inputs gives a tag on both, at the same ps.

A command is answered with "Value set to ...", an error with a text that ends with SCPI_ERR_..., the answers of a
message one a line, as clients of the device expect (MSLNZ/pr-single-photons, IDQ's multi-device example). That
errors also wait for SYST:ERR? is SCPI, but no source shows it of this device. Sources: see `id900_blocks.py` and
`id900_dlt.py`. Not simulated: the extra messages of 100 million tags and more in one sub-acquisition, windows of
combiners, triggers of the record, STATe?, the light at STARt.

The faults of the wire (see `zmq_face.py`) act on both services, each counting for itself. Special faults: "overflow"
(every fifth sub-acquisition loses a tenth of its tags, counted by RAW#:ERRORS?), "dlt_loss" (once, after 28
sub-acquisitions, the service loses input 2's message, and says so in its status), "dlt_stops" (it is gone after eight
sub-acquisitions), "dlt_error" (it refuses to start), "silent_channel" (input 1 sees nothing after the third
sub-acquisition), "silent_period" (no input sees anything in the eighth one), "empty_messages" (a sub-acquisition
without tags sends a message of length zero), "old_errors" (the error queue holds -222 and -113 of an earlier user),
"no_error_queue" (SYST:ERR? is unknown), "wrong_case" (answers in lower case).
"""

from fractions import Fraction

import numpy as np
import zmq

from drivers.simulators.faults import Faults
from drivers.simulators.id900_blocks import CHANNELS, NO_TIMES, Blocks, Times
from drivers.simulators.id900_dlt import Dlt
from drivers.simulators.program import Loop, announce, run_program, world_of
from drivers.simulators.scpi_face import MEANINGS, ErrorQueue, Handler, ScpiError, ScpiFace
from drivers.simulators.tagger_world import TaggerWorld, tagger_arguments
from drivers.simulators.zmq_face import Answerer
from groundstation.simulation.light import LightBlock

_LATENCY_S = 0.001  # free
_DEAD_PS = 40_000  # at least, between two sub-acquisitions
_PS_PER_MS = 1_000_000_000
_SPECIAL_EVERY = 5  # sub-acquisitions
_LOSING_CHANNEL, _LOSES_AFTER = 2, 28
_SILENT_AFTER = 3
_STOPS_AFTER = 8
_SILENT_PERIOD = 7
_MODELS = {"ID900": {"HIRES": 13, "LOWRES": 100}, "ID1000": {"HIRES": 1, "LOWRES": 100}}  # ps; LOWRES of ID1000: free
#: Names of errors, from MSL's client and the JPA-SCPI parser, whose names these are; the last one is free.
_ERROR_NAMES = {
    -113: "INVALID_CMD",
    -108: "PARAM_COUNT",
    -109: "PARAM_COUNT",
    -222: "PARAM_OVERFLOW",
    -221: "EXECUTION",
}
_OTHER_ERROR = "PARAM_TYPE"


class Device:
    """The Time Controller: its blocks, and what the record in progress has collected."""

    def __init__(self, model: str, faults: Faults, light: TaggerWorld, dlt: Dlt, limit_hz: float) -> None:
        """`limit_hz`: tags of all channels that it can send; more are lost."""
        self._model, self._faults, self._light, self._dlt, self._limit_hz = model, faults, light, dlt, limit_hz
        self._blocks = Blocks()
        self._face = ScpiFace({**self._blocks.commands(self._heard), **self._commands()})
        self._queue = ErrorQueue()
        for code in (-222, -113) if "old_errors" in faults.special else ():
            self._queue.add(code)
        self._loses_a_message = "dlt_loss" in faults.special
        self._lost = dict.fromkeys(CHANNELS, 0)
        self._histograms = dict.fromkeys(CHANNELS, NO_TIMES)
        self._inputs: dict[int, Times] = dict.fromkeys(CHANNELS, NO_TIMES)
        self._record: int | None = None  # number of the sub-acquisition that is played
        self._complete_ps = 0
        self._counting = False
        self._counters = {n: Counter() for n in CHANNELS}

    def answer(self, message: str) -> str:
        """The answers of a message's commands, one a line; nothing where there is nothing to say."""
        answer = self._face.execute(message)
        lines = [] if answer is None else [answer.replace(";", "\n")]
        while (code := int(self._face.errors.next().partition(",")[0])) != 0:
            self._queue.add(code)
            lines.append(f"{MEANINGS[code]}: SCPI_ERR_{_ERROR_NAMES.get(code, _OTHER_ERROR)}")
        text = "\n".join(lines)
        return text.lower() if "wrong_case" in self._faults.special else text

    def _commands(self) -> dict[str, Handler]:
        identity = "Stanford Research Systems,DG645" if self._faults.wrong_model else f"ID Quantique,{self._model}"
        commands: dict[str, Handler] = {
            "*IDN?": lambda _: f"{identity},simulated-1,1.0.0",  # free
            "*CLS": lambda _: self._queue.clear(),
            "*OPC?": lambda _: "1",
            "DEVIce:RESolution:BWIDth?": lambda _: str(self._width_ps()),
            "RECord:PLAY": lambda _: self._play(),
            "RECord:STOP": lambda _: self._stop(),
            "RECord:STAGe?": lambda _: "IDLE" if self._record is None else "PLAYING",
        }
        if "no_error_queue" not in self._faults.special:
            commands["SYSTem:ERRor[:NEXT]?"] = lambda _: self._queue.next()
        for n in CHANNELS:
            commands |= self._commands_of(n)
        return commands

    def _commands_of(self, n: int) -> dict[str, Handler]:
        """What is asked of the blocks with number `n` beside their settings."""
        values, block = self._blocks.values, f"HIST{n}"
        return {
            f"GEN{n}:PLAY": lambda _: self._play_generator(n),
            f"GEN{n}:STOP": lambda _: self._stop_generator(n),
            f"RAW{n}:ERRORs?": lambda _: str(self._lost[n]),
            f"RAW{n}:ERRORs:CLEAr": lambda _: self._lost.update({n: 0}),
            f"INPUt{n}:HIREs:ERROr?": lambda _: "0",
            f"INPUt{n}:HIREs:ERROr:CLEAr": lambda _: "Cleared Highres errors",
            f"INPUt{n}:COUNter?": lambda _: self._count(n),
            f"INPUt{n}:COUNter:RESEt": lambda _: self._reset_counter(n),
            f"HISTogram{n}:DATA?": lambda _: str(self._histogram(n).tolist()),
            f"HISTogram{n}:FLUSh": lambda _: self._flush(n),
            f"HISTogram{n}:[INPOrt:]REF:LINK:ADDResses?": lambda _: values[block, "REF:LINK"],
            f"HISTogram{n}:[INPOrt:]STOP:LINK:ADDResses?": lambda _: values[block, "STOP:LINK"],
        }

    def _heard(self, block: str, header: str, value: str) -> None:
        """A setting is about to change that the signals notice, or that the device refuses."""
        if header == "BWID" and int(value.removesuffix("TB")) % self._width_ps():
            raise ScpiError(-222)
        if block.startswith("INPU") and header.startswith("COUN:"):
            self._reset_counter(int(block[4:]))
        if (block, header) == ("REC", "DUR"):
            duration_ps = int(value.removesuffix("TB"))
            self._blocks.values["REC", "PWID"] = f"{duration_ps}TB"
            self._blocks.values["REC", "PPER"] = f"{duration_ps + _DEAD_PS}TB"
        if block.startswith("HIST") and header in ("MIN", "BWID", "BCOU"):
            self._flush(int(block[4:]))

    def _width_ps(self) -> int:
        return _MODELS[self._model][self._blocks.values["DEVI", "RES"]]

    # --- The record

    def _play(self) -> None:
        dead_ps = self._blocks.time_ps("REC", "PPER") - self._blocks.time_ps("REC", "PWID")
        if not self._blocks.is_on("REC", "ENAB") or dead_ps < _DEAD_PS:
            raise ScpiError(-221)
        self._record, self._complete_ps = 0, 0
        self._inputs = dict.fromkeys(CHANNELS, NO_TIMES)
        for generator in self._blocks.generators.values():
            if generator.began_ps is not None:
                generator.began_ps = 0  # free: its phase to the record is not documented
        for counter in self._counters.values():
            counter.reset()
        self._light.start(self._deliver, 0)

    def _stop(self) -> None:
        if self._record is None:
            return
        start_ps = self._record * self._blocks.time_ps("REC", "PPER")
        if self._complete_ps > start_ps:
            self._send(start_ps, min(self._complete_ps, start_ps + self._blocks.time_ps("REC", "PWID")))
        self._end()

    def _end(self) -> None:
        self._record = None
        self._dlt.end_all()
        if not self._counting:
            self._light.stop()

    def _deliver(self, block: LightBlock) -> bool:
        """A block of light has passed. True when somebody is told of its tags."""
        before_ps, width_ps = self._complete_ps, self._width_ps()
        tick_ps = _MODELS[self._model]["HIRES"]
        self._complete_ps = block.complete_ticks * tick_ps // width_ps * width_ps
        times = block.ticks * tick_ps // width_ps * width_ps
        silent = "silent_channel" in self._faults.special and (self._record or 0) >= _SILENT_AFTER
        for n, counter in self._counters.items():
            seen = NO_TIMES if silent and n == 1 else times[(block.pattern >> (n - 1)) & 1 == 1]
            self._inputs[n] = np.concatenate((self._inputs[n], seen))
            if self._counting and self._blocks.is_on(f"INPU{n}", "ENAB"):
                cycle_ps = int(self._blocks.values[f"INPU{n}", "COUN:INTE"]) * _PS_PER_MS
                counter.add(seen, self._complete_ps, cycle_ps)
        told = self._record is not None and self._dlt.is_used
        self._fill_histograms(before_ps)
        self._cut()
        self._forget()
        return told

    def _cut(self) -> None:
        """Send every sub-acquisition that is over."""
        while self._record is not None:
            start_ps = self._record * self._blocks.time_ps("REC", "PPER")
            stop_ps = start_ps + self._blocks.time_ps("REC", "PWID")
            if self._complete_ps < stop_ps:
                return
            self._send(start_ps, stop_ps)
            self._record += 1
            number = self._blocks.count("REC", "NUM")
            if number is not None and self._record >= number:
                self._end()

    def _send(self, start_ps: int, stop_ps: int) -> None:
        """One message to each channel's acquisitions, with times from the sub-acquisition's start."""
        assert self._record is not None
        special = self._faults.special
        if "dlt_stops" in special and self._record >= _STOPS_AFTER:
            self._dlt.close()
        found = {n: self._raw(n, start_ps, stop_ps) for n in CHANNELS if self._blocks.is_on(f"RAW{n}", "SEND")}
        if "silent_period" in special and self._record == _SILENT_PERIOD:
            found = dict.fromkeys(found, (NO_TIMES, NO_TIMES))
        total = sum(len(times) for times, _ in found.values())
        room = round(self._limit_hz * (stop_ps - start_ps) * 1e-12)
        unlucky = self._record % _SPECIAL_EVERY == _SPECIAL_EVERY - 1
        for n, (times, references) in found.items():
            kept = np.ones(len(times), np.bool_)
            if total > room:
                kept[len(times) * room // total :] = False
            if unlucky and "overflow" in special:
                kept[len(times) * 4 // 10 : len(times) * 5 // 10] = False
            self._lost[n] += int(np.count_nonzero(~kept))
            for acquisition in self._dlt.of_channel(n):
                lost = self._loses_a_message and (n, self._record) == (_LOSING_CHANNEL, _LOSES_AFTER)
                acquisition.take(times[kept], references[kept], lost)
                self._loses_a_message &= not lost
                if "empty_messages" in special and not kept.any():
                    acquisition.end()

    def _raw(self, n: int, start_ps: int, stop_ps: int) -> tuple[Times, Times]:
        """Times of a channel from the sub-acquisition's start or the reference before, and the references' numbers."""
        block = f"RAW{n}"
        if not self._blocks.is_on(block, "ENAB"):
            return NO_TIMES, NO_TIMES
        times = self._blocks.tags(self._blocks.values[block, "STOP:LINK"], self._inputs, start_ps, stop_ps)
        reference = self._blocks.values[block, "REF:LINK"]
        if reference == "NONE":
            return times - start_ps, np.zeros_like(times)
        return _since(times, self._blocks.tags(reference, self._inputs, start_ps, stop_ps))

    def _forget(self) -> None:
        """What no sub-acquisition needs any more."""
        start_ps = self._complete_ps
        if self._record is not None:
            start_ps = min(start_ps, self._record * self._blocks.time_ps("REC", "PPER"))
        needed_ps = start_ps - self._blocks.longest_delay_ps()
        for n, times in self._inputs.items():
            self._inputs[n] = times[np.searchsorted(times, needed_ps) :]

    # --- Generators, counters, histograms

    def _play_generator(self, n: int) -> None:
        generator = self._blocks.generators[n]
        generator.began_ps = self._complete_ps if self._record is not None else 0
        generator.pulses = self._blocks.count(f"GEN{n}", "PNUM")

    def _stop_generator(self, n: int) -> None:
        self._blocks.generators[n].began_ps = None

    def _count(self, n: int) -> str:
        self._start_counting()
        return str(self._counters[n].told(self._blocks.values[f"INPU{n}", "COUN:MODE"] == "CYCLE"))

    def _reset_counter(self, n: int) -> str:
        self._counters[n].reset()
        self._start_counting()
        return "Counter value set to 0 "

    def _start_counting(self) -> None:
        """From now on there is light in front of the inputs, whether or not a record plays."""
        if not self._counting and self._record is None:
            self._light.start(self._deliver)
        self._counting = True

    def _histogram(self, n: int) -> Times:
        bins = int(self._blocks.values[f"HIST{n}", "BCOU"])
        if self._histograms[n].size != bins:
            self._histograms[n] = np.zeros(bins, np.int64)
        return self._histograms[n]

    def _flush(self, n: int) -> str:
        self._histograms[n] = NO_TIMES
        return "Flushed Histogram!"

    def _fill_histograms(self, before_ps: int) -> None:
        """Count each stop by its time from the last reference before it, within this block of light."""
        for n in CHANNELS:
            block, values = f"HIST{n}", self._blocks.values
            if self._record is None or values[block, "REF:LINK"] == "NONE":
                continue
            span = (self._inputs, before_ps, self._complete_ps)
            references = self._blocks.tags(values[block, "REF:LINK"], *span)
            delays, _ = _since(self._blocks.tags(values[block, "STOP:LINK"], *span), references)
            width_ps = max(1, self._blocks.time_ps(block, "BWID"))
            bins = (delays - self._blocks.time_ps(block, "MIN")) // width_ps
            histogram = self._histogram(n)
            histogram += np.bincount(bins[(bins >= 0) & (bins < histogram.size)], minlength=histogram.size)


class Counter:
    """The counter of one input."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._total = self._cycle = self._last = 0
        self._until_ps: int | None = None

    def add(self, times: Times, complete_ps: int, cycle_ps: int) -> None:
        """Count tags; a cycle that is over becomes the one that is told."""
        self._total += len(times)
        if self._until_ps is None:
            self._until_ps = (int(times[0]) if len(times) else complete_ps) + cycle_ps
        while complete_ps >= self._until_ps:
            inside = int(np.searchsorted(times, self._until_ps))
            self._last, self._cycle = self._cycle + inside, 0
            times = times[inside:]
            self._until_ps += cycle_ps
        self._cycle += len(times)

    def told(self, cyclic: bool) -> int:
        """The last full cycle's count, or all since the reset."""
        return self._last if cyclic else self._total


def _since(times: Times, references: Times) -> tuple[Times, Times]:
    """Times from the last of the references before, and its number; without what comes before the first."""
    number = np.searchsorted(references, times, side="right") - 1
    times, number = times[number >= 0], number[number >= 0]
    return times - references[number], number


def main() -> None:
    """Serve the device and the service until told to end."""
    parser = tagger_arguments("IDQ ID900 or ID1000 Time Controller with IDQ's DataLinkTarget service")
    parser.add_argument("--model", choices=list(_MODELS), default="ID900", help="(default ID900)")
    parser.add_argument("--dlt-address", metavar="ADDR", help="zmq://127.0.0.1:PORT of the service (default: any port)")
    parser.add_argument("--limit-hz", metavar="HZ", type=float, default=10e6, help="tags a second that it can send")
    options = parser.parse_args()
    world = world_of(options)
    loop = Loop(world.clock)
    context = zmq.Context()
    light = TaggerWorld(world, loop, options, Fraction(_MODELS[options.model]["HIRES"]))
    try:
        dlt = Dlt(context, loop, world.faults, options.dlt_address)
        device = Device(options.model, world.faults, light, dlt, options.limit_hz)
        control = Answerer(context, loop, world.faults, options.address, device.answer, _LATENCY_S)
        loop.supervise(options)
        announce(
            address=control.address,
            settings={"dlt_address": dlt.address, "stream_ports": dlt.stream_ports},
            model=f"ID Quantique {options.model}",
        )
        loop.run()
    finally:
        light.close()
        context.destroy(linger=0)


if __name__ == "__main__":
    run_program(main)
