"""How long the blind clock of two stations takes, and how much memory, beside fpfind on the same streams.

    python tests/benchmarks/bench_pair_clock.py [--fpfind] [--repeat N]

CPU seconds (median), also in units of numpy's own copy of the same tags, peak of what was allocated, and the error
against the planted clock. Each case runs in the same process on the same arrays; fpfind is a program of its own and
reads the streams from files, which takes 0.2 s of its time.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
import tracemalloc
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "core"))

from pair_samples import Planted, World, errors_ps, streams, write_a1

from groundstation.core.pair_clock import ClockRefused, find_pair_clock

W4 = World(5e5, 0.02)
CASES = {
    "W4: 0.73 s, 1 ppm, 2 % pairs": (Planted(0.73, 1e-6), W4),
    "20 % pairs": (Planted(0.73, 1e-6), World(5e5, 0.2)),
    "2 % pairs, -0.91 s, -9.7 ppm": (Planted(-0.91, -9.7e-6), W4),
    "0.5 % pairs": (Planted(0.73, 1e-6), World(5e5, 0.005)),
    "0.5 % pairs, 9 ppm": (Planted(-0.73, 9e-6), World(5e5, 0.005)),
    "50 kcps, 3 % pairs": (Planted(0.73, 1e-6), World(5e4, 0.03)),
    "10 kcps, 3 % pairs, -10 ppm": (Planted(0.73, -1e-5), World(1e4, 0.03)),
    "noise (to be refused)": (Planted(0.73, 1e-6), World(5e5, 0.0)),
}
#: Settings of fpfind that answer rightly at 0.73 s (range 2.1 s).
FPFIND = ("-q22", "-R512", "-s2", "--max-dt", "1000000000", "-pp")


def cpu_s(task, repeat):
    """Median CPU seconds of a task, and its answer."""
    times = []
    for _ in range(repeat):
        begun = time.process_time()
        answer = task()
        times.append(time.process_time() - begun)
    return float(np.median(times)), answer


def ours(a_ps, b_ps):
    try:
        return find_pair_clock(a_ps, b_ps)
    except ClockRefused:
        return None


def peak_mb(a_ps, b_ps):
    tracemalloc.start()
    ours(a_ps, b_ps)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 1e6


def fpfind_s(a_ps, b_ps):
    """CPU seconds of fpfind and what it prints (frequency offset and offset in ns)."""
    with tempfile.TemporaryDirectory() as folder:
        for name, tags in (("a.a1", a_ps), ("b.a1", b_ps)):
            write_a1(Path(folder) / name, tags)
        program = Path(sys.executable).with_name("fpfind")
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [program, "-t", "a.a1", "-T", "b.a1", *FPFIND]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return spent, (done.stdout.split() or done.stderr.split()[-3:])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fpfind", action="store_true", help="run fpfind on each case too (10 s and more each)")
    parser.add_argument("--repeat", type=int, default=7)
    options = parser.parse_args()
    write = sys.stdout.write
    write(f"{'case':32s} {'CPU s':>7s} {'x copy':>7s} {'MB':>5s} {'error ps':>9s} {'of frequency':>13s}\n")
    for name, (planted, world) in CASES.items():
        a_ps, b_ps = streams(planted, world)
        copy = np.empty(a_ps.size + b_ps.size, np.int64)
        both = np.concatenate((a_ps, b_ps))
        copy_s, _ = cpu_s(lambda into=copy, of=both: np.copyto(into, of), 15)
        seconds, clock = cpu_s(lambda a=a_ps, b=b_ps: ours(a, b), options.repeat if world.share else 1)
        line = f"{name:32s} {seconds:7.3f} {seconds / copy_s:7.0f} {peak_mb(a_ps, b_ps):5.0f} "
        if clock is None:
            write(line + "  refused\n")
        else:
            error = np.abs(errors_ps(clock, planted)).max()
            write(line + f"{error:9.0f} {clock.frequency_offset - planted.frequency:13.1e}\n")
        if options.fpfind:
            spent, answer = fpfind_s(a_ps, b_ps)
            write(f"{'':16s}fpfind {' '.join(FPFIND[:3])}: {spent:.1f} s, {spent / seconds:.0f} x ours: {answer}\n")


if __name__ == "__main__":
    main()
