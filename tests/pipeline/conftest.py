"""One recording of the pass near its culmination and one far away, made once for all tests of this folder."""

import shutil
from types import SimpleNamespace

import pytest
from pipeline_samples import InProcessTransmitter, Session, flown, make_scene, read_all, record, report_of

from groundstation.recording.reader import open_recording


def make_pass(directory, scene):
    """The scene recorded and analysed live: `report` is what every other way has to arrive at."""
    record(scene, directory)
    result, transmitter = flown(directory, scene)
    return SimpleNamespace(
        scene=scene, directory=directory, result=result, report=report_of(result), transmitter=transmitter
    )


@pytest.fixture(scope="session")
def scene():
    """6.3 s around the culmination: 22,000 clicks a second."""
    return make_scene(after_culmination_s=-3.0, window_s=6.3)


@pytest.fixture(scope="session")
def near_pass(scene, tmp_path_factory):
    """The near scene, recorded and analysed live. Not to be written to."""
    return make_pass(tmp_path_factory.mktemp("near") / "recording", scene)


@pytest.fixture(scope="session")
def far_pass(tmp_path_factory):
    """2.2 s at a range of 1,150 km: few tags, for what costs time per tag. Not to be written to."""
    return make_pass(tmp_path_factory.mktemp("far") / "recording", make_scene(124.0, 2.2, margin_s=1.0))


@pytest.fixture
def near_copy(near_pass, tmp_path):
    """A copy of the near recording, answers included, that a test may damage."""
    return shutil.copytree(near_pass.directory, tmp_path / "recording")


@pytest.fixture
def fly(tmp_path):
    """Record a scene and analyse it live; returns the session."""

    def fly_scene(scene, transmitter=None, **recording):
        directory = record(scene, tmp_path / "recording", **recording)
        return Session(directory, transmitter or InProcessTransmitter(scene)).finish()

    return fly_scene


@pytest.fixture(scope="session")
def far_answers(far_pass):
    """The answers stream of the far recording, as its segments."""
    return read_all(open_recording(far_pass.directory), "answers")
