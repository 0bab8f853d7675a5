"""The frame of a sealed file: names, descriptions and mandatory fields of the Photon-HDF5 format.

The format wants every object outside `/user` to carry its official description as the attribute TITLE.
Source: the specification's field list, version 0.5, https://photon-hdf5.readthedocs.io.
"""

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import h5py
import numpy as np

from groundstation.clock import NS_PER_S, SystemClock, utc_text
from groundstation.core.tags import CHANNELS, DETECTORS

TIMESTAMPS = "photon_data/timestamps"
DETECTOR_IDS = "photon_data/detectors"

_FORMAT_NAME = b"Photon-HDF5"
_FORMAT_VERSION = b"0.5"
_FORMAT_URL = b"http://photon-hdf5.org/"

_TITLES = {
    "/": "A file format for photon-counting detector based single-molecule spectroscopy experiments.",
    "acquisition_duration": "Measurement duration in seconds.",
    "description": "A user-defined comment describing the data file.",
    "format_name": "Name of the file format.",
    "format_version": "Version for the Photon-HDF5 format.",
    "photon_data": "Group containing arrays of photon-data.",
    "photon_data/timestamps": (
        "Array of photon timestamps. Units specified in timestamps_units (defined in timestamps_specs/)."
    ),
    "photon_data/detectors": "Array of pixel IDs for each timestamp.",
    "photon_data/timestamps_specs": "Specifications for timestamps.",
    "photon_data/timestamps_specs/timestamps_unit": "Value of 1-unit timestamp-increment in seconds.",
    "setup": "Information about the experimental setup.",
    "setup/num_pixels": "Total number of detector pixels.",
    "setup/num_spots": 'Number of excitation (or detection) "spots" in the sample.',
    "setup/num_spectral_ch": "Number of distinct spectral bands which are acquired.",
    "setup/num_polarization_ch": "Number of distinct polarization states which are acquired.",
    "setup/num_split_ch": (
        "Number of distinct detection channels detecting the same spectral band and polarization. "
        "This value is > 1 when using a non-polarizing beam splitter."
    ),
    "setup/modulated_excitation": (
        "True (i.e. 1) if there is any form of excitation modulation of excitation wavelength "
        "(as in us-ALEX or PAX) or polarization. "
        "This field is also True for pulse-interleaved excitation (PIE) or ns-ALEX measurements."
    ),
    "setup/excitation_alternated": (
        "New in version 0.5. Indicates whether each excitation source is alternated (True, or 1) "
        "or not alternated (False, or 0)."
    ),
    "setup/lifetime": (
        "True (i.e. 1) if the measurement includes a nanotimes array of photon arrival times "
        "with respect to a laser pulse (as in TCSPC measurements)."
    ),
    "setup/detectors": (
        "Metadata relative to each detector's pixel. "
        "Each field is an array with size equal to the number of the detectors."
    ),
    "setup/detectors/id": "Detector IDs as they appear on /photon_data/detectors.",
    "setup/detectors/label": "Labels (strings) describing each detector.",
    "setup/detectors/counts": "Total number of counts detected by each detector.",
    "identity": "Information about the Photon-HDF5 data file.",
    "identity/creation_time": "Creation time of the current Photon-HDF5 file.",
    "identity/software": "Name of the software used to create the current Photon-HDF5 file.",
    "identity/software_version": "Version of the software used to create current the Photon-HDF5 file.",
    "identity/format_name": "Name of the file format.",
    "identity/format_version": "Version for the Photon-HDF5 format.",
    "identity/format_url": "Official URL for the Photon-HDF5 format.",
    "provenance": "Information about the original data file.",
    "provenance/filename": "File name of the original data file before conversion to Photon-HDF5.",
    "provenance/software": "Software used to save the original data file.",
    "provenance/software_version": "Version of the software used to save the original data file.",
    "user": "A user-defined group.",
}


def write_frame(
    file: h5py.File,
    source_name: str,
    description: str,
    duration_s: float,
    counts: np.ndarray,
    names: Mapping[int, str] | None = None,
) -> None:
    """Write all that the format wants beside the two arrays of tags, which must be there already.

    `counts`: (256,) how many tags each channel number has. `source_name`: the recording the tags come from.
    `names`: the channels of an imported recording; without, those of a pass, whose detectors are the pixels.
    """
    software_version = version("groundstation").encode()
    pixels = len(DETECTORS) if names is None else max(1, len(names))
    names = dict(enumerate(CHANNELS)) if names is None else names
    channels = np.flatnonzero((counts > 0) | np.isin(np.arange(256), list(names)))
    labels = [names.get(c, f"channel {c}").encode() for c in channels.tolist()]
    fields: dict[str, Any] = {
        "acquisition_duration": np.float64(duration_s),
        "description": np.bytes_(description.encode()),
        "format_name": np.bytes_(_FORMAT_NAME),
        "format_version": np.bytes_(_FORMAT_VERSION),
        "photon_data/timestamps_specs/timestamps_unit": np.float64(1e-12),
        "setup/num_pixels": np.int64(pixels),
        "setup/num_spots": np.int64(1),
        "setup/num_spectral_ch": np.int64(1),
        "setup/num_polarization_ch": np.int64(pixels),
        "setup/num_split_ch": np.int64(1),
        "setup/modulated_excitation": np.uint8(1),
        "setup/excitation_alternated": np.zeros(1, np.uint8),
        "setup/lifetime": np.uint8(0),
        "setup/detectors/id": channels.astype(np.uint8),
        "setup/detectors/label": np.array(labels, dtype="S"),
        "setup/detectors/counts": counts[channels],
        "identity/creation_time": np.bytes_(_creation_time()),
        "identity/software": np.bytes_(b"groundstation"),
        "identity/software_version": np.bytes_(software_version),
        "identity/format_name": np.bytes_(_FORMAT_NAME),
        "identity/format_version": np.bytes_(_FORMAT_VERSION),
        "identity/format_url": np.bytes_(_FORMAT_URL),
        "provenance/filename": np.bytes_(source_name.encode()),
        "provenance/software": np.bytes_(b"groundstation"),
        "provenance/software_version": np.bytes_(software_version),
    }
    for path, value in fields.items():
        file[path] = value
    file.attrs["format_name"] = np.bytes_(_FORMAT_NAME)
    file.attrs["format_version"] = np.bytes_(_FORMAT_VERSION)
    file.attrs["format_url"] = np.bytes_(_FORMAT_URL)
    for path, title in _TITLES.items():
        file[path].attrs["TITLE"] = np.bytes_(title.encode())


def _creation_time() -> bytes:
    """Now, in the form that the format prescribes: 2016-12-19 16:52:13."""
    return utc_text(SystemClock().utc_ns() // NS_PER_S * NS_PER_S, 0).replace("T", " ").removesuffix("Z").encode()
