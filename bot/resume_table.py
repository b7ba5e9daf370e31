"""What the agent does first on a new line of a call that was cut. A pure table.

nothing heard yet, nobody has spoken        GREET       as on the first line
greeting or announcement was cut            OPEN_AGAIN  sorry; the announcement if it was not heard whole; the rest
the caller's turn is answered, or asked     SAY         sorry; the sentence that was cut, and what follows it, or
                                                        the question that waits for its answer
the caller was in the middle of a turn that HEAR_AGAIN  sorry; they are asked to say it again
answers no question of the agent's
the caller waits for the model              ASK_MODEL   sorry; the model answers their last words again
the goodbye was being said                  SAY_GOODBYE sorry; it is said, and the call ends
"""

import enum
from dataclasses import dataclass

from bot.saved_context import Message, heard_since_caller
from store.calls import CallPhase, SavedCall


class ResumeKind(enum.Enum):
    """What comes first; see the module."""

    GREET = "greet"
    OPEN_AGAIN = "open_again"
    HEAR_AGAIN = "hear_again"
    SAY = "say"
    ASK_MODEL = "ask_model"
    SAY_GOODBYE = "say_goodbye"


@dataclass(frozen=True)
class ResumeStep:
    """What is done first."""

    kind: ResumeKind
    text: str = ""
    """What is said behind "sorry", with `SAY`, `SAY_GOODBYE` and `OPEN_AGAIN`."""
    announces: bool = False
    """Whether the announcement is said once more."""


def resume_step(saved: SavedCall, *, announcement: str, greeting: str) -> ResumeStep:
    """Decide from what was saved.

    Args:
        saved: The call.
        announcement: Of the agent, "" without one.
        greeting: Of the agent, "" without one.
    """
    heard = heard_since_caller(saved.messages, "")
    has_caller_spoken = any(_is_callers(message) for message in saved.messages)
    announces = not has_caller_spoken and bool(announcement) and not _contains(heard, announcement)
    is_question = saved.about_to_say.rstrip().endswith("?") and _contains(heard, saved.about_to_say)
    if saved.is_caller_talking and not (is_question or announces or saved.is_ending):
        return ResumeStep(ResumeKind.HEAR_AGAIN)
    if not has_caller_spoken:
        if not heard and saved.phase is CallPhase.RINGING:
            return ResumeStep(ResumeKind.GREET)
        text = greeting if announces else saved.about_to_say or greeting
        return ResumeStep(ResumeKind.OPEN_AGAIN, text, announces=announces)
    if saved.is_ending:
        return ResumeStep(ResumeKind.SAY_GOODBYE, saved.about_to_say)
    if saved.about_to_say:
        return ResumeStep(ResumeKind.SAY, saved.about_to_say)
    return ResumeStep(ResumeKind.ASK_MODEL)


def _is_callers(message: Message) -> bool:
    return message.get("role") == "user"


def _contains(heard: str, text: str) -> bool:
    """Whether all words of `text` were heard one behind the other."""
    return f" {_plain(text)} " in f" {_plain(heard)} "


def _plain(text: str) -> str:
    words = ("".join(filter(str.isalnum, word)).casefold() for word in text.split())
    return " ".join(word for word in words if word)
