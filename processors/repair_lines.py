"""What the agent says when it could not hear the caller: fixed lines, one set per language, never by the model.

Played from the audio cache; an agent whose language has none uses English.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class RepairLines:
    """The lines of one language. Each group has at least two, none in common: nothing is said twice in a row."""

    first: tuple[str, ...]
    """After a turn that could not be heard."""
    again: tuple[str, ...]
    """From the second such turn in a row on."""
    did_i_hear: str
    """How the model is to ask; `{words}` is what may be misheard."""


_LINES = {
    "en": RepairLines(
        first=(
            "Sorry, I didn't catch that. Could you say it again?",
            "I'm sorry, could you say that once more?",
        ),
        again=(
            "Sorry, the line is not good. Could you say that again?",
            "I still can't hear you well. Could you say it again, a little slower?",
        ),
        did_i_hear="Did I hear {words} right?",
    ),
    "de": RepairLines(
        first=(
            "Entschuldigung, das habe ich nicht verstanden. Können Sie das noch einmal sagen?",
            "Verzeihung, könnten Sie das bitte wiederholen?",
        ),
        again=(
            "Entschuldigung, die Verbindung ist schlecht. Können Sie das noch einmal sagen?",
            "Ich höre Sie leider immer noch schlecht. Könnten Sie es etwas langsamer wiederholen?",
        ),
        did_i_hear="Habe ich {words} richtig verstanden?",
    ),
    "es": RepairLines(
        first=(
            "Perdone, no le he entendido. ¿Me lo puede repetir?",
            "Disculpe, ¿puede decirlo otra vez?",
        ),
        again=(
            "Perdone, la línea no es buena. ¿Me lo puede repetir?",
            "Todavía no le oigo bien. ¿Puede repetirlo un poco más despacio?",
        ),
        did_i_hear="¿He entendido bien: {words}?",
    ),
    "fr": RepairLines(
        first=(
            "Excusez-moi, je n'ai pas compris. Pouvez-vous répéter ?",
            "Pardon, pourriez-vous le redire ?",
        ),
        again=(
            "Excusez-moi, la ligne est mauvaise. Pouvez-vous répéter ?",
            "Je vous entends encore mal. Pourriez-vous répéter un peu plus lentement ?",
        ),
        did_i_hear="Ai-je bien entendu {words} ?",
    ),
    "it": RepairLines(
        first=(
            "Mi scusi, non ho capito. Può ripetere?",
            "Scusi, potrebbe dirlo ancora una volta?",
        ),
        again=(
            "Mi scusi, la linea è disturbata. Può ripetere?",
            "La sento ancora male. Potrebbe ripetere un po' più lentamente?",
        ),
        did_i_hear="Ho capito bene {words}?",
    ),
    "nl": RepairLines(
        first=(
            "Sorry, dat heb ik niet verstaan. Kunt u het nog eens zeggen?",
            "Excuses, kunt u dat herhalen?",
        ),
        again=(
            "Sorry, de verbinding is slecht. Kunt u dat nog eens zeggen?",
            "Ik versta u nog steeds niet goed. Kunt u het wat langzamer herhalen?",
        ),
        did_i_hear="Heb ik {words} goed verstaan?",
    ),
    "pt": RepairLines(
        first=(
            "Desculpe, não entendi. Pode repetir?",
            "Perdão, pode dizer isso mais uma vez?",
        ),
        again=(
            "Desculpe, a ligação não está boa. Pode repetir?",
            "Ainda não ouço bem. Pode repetir um pouco mais devagar?",
        ),
        did_i_hear="Entendi bem: {words}?",
    ),
}


def lines_of(language: str) -> RepairLines:
    """Return the lines of a language, e.g. `en-US`."""
    return _LINES.get(language.partition("-")[0].lower(), _LINES["en"])


def repair_lines(language: str) -> tuple[str, ...]:
    """Return every line that can be asked for in a language: what is rendered ahead of calls."""
    lines = lines_of(language)
    return (*lines.first, *lines.again)
