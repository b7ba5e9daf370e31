from hypothesis import given
from hypothesis import strategies as st

from sims.playout import MAX_BUFFERED_SAMPLES, DryRun, PlayoutBuffer


def test_sound_plays_from_where_it_arrived_and_queues_behind_what_is_there() -> None:
    buffer = PlayoutBuffer()
    buffer.push(b"a" * 100, now=37)
    buffer.push(b"b" * 50, now=40)

    assert buffer.take(200) == b"\xff" * 37 + b"a" * 100 + b"b" * 50 + b"\xff" * 13
    assert buffer.tail == 187


def test_taking_in_pieces_gives_the_same_as_taking_at_once() -> None:
    buffer = PlayoutBuffer()
    buffer.push(bytes(range(200)), now=5)

    assert (
        buffer.take(100) + buffer.take(100) + buffer.take(210)
        == b"\xff" * 5 + bytes(range(200)) + b"\xff" * 5
    )


def test_a_mark_is_due_when_the_last_sample_before_it_was_played_not_a_packet_later() -> None:
    buffer = PlayoutBuffer()
    buffer.push(b"a" * 333, now=0)
    buffer.mark("end", now=1)

    assert buffer.next_mark_at == 333
    assert buffer.due_marks(332) == []
    assert buffer.due_marks(333) == ["end"]
    assert buffer.next_mark_at is None


def test_a_mark_with_nothing_buffered_is_due_at_once() -> None:
    buffer = PlayoutBuffer()
    buffer.push(b"a" * 100, now=0)
    buffer.mark("late", now=500)

    assert buffer.due_marks(500) == ["late"]


def test_clear_returns_every_mark_in_order_and_drops_what_was_not_played() -> None:
    buffer = PlayoutBuffer()
    for name in ("one", "two", "three"):
        buffer.push(b"a" * 100, now=0)
        buffer.mark(name, now=0)

    assert buffer.clear(now=130) == 170
    assert buffer.due_marks(130) == ["one", "two", "three"]
    assert buffer.take(400) == b"a" * 130 + b"\xff" * 270


def test_sound_after_a_clear_plays_normally_and_the_pause_is_no_dry_run() -> None:
    buffer = PlayoutBuffer()
    buffer.push(b"a" * 1000, now=0)
    buffer.clear(now=100)
    buffer.push(b"b" * 10, now=900)

    assert buffer.take(1000) == b"a" * 100 + b"\xff" * 800 + b"b" * 10 + b"\xff" * 90
    assert buffer.dry_runs == []


def test_running_dry_is_noted_to_the_sample() -> None:
    buffer = PlayoutBuffer()
    buffer.push(b"a" * 160, now=0)
    buffer.push(b"a" * 160, now=160)
    buffer.push(b"a" * 160, now=401)

    assert buffer.dry_runs == [DryRun(320, 401)]


def test_a_flood_is_refused_and_counted() -> None:
    buffer = PlayoutBuffer()
    buffer.push(b"a" * MAX_BUFFERED_SAMPLES, now=0)
    buffer.push(b"b" * 160, now=0)

    assert buffer.overflow_samples == 160
    assert buffer.tail == MAX_BUFFERED_SAMPLES


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["push", "mark", "clear", "take"]),
            st.integers(0, 400),  # time that passes first
            st.integers(1, 600),  # length of a push
        ),
        max_size=40,
    )
)
def test_time_is_never_lost_marks_keep_their_order_and_everything_is_played_once(
    steps: list[tuple[str, int, int]],
) -> None:
    buffer, now, names, returned = PlayoutBuffer(), 0, 0, list[str]()
    pushed, dropped, played = 0, 0, bytearray()
    for kind, wait, length in steps:
        now += wait
        if kind == "push":
            buffer.push(b"x" * length, now)
            pushed += length
        elif kind == "mark":
            buffer.mark(f"{names:03}", now)
            names += 1
        elif kind == "clear":
            dropped += buffer.clear(now)
            assert buffer.next_mark_at is None or buffer.next_mark_at <= now
        else:
            played += buffer.take(now)
            assert len(played) == now
        returned += buffer.due_marks(now)
    played += buffer.take(now + 100_000)
    returned += buffer.due_marks(now + 100_000)

    assert len(played) == now + 100_000
    assert played.count(b"x") == pushed - dropped
    assert returned == sorted(returned)
    assert len(returned) == names
