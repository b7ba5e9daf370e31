"""Who is rung, what came of it, and where the caller goes: the table alone."""

from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.handoff_table import Handoff, HandoffOutcome, HandoffState, Place, RingOutcome

HUMANS = ("+15551230000", "+15551230001")
State = HandoffState


def ringing(
    humans: tuple[str, ...] = HUMANS, *, takes_voicemail: bool = True, can_agent_talk: bool = True
) -> Handoff:
    return Handoff(humans, takes_voicemail=takes_voicemail, can_agent_talk=can_agent_talk).announced()


def dialled(handoff: Handoff, status: str, *, is_bridged: bool | None = False) -> Handoff:
    return handoff.dial_over(handoff.human, status=status, is_bridged=is_bridged)


def test_a_person_who_presses_one_has_the_call() -> None:
    handoff = ringing()
    assert (handoff.state, handoff.place) == (State.RINGING, Place.PERSON)
    handoff = handoff.picked_up(0)
    assert (handoff.state, handoff.place) == (State.BRIEFING, Place.PERSON)
    handoff = handoff.pressed(0, "1")
    assert (handoff.state, handoff.place) == (State.ACCEPTED, Place.PERSON)
    handoff = dialled(handoff, "completed", is_bridged=True)
    assert (handoff.state, handoff.place) == (State.OVER, Place.HANG_UP)
    assert (handoff.outcome, handoff.rings) == (HandoffOutcome.ACCEPTED, (RingOutcome.ACCEPTED,))
    assert not handoff.is_callback_owed


@pytest.mark.parametrize(
    ("picks_up", "keys", "status", "outcome"),
    [
        (False, [], "busy", RingOutcome.BUSY),
        (False, [], "no-answer", RingOutcome.NO_ANSWER),
        (False, [], "failed", RingOutcome.FAILED),
        (False, [], "canceled", RingOutcome.FAILED),
        (False, [], "completed", RingOutcome.FAILED),
        (True, ["2"], "completed", RingOutcome.DECLINED),
        (True, [None], "completed", RingOutcome.MACHINE),
        (True, [], "completed", RingOutcome.HUNG_UP),
        (True, ["1"], "completed", RingOutcome.FAILED),
        (True, ["2", "1"], "completed", RingOutcome.DECLINED),
    ],
)
def test_what_became_of_a_ring_is_told_by_our_own_record_first(
    picks_up: bool, keys: list[str | None], status: str, outcome: RingOutcome
) -> None:
    handoff = ringing()
    if picks_up:
        handoff = handoff.picked_up(0)
    for key in keys:
        handoff = handoff.pressed(0, key)
    handoff = dialled(handoff, status)
    assert handoff.rings == (outcome,)
    assert (handoff.state, handoff.human) == (State.RINGING, 1)


def test_a_carrier_that_does_not_tell_of_the_bridge_is_believed_by_the_key() -> None:
    handoff = dialled(ringing().pressed(0, "1"), "completed", is_bridged=None)
    assert handoff.outcome is HandoffOutcome.ACCEPTED


@pytest.mark.parametrize(
    ("statuses", "takes_voicemail", "can_agent_talk", "place"),
    [
        (["busy", "no-answer"], True, True, Place.AGENT),
        (["no-answer", "no-answer"], True, True, Place.VOICEMAIL),
        (["no-answer", "no-answer"], False, True, Place.AGENT),
        (["busy", "busy"], True, False, Place.VOICEMAIL),
        (["busy", "busy"], False, False, Place.GOODBYE),
        (["failed", "failed"], True, True, Place.VOICEMAIL),
    ],
)
def test_where_the_caller_goes_when_nobody_comes(
    statuses: list[str], takes_voicemail: bool, can_agent_talk: bool, place: Place
) -> None:
    handoff = ringing(takes_voicemail=takes_voicemail, can_agent_talk=can_agent_talk)
    for status in statuses:
        assert handoff.place is Place.PERSON
        handoff = dialled(handoff, status)
    assert handoff.place is place
    assert handoff.is_callback_owed is (place in (Place.VOICEMAIL, Place.GOODBYE))


def test_out_of_hours_nobody_is_rung() -> None:
    before = Handoff((), takes_voicemail=True, can_agent_talk=True)
    assert before.place is Place.VOICEMAIL
    voicemail = before.announced()
    assert (voicemail.state, voicemail.place, voicemail.rings) == (State.VOICEMAIL, Place.VOICEMAIL, ())
    done = voicemail.recorded()
    assert (done.outcome, done.place) == (HandoffOutcome.VOICEMAIL, Place.HANG_UP)
    assert done.is_callback_owed


def test_a_caller_who_leaves_is_known_for_what_they_left() -> None:
    assert ringing().left().outcome is HandoffOutcome.CALLER_LEFT
    assert ringing().pressed(0, "1").left().outcome is HandoffOutcome.ACCEPTED
    assert ringing(()).left().outcome is HandoffOutcome.VOICEMAIL
    over = dialled(ringing().pressed(0, "1"), "completed", is_bridged=True)
    assert over.left() is over


def test_an_agent_that_cannot_take_the_caller_back_leaves_them_to_the_voicemail() -> None:
    back = dialled(ringing(HUMANS[:1]), "busy")
    assert back.place is Place.AGENT
    assert back.refused_by_agent().place is Place.VOICEMAIL
    back = dialled(ringing(HUMANS[:1], takes_voicemail=False), "busy")
    assert back.refused_by_agent().place is Place.GOODBYE
    accepted = dialled(ringing().pressed(0, "1"), "completed", is_bridged=True)
    assert accepted.refused_by_agent() is accepted


Event = Callable[[Handoff], Handoff]
HUMAN = st.integers(0, 3)
EVENTS: st.SearchStrategy[Event] = st.one_of(
    st.just(lambda handoff: handoff.announced()),
    st.builds(lambda human: lambda handoff: handoff.picked_up(human), HUMAN),
    st.builds(
        lambda human, key: lambda handoff: handoff.pressed(human, key),
        HUMAN,
        st.sampled_from([None, "1", "2", "9"]),
    ),
    st.builds(
        lambda human, status, bridged: (
            lambda handoff: handoff.dial_over(human, status=status, is_bridged=bridged)
        ),
        HUMAN,
        st.sampled_from(["completed", "answered", "busy", "no-answer", "failed", "canceled", "surprise"]),
        st.sampled_from([None, True, False]),
    ),
    st.just(lambda handoff: handoff.recorded()),
    st.just(lambda handoff: handoff.left()),
)
STARTS = st.builds(
    Handoff,
    st.lists(st.sampled_from(HUMANS), max_size=3).map(tuple),
    takes_voicemail=st.booleans(),
    can_agent_talk=st.booleans(),
)


@given(STARTS, st.lists(EVENTS, max_size=30))
def test_whatever_comes_in_whatever_order_nobody_is_rung_twice_and_the_end_is_the_end(
    start: Handoff, events: list[Event]
) -> None:
    steps = [start]
    for event in events:
        steps.append(event(steps[-1]))
        assert event(steps[-1]) is steps[-1], "a webhook that is repeated changes something"
    for before, after in pairwise(steps):
        assert after.human - before.human in (0, 1)
        assert len(after.rings) - len(before.rings) in (0, 1)
        if before.is_over:
            assert after is before
    last = steps[-1]
    assert len(last.rings) <= len(last.humans)
    assert (last.outcome is not None) == last.is_over
    accepted = [ring for ring in last.rings if ring is RingOutcome.ACCEPTED]
    assert len(accepted) <= 1
    if accepted:
        assert (last.outcome, last.place) == (HandoffOutcome.ACCEPTED, Place.HANG_UP)
    if last.outcome is HandoffOutcome.BACK_WITH_AGENT:
        assert last.can_agent_talk
    if last.state is State.VOICEMAIL:
        assert last.takes_voicemail


@given(STARTS, st.sampled_from(["busy", "no-answer", "failed", "completed"]))
def test_it_ends_after_each_was_rung_once(start: Handoff, status: str) -> None:
    handoff = start.announced()
    for _ in start.humans:
        handoff = dialled(handoff, status)
    handoff = handoff.recorded()
    assert handoff.is_over
    assert len(handoff.rings) == len(start.humans)
