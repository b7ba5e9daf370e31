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

MAX_OPENERS = 24
"""Each is rendered once per voice and rate, and looked for in the first words of every reply."""

_OPENERS = {
    "en": (
        "Sure.",
        "Okay.",
        "Thanks.",
        "Great.",
        "Of course.",
        "Certainly.",
        "Perfect.",
        "All right.",
        "Got it.",
        "Thank you.",
        "No problem.",
        "Absolutely.",
        "I see.",
        "I understand.",
        "Sure, let me look.",
        "Let me look.",
        "Let me check.",
        "Thanks, let me read that back.",
        "Great, one moment.",
        "One moment, please.",
    ),
    "de": (
        "Gerne.",
        "Okay.",
        "Gut.",
        "Danke.",
        "Vielen Dank.",
        "Alles klar.",
        "In Ordnung.",
        "Natürlich.",
        "Selbstverständlich.",
        "Perfekt.",
        "Verstehe.",
        "Kein Problem.",
        "Einen Moment, bitte.",
        "Ich schaue kurz nach.",
    ),
    "es": (
        "Claro.",
        "Por supuesto.",
        "De acuerdo.",
        "Vale.",
        "Muy bien.",
        "Perfecto.",
        "Gracias.",
        "Entendido.",
        "Con mucho gusto.",
        "No hay problema.",
        "Un momento, por favor.",
        "Déjeme ver.",
    ),
    "fr": (
        "Bien sûr.",
        "D'accord.",
        "Très bien.",
        "Parfait.",
        "Merci.",
        "Entendu.",
        "Avec plaisir.",
        "Je comprends.",
        "Pas de problème.",
        "Un instant, s'il vous plaît.",
        "Je regarde.",
    ),
    "it": (
        "Certo.",
        "Va bene.",
        "D'accordo.",
        "Perfetto.",
        "Benissimo.",
        "Grazie.",
        "Capisco.",
        "Volentieri.",
        "Nessun problema.",
        "Un attimo, per favore.",
        "Controllo subito.",
    ),
    "nl": (
        "Prima.",
        "Natuurlijk.",
        "Zeker.",
        "Goed.",
        "Oké.",
        "Bedankt.",
        "Dank u wel.",
        "Begrepen.",
        "Geen probleem.",
        "Een momentje, alstublieft.",
        "Ik kijk even.",
    ),
    "pt": (
        "Claro.",
        "Com certeza.",
        "Certo.",
        "Perfeito.",
        "Muito bem.",
        "Entendi.",
        "Está bem.",
        "Com prazer.",
        "Sem problema.",
        "Um momento, por favor.",
        "Vou verificar.",
    ),
}


def openers(language: str) -> tuple[str, ...]:
    """Return the short lines that a reply in a language, e.g. `en-US`, may begin with; none if we know none."""
    return _OPENERS.get(language.partition("-")[0], ())


def fixed_lines(language: str) -> FixedLines:
    """Return the lines of a language, e.g. `en-US`."""
    return _LINES.get(language.partition("-")[0], _LINES["en"])


def cacheable_lines(config: AgentConfig) -> tuple[str, ...]:
    """Every line of an agent that is rendered ahead of calls, the greeting first, what replies open with last."""
    lines = fixed_lines(config.language)
    said = (
        config.greeting,
        *lines.still_there,
        lines.no_speech_goodbye,
        lines.max_length_goodbye,
        lines.closing,
        *config.patience.stall_lines,
        *openers(config.language),
    )
    return tuple(dict.fromkeys(said))
