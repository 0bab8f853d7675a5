"""Telemetry and events come back from the recording in order, whoever wrote them and whatever the disk does."""

import json
import os
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from operation_samples import eventually

from groundstation.clock import NS_PER_S, SimulatedClock, monotonic_ns
from groundstation.operation.logbook import Logbook
from groundstation.pipeline.telemetry import MOUNT_COLUMNS, PATH_COLUMNS, Telemetry
from groundstation.recording.files import Files
from groundstation.recording.manifest import create_recording
from groundstation.recording.reader import open_recording
from groundstation.recording.writer import StreamWriter

PATH = {name: np.arange(5, dtype=np.float64) for name in PATH_COLUMNS} | {"utc_ns": np.arange(5) * NS_PER_S}


def open_logbook(directory, files=None):
    run_id = create_recording(directory, {"mode": "live"})
    disk = files or Files()
    telemetry = StreamWriter(directory, "telemetry", run_id, disk)
    clock = SimulatedClock(10**18, monotonic_ns(), 10.0)
    return Logbook(telemetry, StreamWriter(directory, "events", run_id, disk), clock)


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "recording"


@pytest.fixture
def logbook(directory):
    return open_logbook(directory)


def table(directory, stream, name):
    """All rows of a table, by column."""
    segments = open_recording(directory).stream(stream).poll(10**6)
    tables = [segment.tables[name] for segment in segments if name in segment.tables]
    return {column: np.concatenate([t[column] for t in tables]) for column in tables[0]} if tables else {}


def entries(directory):
    return [json.loads(text) for text in table(directory, "events", "events")["text"]]


def mount_row(number):
    """utc, azimuth, elevation, uncertainty, two rates, error, used."""
    return number * NS_PER_S, 10.0 + number, 20.0, 1e-3, 5.0, -5.0, 1.5, number % 2


def test_the_path_is_there_before_anything_else(logbook, directory):
    logbook.begin(PATH)
    first = open_recording(directory).stream("telemetry").poll(1)[0]
    assert np.array_equal(first.tables["path"]["utc_ns"], PATH["utc_ns"])
    logbook.close()


def test_what_was_written_is_read_back_in_order(logbook, directory):
    logbook.begin(PATH)
    for number in range(50):
        logbook.mount(*mount_row(number))
        logbook.detector(number * NS_PER_S, number % 4, 190.0, -20.0, 1_000.0 + number)
        logbook.event("note", f"entry {number}", number=number)
    logbook.close()
    mount, detectors = table(directory, "telemetry", "mount"), table(directory, "telemetry", "detectors")
    assert mount["utc_ns"].tolist() == [number * NS_PER_S for number in range(50)]
    assert list(zip(*(mount[name] for name in MOUNT_COLUMNS), strict=True))[3] == (3 * NS_PER_S, 13.0, 20.0, 1.5, 1)
    assert detectors["counts_hz"].tolist() == [1_000.0 + number for number in range(50)]
    events = table(directory, "events", "events")
    assert events["sequence"].tolist() == list(range(50))
    assert np.all(np.diff(events["utc_ns"]) >= 0)
    assert [entry["number"] for entry in entries(directory)] == list(range(50))
    for stream in ("telemetry", "events"):
        reader = open_recording(directory).stream(stream)
        reader.poll(10**6)
        assert reader.complete


def test_the_analysis_reads_the_telemetry_that_operation_writes(logbook, directory):
    logbook.begin(PATH)
    for number in range(10):
        logbook.mount(*mount_row(number))
    logbook.close()
    telemetry = Telemetry(open_recording(directory).stream("telemetry"))
    while telemetry.poll():
        pass
    assert np.array_equal(telemetry.path["utc_ns"], PATH["utc_ns"])
    readings = telemetry.mount(2 * NS_PER_S, 8 * NS_PER_S)
    assert readings["utc_ns"].tolist() == [number * NS_PER_S for number in (3, 5, 7)], "inside, and well timed"


def test_entries_of_many_threads_keep_the_order_of_each(logbook, directory):
    logbook.begin(PATH)

    def write(name):
        for number in range(100):
            logbook.event("note", name, number=number)

    threads = [threading.Thread(target=write, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    logbook.close()
    found = entries(directory)
    for name in "abc":
        assert [entry["number"] for entry in found if entry["sentence"] == name] == list(range(100))
    assert table(directory, "events", "events")["sequence"].tolist() == list(range(300))


def test_entries_are_durable_long_before_the_end(logbook, directory):
    logbook.begin(PATH)
    logbook.event("alarm", "something")
    assert logbook.last_event == "something"
    eventually(lambda: bool(table(directory, "events", "events")), timeout_s=5.0)
    assert [entry["kind"] for entry in entries(directory)] == ["alarm"]
    logbook.close()


@settings(max_examples=15, deadline=None)
@given(sentences=st.lists(st.text(), max_size=5))
def test_any_sentence_is_read_back_as_it_was_written(tmp_path_factory, sentences):
    directory = tmp_path_factory.mktemp("log") / "recording"
    logbook = open_logbook(directory)
    for sentence in sentences:
        logbook.event("note", sentence)
    logbook.close()
    if sentences:
        assert [entry["sentence"] for entry in entries(directory)] == sentences


def test_a_log_nothing_happened_in_is_two_streams_that_ended(logbook, directory):
    logbook.begin(PATH)
    logbook.close()
    assert table(directory, "events", "events") == {}
    assert open_recording(directory).stream("events").poll(5)[-1].end


def test_a_disk_that_fails_is_told_and_stops_nobody(directory):
    full = threading.Event()

    def write(descriptor, data):
        if full.is_set():
            raise OSError(28, "No space left on device")
        return os.write(descriptor, data)

    logbook = open_logbook(directory, Files(write=write))
    logbook.begin(PATH)
    assert logbook.failure == ""
    full.set()
    logbook.event("note", "into the void")
    eventually(lambda: logbook.failure, timeout_s=5.0)
    assert "No space left on device" in logbook.failure
    logbook.event("note", "nobody reads this")
    logbook.mount(*mount_row(1))
    logbook.close()
    assert not open_recording(directory).stream("telemetry").poll(5)[-1].end
