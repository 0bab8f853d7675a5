"""ETA (etabackend) in an environment of its own, since it needs an older numpy than we do.

    python eta_peer.py FILE.ptu HALF_RANGE_PS BIN_PS ROUNDS

runs the recipe of correlations that comes with it and prints one line of JSON: CPU seconds of each round, seconds of
copying ten million int64, pairs found. CLOCK(..., n, 1) in its recipe remembers n starts and loses pairs without a
word when there are more; n is raised to 10,000 here.
"""

import json
import sys
import time
from pathlib import Path

import etabackend
import numpy as np
from etabackend.eta import ETA


def recipe(half_range_ps, bin_ps):
    path = Path(etabackend.__file__).parent / "static" / "recipes" / "Correlation-hydraharp.eta"
    parts = json.loads(path.read_text())
    table = json.loads(parts["eta_index_table"])
    for row in table:
        if row["name"] in ("bins", "binsize"):
            row["config"] = str(half_range_ps // bin_ps if row["name"] == "bins" else bin_ps)
    parts["eta_index_table"] = json.dumps(table)
    return {key: text.replace(",100,1)", ",10000,1)") if key.startswith("vi_") else text for key, text in parts.items()}


def main():
    path, half_range_ps, bin_ps, rounds = Path(sys.argv[1]), *map(int, sys.argv[2:])
    engine = ETA()
    engine.load_recipe(recipe(half_range_ps, bin_ps))
    source = np.arange(10_000_000)
    target = np.empty_like(source)
    spent, copying, found = [], [], 0
    for _ in range(rounds + 1):
        begin = time.process_time()
        np.copyto(target, source)
        middle = time.process_time()
        result = engine.run({"timetagger1": engine.clips(path)}, group="T2")
        spent.append(time.process_time() - middle)
        copying.append(middle - begin)
        found = int(np.sum(result["h3"]) + np.sum(result["h4"]) + np.sum(result["h4_zero"]))
    sys.stdout.write(json.dumps({"seconds": spent[1:], "copy_s": copying[1:], "found": found}) + "\n")


if __name__ == "__main__":
    main()
