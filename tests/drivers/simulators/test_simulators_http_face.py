"""The HTTP side of the simulators and its faults, spoken to with the standard library's client and plain sockets."""

import http.client
import json
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.simulators.http_face import parse_request


def host_and_port(program):
    host, port = program.ready["address"].removeprefix("http://").split(":")
    return host, int(port)


def ask(program, path="/status", method="GET", body=None, timeout_s=5.0):
    connection = http.client.HTTPConnection(*host_and_port(program), timeout=timeout_s)
    try:
        connection.request(method, path, body=body)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_a_request_may_come_byte_by_byte(start):
    program = start("mount_pwi4")
    with socket.create_connection(host_and_port(program), timeout=5.0) as client:
        for byte in b"GET /status HTTP/1.1\r\nHost: me\r\n\r\n":
            client.send(bytes((byte,)))
        received = b""
        while data := client.recv(4096):
            received += data
    assert received.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"mount.is_connected=false\n" in received


def test_what_is_no_http_is_answered_with_400(start):
    program = start("mount_pwi4")
    with socket.create_connection(host_and_port(program), timeout=5.0) as client:
        client.sendall(b"*IDN?\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("status", [404, 500])
def test_every_third_request_fails_as_it_was_told_to(start, status):
    program = start("mount_pwi4", "--faults", json.dumps({"special": [f"http_{status}"]}))
    assert [ask(program)[0] for _ in range(6)] == [200, 200, status, 200, 200, status]


def test_broken_json_ends_in_its_middle_and_says_so(start):
    program = start("mount_alpaca", "--faults", '{"special": ["broken_json"]}')
    bodies = [ask(program, "/management/apiversions")[1] for _ in range(3)]
    assert json.loads(bodies[1])["Value"] == [1]
    with pytest.raises(ValueError, match=r"Unterminated|Expecting|delimiter"):
        json.loads(bodies[2])


def test_a_hang_up_comes_in_the_middle_of_the_answer_and_counts_over_all_connections(start):
    program = start("mount_pwi4", "--faults", '{"hang_up_after": 2}')
    assert ask(program)[0] == 200
    with pytest.raises(http.client.IncompleteRead):
        ask(program)
    assert ask(program)[0] == 200


def test_a_mute_server_accepts_and_never_answers(start):
    program = start("mount_pwi4", "--faults", '{"mute_after_s": 0}')
    with pytest.raises(TimeoutError):
        ask(program, timeout_s=0.3)


def test_a_split_answer_is_the_same_answer(start):
    program = start("mount_alpaca", "--faults", '{"split_replies": true}')
    assert json.loads(ask(program, "/management/apiversions")[1])["Value"] == [1]


def test_only_the_loopback_interface_is_served(start):
    with pytest.raises(AssertionError, match="loopback"):
        start("mount_pwi4", "--address", "http://192.0.2.1:8220")


@given(st.binary(max_size=200))
def test_any_bytes_are_a_request_an_incomplete_one_or_none(data):
    try:
        parse_request(data + b"\r\n\r\n")
    except ValueError:
        return
