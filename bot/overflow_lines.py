"""What the carrier's voice says around a call for which there was no room. One set per language."""

from dataclasses import dataclass


@dataclass(frozen=True)
class OverflowLines:
    """Spoken by the carrier, never by an agent's voice, which may be what there is no room for."""

    whisper: str
    """To the person who was rung; `{name}` is the business."""
    press: str
    """To the same, who has pressed nothing."""
    message: str
    """To the caller, before the tone."""


_LINES = {
    "en": OverflowLines(
        whisper="A call for {name}, because all lines are busy. Press 1 to take it.",
        press="Press 1 to take the call.",
        message="All our lines are busy right now. Please leave your name, your number and your message after the "
        "tone.",
    ),
    "de": OverflowLines(
        whisper="Ein Anruf für {name}, weil alle Leitungen besetzt sind. Drücken Sie die 1, um ihn anzunehmen.",
        press="Drücken Sie die 1, um den Anruf anzunehmen.",
        message="Im Moment sind alle Leitungen besetzt. Bitte sprechen Sie nach dem Ton Ihren Namen, Ihre Nummer und "
        "Ihre Nachricht.",
    ),
    "es": OverflowLines(
        whisper="Una llamada para {name}, porque todas las líneas están ocupadas. Pulse 1 para atenderla.",
        press="Pulse 1 para atender la llamada.",
        message="Todas nuestras líneas están ocupadas. Deje su nombre, su número y su mensaje después de la señal.",
    ),
    "fr": OverflowLines(
        whisper="Un appel pour {name}, car toutes les lignes sont occupées. Appuyez sur 1 pour le prendre.",
        press="Appuyez sur 1 pour prendre l'appel.",
        message="Toutes nos lignes sont occupées. Merci de laisser votre nom, votre numéro et votre message après le "
        "signal sonore.",
    ),
    "it": OverflowLines(
        whisper="Una chiamata per {name}, perché tutte le linee sono occupate. Prema 1 per rispondere.",
        press="Prema 1 per rispondere alla chiamata.",
        message="Al momento tutte le linee sono occupate. Lasci il nome, il numero e un messaggio dopo il segnale.",
    ),
    "nl": OverflowLines(
        whisper="Een gesprek voor {name}, omdat alle lijnen bezet zijn. Druk op 1 om het aan te nemen.",
        press="Druk op 1 om het gesprek aan te nemen.",
        message="Op dit moment zijn al onze lijnen bezet. Spreek na de toon uw naam, uw nummer en uw bericht in.",
    ),
    "pt": OverflowLines(
        whisper="Uma chamada para {name}, porque todas as linhas estão ocupadas. Prima 1 para a atender.",
        press="Prima 1 para atender a chamada.",
        message="De momento todas as linhas estão ocupadas. Deixe o seu nome, o seu número e a sua mensagem depois do "
        "sinal.",
    ),
}


def overflow_lines(language: str) -> OverflowLines:
    """Return the lines of a language, e.g. `en-US`; English for one that has none."""
    return _LINES.get(language.partition("-")[0], _LINES["en"])
