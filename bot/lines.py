"""The lines every agent can need that no flow writes: spoken from the audio cache, never by the model.

One set per language; an agent whose language has none uses English.
"""

from dataclasses import dataclass

from bot.agent import AgentConfig
from processors.repair_lines import repair_lines


@dataclass(frozen=True)
class FixedLines:
    """What an agent says when nobody else decides."""

    still_there: tuple[str, ...]
    """Asked in turn when the caller says nothing."""
    hold_on_over: str
    """Asked when the caller wanted a moment and has not come back."""
    no_speech_goodbye: str
    no_person_goodbye: str
    """Said to hold music, or a recording that repeats itself."""
    overflow: str
    """Said by the carrier's voice when every line is taken."""
    max_length_goodbye: str
    closing: str
    """The last word of a call whose goodbye the caller spoke into."""


_LINES = {
    "en": FixedLines(
        still_there=("Are you still there?", "Hello? I can't hear you."),
        hold_on_over="Take your time. Are you still there?",
        no_speech_goodbye="I can't hear you, so I'll hang up now. Please call again. Goodbye.",
        no_person_goodbye="There seems to be nobody on the line, so I'll hang up now. Goodbye.",
        overflow="All our lines are busy right now. Please call again in a few minutes. Thank you.",
        max_length_goodbye="I'm sorry, we have to stop here. Please call again. Goodbye.",
        closing="Goodbye.",
    ),
    "de": FixedLines(
        still_there=("Sind Sie noch da?", "Hallo? Ich kann Sie nicht hören."),
        hold_on_over="Lassen Sie sich Zeit. Sind Sie noch da?",
        no_speech_goodbye="Ich kann Sie nicht hören und lege jetzt auf. Rufen Sie gern wieder an. Auf Wiederhören.",
        no_person_goodbye="Es scheint niemand in der Leitung zu sein, ich lege jetzt auf. Auf Wiederhören.",
        overflow="Im Moment sind alle Leitungen besetzt. Bitte rufen Sie in ein paar Minuten wieder an. Danke.",
        max_length_goodbye="Wir müssen hier leider aufhören. Rufen Sie gern wieder an. Auf Wiederhören.",
        closing="Auf Wiederhören.",
    ),
    "es": FixedLines(
        still_there=("¿Sigue ahí?", "¿Hola? No le oigo."),
        hold_on_over="Tómese su tiempo. ¿Sigue ahí?",
        no_speech_goodbye="No le oigo, así que voy a colgar. Vuelva a llamar cuando quiera. Adiós.",
        no_person_goodbye="Parece que no hay nadie en la línea, así que voy a colgar. Adiós.",
        overflow="Todas nuestras líneas están ocupadas. Vuelva a llamar en unos minutos, por favor. Gracias.",
        max_length_goodbye="Lo siento, tenemos que terminar aquí. Vuelva a llamar, por favor. Adiós.",
        closing="Adiós.",
    ),
    "fr": FixedLines(
        still_there=("Vous êtes toujours là ?", "Allô ? Je ne vous entends pas."),
        hold_on_over="Prenez votre temps. Vous êtes toujours là ?",
        no_speech_goodbye="Je ne vous entends pas, je vais raccrocher. N'hésitez pas à rappeler. Au revoir.",
        no_person_goodbye="Il semble qu'il n'y ait personne en ligne, je vais raccrocher. Au revoir.",
        overflow="Toutes nos lignes sont occupées. Merci de rappeler dans quelques minutes.",
        max_length_goodbye="Désolé, nous devons nous arrêter là. N'hésitez pas à rappeler. Au revoir.",
        closing="Au revoir.",
    ),
    "it": FixedLines(
        still_there=("È ancora in linea?", "Pronto? Non la sento."),
        hold_on_over="Faccia con calma. È ancora in linea?",
        no_speech_goodbye="Non la sento, quindi riaggancio. Richiami quando vuole. Arrivederci.",
        no_person_goodbye="Sembra che non ci sia nessuno in linea, quindi riaggancio. Arrivederci.",
        overflow="Al momento tutte le linee sono occupate. Richiami tra qualche minuto, per favore. Grazie.",
        max_length_goodbye="Mi dispiace, dobbiamo fermarci qui. Richiami quando vuole. Arrivederci.",
        closing="Arrivederci.",
    ),
    "nl": FixedLines(
        still_there=("Bent u er nog?", "Hallo? Ik hoor u niet."),
        hold_on_over="Neem rustig de tijd. Bent u er nog?",
        no_speech_goodbye="Ik hoor u niet, dus ik hang op. Belt u gerust nog eens. Tot ziens.",
        no_person_goodbye="Er lijkt niemand aan de lijn te zijn, dus ik hang op. Tot ziens.",
        overflow="Op dit moment zijn al onze lijnen bezet. Belt u over een paar minuten terug. Dank u wel.",
        max_length_goodbye="Het spijt me, we moeten hier stoppen. Belt u gerust nog eens. Tot ziens.",
        closing="Tot ziens.",
    ),
    "pt": FixedLines(
        still_there=("Ainda está aí?", "Estou sim? Não o consigo ouvir."),
        hold_on_over="Fique à vontade. Ainda está aí?",
        no_speech_goodbye="Não o consigo ouvir, por isso vou desligar. Volte a ligar quando quiser. Adeus.",
        no_person_goodbye="Parece que não há ninguém na linha, por isso vou desligar. Adeus.",
        overflow="De momento todas as linhas estão ocupadas. Volte a ligar daqui a uns minutos. Obrigado.",
        max_length_goodbye="Lamento, temos de ficar por aqui. Volte a ligar quando quiser. Adeus.",
        closing="Adeus.",
    ),
}

MAX_OPENERS = 32
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
        "Sorry, I didn't catch that.",
        "You're welcome.",
        "I'm here.",
        "Hello.",
        "Thanks for calling.",
        "Thank you for calling.",
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
        "Danke für Ihren Anruf.",
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
        "Gracias por llamar.",
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
        "Merci de votre appel.",
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
        "Grazie per aver chiamato.",
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
        "Bedankt voor het bellen.",
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
        "Obrigado por ligar.",
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
    announced = (config.announcement.say,) if config.announcement is not None else ()
    said = (
        *announced,
        config.greeting,
        *lines.still_there,
        lines.hold_on_over,
        lines.no_speech_goodbye,
        lines.no_person_goodbye,
        lines.max_length_goodbye,
        lines.closing,
        *config.patience.stall_lines,
        *repair_lines(config.language),
        *openers(config.language),
    )
    return tuple(dict.fromkeys(said))
