"""Paths of points as a simulated PWI4 collects them, and how it reads and refuses parameters."""

import math
from collections.abc import Mapping
from typing import Literal, NoReturn

import numpy as np

from drivers.simulators.horizon import from_j2000
from drivers.simulators.sky_paths import SkyPath, utc_of
from groundstation.passes.orbit import Site


class Refused(Exception):
    """Answered with this status."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


def number(query: Mapping[str, str], name: str) -> float:
    """A finite number. Raises Refused, or ValueError for what is none."""
    value = float(query.get(name) or bad(name))
    return value if math.isfinite(value) else bad(name)


def bad(name: str) -> NoReturn:
    raise Refused(400, f"Missing or invalid parameter: {name}")


class Points:
    """A path that is being made: new, points one by one or as a list, and then applied."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._points: list[tuple[int, float, float]] | None = None
        self._kind: Literal["altaz", "raw", "radec"] = "altaz"

    def begin(self, kind: Literal["altaz", "raw", "radec"]) -> None:
        self._points, self._kind = [], kind

    def begin_custom(self, query: Mapping[str, str]) -> None:
        kind = query.get("type")
        if kind not in ("altaz", "raw"):
            bad("type")
        self.begin("raw" if kind == "raw" else "altaz")

    def add_star(self, query: Mapping[str, str]) -> None:
        """Right ascension and declination of J2000 at a moment."""
        if self._points is None or self._kind != "radec":
            raise Refused(400, "There is no new path")
        point = (number(query, "ra_j2000_hours") * 15.0, number(query, "dec_j2000_degs"))
        self._points.append((_moment(query.get("jd") or bad("jd")), *point))

    def add_list(self, form: Mapping[str, str]) -> None:
        """Lines `jd,azimuth,altitude`."""
        if self._points is None or self._kind == "radec":
            raise Refused(400, "There is no new path")
        added = []
        for line in form.get("data", "").split():
            day, first, second = line.split(",")
            added.append((_moment(day), float(first), float(second)))
        self._points += added or bad("data")

    def path(self) -> tuple[SkyPath, int]:
        """What was made, and when it ends; then there is none any more."""
        points = self._points or []
        times = np.array([point[0] for point in points], dtype=np.int64)
        if len(points) < 2 or not (np.diff(times) > 0).all():
            raise Refused(400, "The path needs two or more points in the order of time")
        angles = [point[1:] for point in points]
        if self._kind == "radec":
            angles = [from_j2000(self._site, *angle, int(utc_ns)) for angle, utc_ns in zip(angles, times, strict=True)]
        self._points = None
        return SkyPath(times, np.array([a for a, _ in angles]), np.array([b for _, b in angles])), int(times[-1])


def _moment(day: str) -> int:
    """UTC ns of a Julian day in decimals."""
    return utc_of(day) if math.isfinite(float(day)) else bad("jd")
