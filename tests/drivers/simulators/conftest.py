"""Starts the real simulator programs and talks to them over real ptys and sockets, byte by byte."""

import json
import os
import select
import socket
import subprocess
import sys
import time

import pytest


class Program:
    """A running simulator; `ready` is the line that it announced itself with."""

    def __init__(self, module, arguments):
        command = [sys.executable, "-m", f"drivers.simulators.{module}", *map(str, arguments)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        line = self.process.stdout.readline()
        assert line, self.process.communicate()[1]
        self.ready = json.loads(line)

    def line(self, key="address"):
        return SerialEnd(self.ready[key].removeprefix("serial:"))

    def connect(self):
        host, port = self.ready["address"].removeprefix("tcp://").split(":")
        return socket.create_connection((host, int(port)), timeout=5.0)

    def end(self):
        self.process.terminate()
        _, errors = self.process.communicate(timeout=10)
        assert errors == ""


class SerialEnd:
    """The client's end of a serial line."""

    def __init__(self, path):
        self.fd = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)

    def write(self, data):
        os.write(self.fd, data)

    def read(self, size, timeout_s=3.0):
        """Exactly `size` bytes, fewer when they do not come in time."""
        data, deadline = b"", time.monotonic() + timeout_s
        while len(data) < size and (left := deadline - time.monotonic()) > 0:
            if select.select([self.fd], [], [], left)[0]:
                data += os.read(self.fd, size - len(data))
        return data

    def read_line(self, timeout_s=3.0):
        data, deadline = b"", time.monotonic() + timeout_s
        while not data.endswith(b"\r\n") and time.monotonic() < deadline:
            data += self.read(1, deadline - time.monotonic())
        return data

    def ask(self, request, size):
        self.write(request)
        return self.read(size)

    def ask_line(self, command):
        self.write(command)
        return self.read_line().decode()


def start_programs():
    programs = []

    def start_program(module, *arguments):
        programs.append(Program(module, arguments))
        return programs[-1]

    yield start_program
    for program in programs:
        program.end()


@pytest.fixture
def start():
    """Start a simulator by module name and options; it ends with the test."""
    yield from start_programs()


@pytest.fixture(scope="module")
def start_shared():
    """The same for a simulator that several tests of a module can share."""
    yield from start_programs()


@pytest.fixture
def eventually():
    """Poll until something is true."""

    def poll(condition, timeout_s=5.0):
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, "it did not become true in time"
            select.select([], [], [], 0.01)

    return poll
