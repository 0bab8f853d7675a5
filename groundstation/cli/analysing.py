"""One loop around the analysis, for the live process and for replay: step, judge, show, report."""

import platform
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from groundstation import __version__
from groundstation.clock import SystemClock, monotonic_s, sleep_wall_s, utc_text
from groundstation.instruments import Transmitter
from groundstation.pipeline.analysis import Analysis, build
from groundstation.pipeline.result import PassResult, numbering_confirmed
from groundstation.pipeline.settings import PassPlan
from groundstation.recording.reader import Recording
from groundstation.recording.writer import StreamWriter
from groundstation.report.truth import TruthJudge
from groundstation.report.write import write_report

_IDLE_S = 0.05
#: After the last tag: how long to wait for the next answer, and for the simulated world's last word.
_ANSWER_PATIENCE_S = 10.0
_TRUTH_PATIENCE_S = 10.0


@dataclass(frozen=True)
class AnalysisStatus:
    """What the live view shows of the analysis."""

    state: str
    analysed_utc_ns: int
    gated_hz: float
    sifted_hz: float
    sifted_bits: int
    errors: int
    bits: int
    unanswered_batches: int


class Analyst:
    """An analysis with the judge of the simulated world beside it."""

    def __init__(
        self,
        recording: Recording,
        transmitter: Transmitter | None = None,
        answers_writer: StreamWriter | None = None,
        earlier_answers: Recording | None = None,
    ) -> None:
        plan = PassPlan.from_manifest(recording.manifest)
        self._plan = plan
        self._judge: TruthJudge | None = None
        if plan.mode == "simulation":
            truth = recording.stream("truth")
            self._judge = TruthJudge(truth, plan.window_start_utc_ns, plan.window_stop_utc_ns)
        self.analysis: Analysis = build(recording, transmitter, answers_writer, self._gated, earlier_answers)
        self._last = (0, 0, 0)

    def run(self, idle: Callable[[], None], orphaned: Callable[[], bool]) -> PassResult:
        """Until everything is analysed. `idle` is called again and again; `orphaned`: nobody records any more."""
        followed = True
        quiet_since_s = monotonic_s()
        while True:
            busy = self.analysis.step()
            busy |= self._judge is not None and self._judge.poll()
            idle()
            if followed and orphaned():
                followed = False
                self.analysis.stop_following()
                if self._judge is not None:
                    self._judge.stop_following()
            if busy:
                quiet_since_s = monotonic_s()
                continue
            quiet_s = monotonic_s() - quiet_since_s
            if self.analysis.finished and self._nothing_awaited(quiet_s):
                return self._result()
            sleep_wall_s(_IDLE_S)

    def status(self) -> AnalysisStatus:
        """Rates are those of the last whole second analysed."""
        tallies, plan = self.analysis.tallies, self._plan
        analysed = self.analysis.progress.analysed_utc_ns
        second = (analysed - plan.window_start_utc_ns) // 1_000_000_000 - 2
        inside = 0 <= second < tallies.seconds
        errors, bits = tallies.signal_qber()
        return AnalysisStatus(
            self._state(),
            analysed,
            float(tallies.gated_per_second[second]) if inside else 0.0,
            float(tallies.signal_per_second[second]) if inside else 0.0,
            int(tallies.sifted[0].sum()),
            errors,
            bits,
            self.analysis.unanswered_batches,
        )

    def _state(self) -> str:
        if self.analysis.finished:
            return "finished"
        confirmed = numbering_confirmed(*self.analysis.tallies.signal_qber())
        return {None: "synchronising", True: "numbering confirmed", False: "numbering NOT confirmed"}[confirmed]

    def _nothing_awaited(self, quiet_s: float) -> bool:
        if self.analysis.unanswered_batches and quiet_s < _ANSWER_PATIENCE_S:
            return False
        return self._judge is None or self._judge.ended or quiet_s > _TRUTH_PATIENCE_S

    def _result(self) -> PassResult:
        result = self.analysis.result()
        return result if self._judge is None else replace(result, simulation=self._judge.truth())

    def _gated(self, time_ps: NDArray[np.int64], slot: NDArray[np.int64]) -> None:
        if self._judge is not None and self.analysis.zero_device_ps is not None:
            self._judge.claim(self.analysis.zero_device_ps, time_ps, slot)


def report(result: PassResult, directory: Path, how: str, recording: Recording) -> None:
    """Write the report files; `how` the result came about stands in its provenance only."""
    provenance = {
        "how": how,
        "written_utc": utc_text(SystemClock().utc_ns()),
        "run_id": recording.run_id,
        "host": platform.node(),
        "groundstation": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "h5py": h5py.__version__,
    }
    write_report(replace(result, provenance=provenance), directory)
