"""Loss between the transmitter's exit and the detectors: the published pass by range, and the pointing."""

import numpy as np
from numpy.typing import NDArray

from groundstation.simulation.parameters import LinkParameters

#: Channel loss in dB, detector efficiency excluded, against range every 2 km from 645 km (the last entry is at
#: 1,200 km): Liao 2017, figure 3, as digitised in the quantum network examples of Baidu's QCompute (Apache-2.0),
#: averaged here over 2 km. It is not monotone: the real sky was not either.
_FIRST_KM, _STEP_KM, _LAST_KM = 645.0, 2.0, 1_200.0
# fmt: off
_LOSS_DB = np.array([
    29.75, 29.98, 30.28, 30.04, 29.89, 29.97, 29.60, 29.54, 29.90, 30.29, 30.62, 30.13, 29.70, 29.41, 29.57, 29.95,
    30.24, 30.92, 31.32, 30.84, 30.50, 30.85, 31.33, 30.85, 31.04, 30.96, 30.74, 30.35, 30.81, 31.31, 31.43, 30.71,
    30.01, 30.15, 30.42, 30.67, 31.43, 31.76, 31.80, 31.46, 31.05, 31.36, 31.36, 31.36, 31.36, 31.37, 31.55, 31.64,
    31.16, 31.03, 31.33, 31.26, 30.89, 30.90, 30.91, 31.44, 31.81, 31.26, 30.48, 30.70, 31.08, 31.17, 31.37, 31.36,
    31.36, 31.52, 31.83, 31.58, 31.19, 31.02, 30.90, 31.04, 31.53, 31.69, 31.43, 31.35, 30.97, 30.91, 30.81, 30.91,
    31.11, 31.37, 31.25, 30.89, 30.91, 30.81, 30.90, 31.09, 31.08, 31.45, 31.83, 31.81, 31.38, 31.37, 31.71, 31.92,
    32.03, 32.23, 32.25, 31.87, 31.82, 31.99, 31.93, 31.99, 32.57, 32.51, 32.39, 32.28, 32.26, 31.96, 31.96, 32.31,
    32.28, 32.28, 32.29, 32.34, 32.52, 32.57, 32.47, 32.05, 31.83, 31.97, 32.07, 32.13, 32.25, 32.29, 32.37, 32.29,
    32.39, 33.35, 33.66, 33.78, 34.54, 34.52, 33.40, 32.97, 32.89, 32.40, 32.29, 32.37, 32.29, 32.28, 32.45, 32.54,
    32.65, 32.96, 32.97, 32.97, 32.97, 33.01, 33.74, 33.89, 33.72, 32.68, 32.52, 32.51, 32.61, 32.51, 32.71, 32.79,
    32.74, 32.74, 32.74, 32.76, 33.28, 33.21, 33.29, 33.21, 33.16, 33.31, 33.67, 33.67, 33.57, 33.67, 33.59, 34.41,
    34.58, 34.68, 34.16, 34.12, 34.20, 34.89, 35.02, 34.98, 35.04, 35.05, 34.15, 33.28, 33.29, 33.51, 33.66, 33.67,
    33.57, 33.66, 33.58, 34.31, 34.58, 34.77, 35.33, 35.41, 35.33, 35.50, 35.51, 35.51, 35.51, 35.51, 35.50, 35.38,
    35.35, 35.33, 35.41, 35.39, 35.27, 35.15, 35.05, 35.47, 36.43, 36.42, 36.28, 36.05, 35.97, 35.94, 35.89, 35.95,
    35.85, 36.29, 36.26, 36.22, 35.97, 35.98, 36.24, 37.18, 37.12, 37.10, 36.89, 36.90, 37.14, 37.92, 37.81, 37.90,
    38.26, 38.27, 38.19, 37.23, 37.35, 37.26, 36.90, 36.89, 36.94, 37.45, 37.34, 37.44, 37.16, 37.18, 37.19, 38.04,
    38.27, 38.10, 38.46, 38.73, 38.61, 38.80, 38.75, 38.72, 38.53, 38.34, 38.36, 38.12, 38.04, 38.04, 38.14, 38.35,
    38.26, 38.54, 38.73, 38.94, 39.06, 39.82, 40.34,
])
# fmt: on
_RANGE_KM = np.minimum(_FIRST_KM + _STEP_KM * np.arange(_LOSS_DB.size), _LAST_KM)
#: Beyond the published range the beam goes on spreading: loss grows as the square of the range.
_EDGE_DB = float(np.mean(_LOSS_DB[-20:]))


def channel_transmittance(range_km: NDArray[np.floating], link: LinkParameters) -> NDArray[np.float64]:
    """Share of the light at the transmitter's exit that reaches the detectors (n,), pointing apart."""
    loss_db = np.interp(range_km, _RANGE_KM, _LOSS_DB)
    beyond = range_km > _LAST_KM
    loss_db = np.where(beyond, _EDGE_DB + 20 * np.log10(np.maximum(range_km, _LAST_KM) / _LAST_KM), loss_db)
    return np.asarray(link.cloud_transmittance * 10 ** (-loss_db / 10))


def coupling(pointing_error_arcsec: NDArray[np.floating], link: LinkParameters) -> NDArray[np.float64]:
    """Share of the light that enters the receiver's field stop (n,): Gaussian in the pointing error."""
    return np.asarray(np.exp(-2.0 * (pointing_error_arcsec / link.coupling_half_width_arcsec) ** 2))
