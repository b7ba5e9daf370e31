"""The lines every agent can need that no flow writes: spoken from the audio cache, never by the model.

One set per language; an agent whose language has none uses English.
"""

from dataclasses import dataclass

from bot.agent import AgentConfig


@dataclass(frozen=True)
class FixedLines:
    """What an agent says when nobody else decides."""

    still_there: tuple[str, ...]
    """Asked in turn when the caller says nothing."""
    no_speech_goodbye: str
    overflow: str
    """Said by the carrier's voice when every line is taken."""
    max_length_goodbye: str
    closing: str
    """The last word of a call whose goodbye the caller spoke into."""


_LINES = {
    "en": FixedLines(
        still_there=("Are you still there?", "Hello? I can't hear you."),
        no_speech_goodbye="I can't hear you, so I'll hang up now. Please call again. Goodbye.",
        overflow="All our lines are busy right now. Please call again in a few minutes. Thank you.",
        max_length_goodbye="I'm sorry, we have to stop here. Please call again. Goodbye.",
        closing="Goodbye.",
    ),
}


def fixed_lines(language: str) -> FixedLines:
    """Return the lines of a language, e.g. `en-US`."""
    return _LINES.get(language.partition("-")[0], _LINES["en"])


def cacheable_lines(config: AgentConfig) -> tuple[str, ...]:
    """Every line of an agent that is rendered ahead of calls, the greeting first."""
    lines = fixed_lines(config.language)
    said = (
        config.greeting,
        *lines.still_there,
        lines.no_speech_goodbye,
        lines.max_length_goodbye,
        lines.closing,
        *config.patience.stall_lines,
    )
    return tuple(dict.fromkeys(said))
