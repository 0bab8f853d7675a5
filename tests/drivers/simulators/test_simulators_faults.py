"""The faults between an instrument and its reader: each does what it says, to the reply that it says."""

from hypothesis import given
from hypothesis import strategies as st

from drivers.simulators.faults import Faults, Spoiled, Spoiler


def spoiler(**faults) -> Spoiler:
    return Spoiler(Faults(**faults), lambda: b"<unasked>")


def replies(spoiling, *data, since_start_s=1.0):
    return [b"".join(spoiling.spoil(reply, since_start_s).parts) for reply in data]


@given(st.lists(st.binary(max_size=20), max_size=10))
def test_without_faults_every_reply_arrives_as_it_is(data):
    spoiling = spoiler()
    assert replies(spoiling, *data) == data
    assert spoiling.delay_s() == 0.0


def test_a_mute_instrument_says_nothing_from_its_moment_on():
    spoiling = spoiler(mute_after_s=2.0)
    assert replies(spoiling, b"yes", since_start_s=1.9) == [b"yes"]
    assert spoiling.spoil(b"no", 2.0) == Spoiled((), False)


def test_replies_are_delayed_late_or_lost():
    assert [spoiler(reply_delay_s=0.5).delay_s() for _ in range(2)] == [0.5, 0.5]
    late = spoiler(late_every=3, late_by_s=9.0, reply_delay_s=1.0)
    assert [late.delay_s() for _ in range(6)] == [1.0, 1.0, 10.0, 1.0, 1.0, 10.0]
    lossy = spoiler(drop_reply_every=2)
    assert [lossy.delay_s() for _ in range(4)] == [0.0, None, 0.0, None]


def test_every_nth_reply_misses_a_byte_or_has_one_twice():
    assert replies(spoiler(drop_byte_every=2), b"abcde", b"abcde", b"", b"a") == [b"abcde", b"abde", b"", b""]
    assert replies(spoiler(double_byte_every=2), b"abcde", b"abcde") == [b"abcde", b"abccde"]


def test_unsolicited_words_are_glued_in_front_of_every_nth_reply():
    assert replies(spoiler(unsolicited_every=2), b"1", b"2", b"3", b"4") == [b"1", b"<unasked>2", b"3", b"<unasked>4"]


@given(st.binary(min_size=1, max_size=50))
def test_split_replies_are_whole_when_they_are_joined(data):
    parts = spoiler(split_replies=True).spoil(data, 0.0).parts
    assert b"".join(parts) == data
    assert all(parts)
    assert len(parts) == min(3, len(data)) or len(data) == 4  # which makes two of two


def test_the_line_is_closed_after_so_many_replies():
    spoiling = spoiler(hang_up_after=2)
    assert [spoiling.spoil(b"x", 0.0).hang_up for _ in range(3)] == [False, True, False]


def test_the_echo_of_the_command_comes_before_the_reply(start):
    line = start("mount_nexstar", "--faults", '{"echo": true}', "--pty").line()
    assert line.ask(b"Kx", 4) == b"Kxx#"


def test_the_far_end_hangs_up_and_takes_the_next_client(start):
    program = start("mount_nexstar", "--faults", '{"hang_up_after": 1}', "--address", "tcp://127.0.0.1:0")
    for _ in range(2):  # each client's line has faults of its own
        with program.connect() as client:
            client.sendall(b"Kx")
            received = b""
            while data := client.recv(100):
                received += data
            assert received == b"x#"


def test_a_reader_that_is_slow_loses_nothing_over_tcp(start):
    program = start("detector_spd", "--address", "tcp://127.0.0.1:0")
    with program.connect() as client:
        client.sendall(b"HELP\n" * 20_000)  # several megabytes of answers, far more than the buffers hold
        received = b""
        while received.count(b"HELP\r\n") < 20_000:
            data = client.recv(1 << 20)
            assert data, "it hung up"
            received += data
    assert len(received) % 20_000 == 0
    assert set(received.split(b"HELP\r\n")[:-1]) == {received.split(b"HELP\r\n")[0]}
