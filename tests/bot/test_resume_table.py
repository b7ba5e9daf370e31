from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from bot.resume_table import ResumeKind, ResumeStep, resume_step
from store.calls import CallPhase, SavedCall

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)
ANNOUNCEMENT, GREETING = "This call is recorded.", "Northside, how can I help?"


def said(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def saved(*messages: dict[str, Any], **fields: Any) -> SavedCall:
    return SavedCall("CA1", "a", "+1", "p", CallPhase.LIVE, NOW, NOW, NOW, messages=messages, **fields)


TASK = {"role": "developer", "content": "Today"}
ASKED = {"role": "user", "content": "Book me in."}


@pytest.mark.parametrize(
    ("call", "step"),
    [
        (replace(saved(), phase=CallPhase.RINGING), ResumeStep(ResumeKind.GREET)),
        (replace(saved(TASK), phase=CallPhase.RINGING), ResumeStep(ResumeKind.GREET)),
        (saved(TASK), ResumeStep(ResumeKind.OPEN_AGAIN, GREETING, announces=True)),
        (saved(TASK, said("This call —")), ResumeStep(ResumeKind.OPEN_AGAIN, GREETING, announces=True)),
        (
            saved(TASK, said("This call is recorded. Northside, how —"), about_to_say=GREETING),
            ResumeStep(ResumeKind.OPEN_AGAIN, GREETING),
        ),
        (saved(TASK, said("x"), ASKED), ResumeStep(ResumeKind.ASK_MODEL)),
        (saved(TASK, ASKED, about_to_say="Which day?"), ResumeStep(ResumeKind.SAY, "Which day?")),
        (
            saved(TASK, ASKED, said("Sure. Which day?"), about_to_say="Which day?", is_caller_talking=True),
            ResumeStep(ResumeKind.SAY, "Which day?"),
        ),
        (
            saved(TASK, ASKED, said("We're at —"), about_to_say="We're at 412.", is_caller_talking=True),
            ResumeStep(ResumeKind.HEAR_AGAIN),
        ),
        (
            saved(TASK, ASKED, said("Which —"), about_to_say="Which day?", is_caller_talking=True),
            ResumeStep(ResumeKind.HEAR_AGAIN),
        ),
        (saved(TASK, ASKED, is_caller_talking=True), ResumeStep(ResumeKind.HEAR_AGAIN)),
        (
            saved(
                TASK,
                said("This call is recorded. Northside, how —"),
                about_to_say=GREETING,
                is_caller_talking=True,
            ),
            ResumeStep(ResumeKind.HEAR_AGAIN),
        ),
        (
            saved(TASK, said("This call —"), is_caller_talking=True),
            ResumeStep(ResumeKind.OPEN_AGAIN, GREETING, announces=True),
        ),
        (
            saved(TASK, ASKED, about_to_say="Goodbye.", is_ending=True, is_caller_talking=True),
            ResumeStep(ResumeKind.SAY_GOODBYE, "Goodbye."),
        ),
        (
            saved(TASK, ASKED, about_to_say="Goodbye.", is_ending=True),
            ResumeStep(ResumeKind.SAY_GOODBYE, "Goodbye."),
        ),
    ],
)
def test_what_comes_first_on_a_new_line(call: SavedCall, step: ResumeStep) -> None:
    assert resume_step(call, announcement=ANNOUNCEMENT, greeting=GREETING) == step


def test_without_an_announcement_none_is_said() -> None:
    step = resume_step(saved(TASK, said("Northside —")), announcement="", greeting=GREETING)
    assert step == ResumeStep(ResumeKind.OPEN_AGAIN, GREETING)
