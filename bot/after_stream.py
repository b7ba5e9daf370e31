"""What Twilio is told when a media stream has ended: a pure table over the saved call and the time.

    known and unfinished    RESUME    a new stream, at most `MAX_RESUMES` in `RESUMES_WITHIN_S`
    asked again at once     REPEAT    the same once more, not counted: the question comes by `action` and by the verb
                                      behind it, and for a verb that REST replaced, where the answer is thrown away
    resumed too often       NO_AGENT  a person, or voicemail
    being handed over       WAIT      the call is on its way to a person: nothing is touched
    over, or not known      HANG_UP   (whoever asks begins anew with a call that is not known and not over)

A hand-off whose carrier never reported within `HANDOVER_LIMIT_S` is not one any more.

Source: Twilio, `<Connect>` (`action`), and its change log of 2021-05-24 on verbs that a REST update replaces.
"""

import enum
from datetime import datetime, timedelta
from typing import Final

from store.calls import CallPhase, SavedCall

MAX_RESUMES: Final = 2
RESUMES_WITHIN_S: Final = 60.0
REPEATED_WITHIN_S: Final = 4.0
"""A question this soon behind an answer is the same one; Twilio's come within a second of each other."""
HANDOVER_LIMIT_S: Final = 20.0
"""From the hand-off's last sign of life, when it is the stream's end that asks."""


class AfterStream(enum.StrEnum):
    """What is answered; see the module."""

    RESUME = "resume"
    REPEAT = "repeat"
    NO_AGENT = "no_agent"
    WAIT = "wait"
    HANG_UP = "hang_up"


def after_stream(saved: SavedCall | None, now: datetime) -> AfterStream:
    """Decide.

    Args:
        saved: The call as the store has it, None if it has none.
        now: Aware.
    """
    if saved is None or saved.is_finished:
        return AfterStream.HANG_UP
    if saved.phase is CallPhase.HANDING_OVER and now - saved.updated_at < timedelta(seconds=HANDOVER_LIMIT_S):
        return AfterStream.WAIT
    if saved.resumes and now - saved.resumes[-1] < timedelta(seconds=REPEATED_WITHIN_S):
        return AfterStream.REPEAT
    recent = [at for at in saved.resumes if now - at < timedelta(seconds=RESUMES_WITHIN_S)]
    return AfterStream.NO_AGENT if len(recent) >= MAX_RESUMES else AfterStream.RESUME
