"""The lines every agent can need that no flow writes: spoken from the audio cache, never by the model.

One set per language; an agent whose language has none uses English.
"""

from dataclasses import dataclass

from bot.agent import AgentConfig
from bot.handoff_lines import own_lines
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
    fillers: tuple[str, ...]
    """Said in turn while an answer takes its time, should the agent have none of its own."""
    try_again: str
    """Said when an answer is asked for again because nothing came of it."""
    trouble_goodbye: str
    """The last words of a call that we could not answer."""
    cut_off: str
    """The first words on the new line of a call whose line broke off."""
    say_again: str
    """Said behind them to who was speaking."""


_LINES = {
    "en": FixedLines(
        still_there=("Are you still there?", "Hello? I can't hear you."),
        hold_on_over="Take your time. Are you still there?",
        no_speech_goodbye="I can't hear you, so I'll hang up now. Please call again. Goodbye.",
        no_person_goodbye="There seems to be nobody on the line, so I'll hang up now. Goodbye.",
        overflow="All our lines are busy right now. Please call again in a few minutes. Thank you.",
        max_length_goodbye="I'm sorry, we have to stop here. Please call again. Goodbye.",
        closing="Goodbye.",
        fillers=(
            "One moment, please.",
            "I'm still here, just a moment.",
            "Thanks for waiting, just a moment more.",
        ),
        try_again="I'm sorry, this is taking longer than it should. Let me try that again.",
        trouble_goodbye="I'm sorry, we are having trouble on our side. Please call again later. Goodbye.",
        cut_off="Sorry, we were cut off for a moment.",
        say_again="Could you say that again, please?",
    ),
    "de": FixedLines(
        still_there=("Sind Sie noch da?", "Hallo? Ich kann Sie nicht hören."),
        hold_on_over="Lassen Sie sich Zeit. Sind Sie noch da?",
        no_speech_goodbye="Ich kann Sie nicht hören und lege jetzt auf. Rufen Sie gern wieder an. Auf Wiederhören.",
        no_person_goodbye="Es scheint niemand in der Leitung zu sein, ich lege jetzt auf. Auf Wiederhören.",
        overflow="Im Moment sind alle Leitungen besetzt. Bitte rufen Sie in ein paar Minuten wieder an. Danke.",
        max_length_goodbye="Wir müssen hier leider aufhören. Rufen Sie gern wieder an. Auf Wiederhören.",
        closing="Auf Wiederhören.",
        fillers=(
            "Einen Moment, bitte.",
            "Ich bin noch da, einen Augenblick.",
            "Danke fürs Warten, ich bin gleich so weit.",
        ),
        try_again="Entschuldigung, das dauert länger als es sollte. Ich versuche es noch einmal.",
        trouble_goodbye="Entschuldigung, wir haben gerade eine Störung. Rufen Sie bitte später an. Auf Wiederhören.",
        cut_off="Entschuldigung, die Verbindung war kurz weg.",
        say_again="Könnten Sie das bitte noch einmal sagen?",
    ),
    "es": FixedLines(
        still_there=("¿Sigue ahí?", "¿Hola? No le oigo."),
        hold_on_over="Tómese su tiempo. ¿Sigue ahí?",
        no_speech_goodbye="No le oigo, así que voy a colgar. Vuelva a llamar cuando quiera. Adiós.",
        no_person_goodbye="Parece que no hay nadie en la línea, así que voy a colgar. Adiós.",
        overflow="Todas nuestras líneas están ocupadas. Vuelva a llamar en unos minutos, por favor. Gracias.",
        max_length_goodbye="Lo siento, tenemos que terminar aquí. Vuelva a llamar, por favor. Adiós.",
        closing="Adiós.",
        fillers=("Un momento, por favor.", "Sigo aquí, un momento.", "Gracias por esperar, ya casi está."),
        try_again="Disculpe, esto está tardando más de lo debido. Lo intento otra vez.",
        trouble_goodbye="Disculpe, tenemos un problema técnico. Vuelva a llamar más tarde, por favor. Adiós.",
        cut_off="Disculpe, se cortó un momento la línea.",
        say_again="¿Me lo puede repetir, por favor?",
    ),
    "fr": FixedLines(
        still_there=("Vous êtes toujours là ?", "Allô ? Je ne vous entends pas."),
        hold_on_over="Prenez votre temps. Vous êtes toujours là ?",
        no_speech_goodbye="Je ne vous entends pas, je vais raccrocher. N'hésitez pas à rappeler. Au revoir.",
        no_person_goodbye="Il semble qu'il n'y ait personne en ligne, je vais raccrocher. Au revoir.",
        overflow="Toutes nos lignes sont occupées. Merci de rappeler dans quelques minutes.",
        max_length_goodbye="Désolé, nous devons nous arrêter là. N'hésitez pas à rappeler. Au revoir.",
        closing="Au revoir.",
        fillers=(
            "Un instant, s'il vous plaît.",
            "Je suis toujours là, un instant.",
            "Merci de patienter, j'y suis presque.",
        ),
        try_again="Désolé, cela prend plus de temps que prévu. Je réessaie.",
        trouble_goodbye="Désolé, nous rencontrons un problème technique. Merci de rappeler plus tard. Au revoir.",
        cut_off="Désolé, nous avons été coupés un instant.",
        say_again="Pouvez-vous répéter, s'il vous plaît ?",
    ),
    "it": FixedLines(
        still_there=("È ancora in linea?", "Pronto? Non la sento."),
        hold_on_over="Faccia con calma. È ancora in linea?",
        no_speech_goodbye="Non la sento, quindi riaggancio. Richiami quando vuole. Arrivederci.",
        no_person_goodbye="Sembra che non ci sia nessuno in linea, quindi riaggancio. Arrivederci.",
        overflow="Al momento tutte le linee sono occupate. Richiami tra qualche minuto, per favore. Grazie.",
        max_length_goodbye="Mi dispiace, dobbiamo fermarci qui. Richiami quando vuole. Arrivederci.",
        closing="Arrivederci.",
        fillers=(
            "Un attimo, per favore.",
            "Sono ancora qui, un momento.",
            "Grazie per l'attesa, ci sono quasi.",
        ),
        try_again="Mi scusi, ci vuole più tempo del previsto. Provo di nuovo.",
        trouble_goodbye="Mi scusi, abbiamo un problema tecnico. Richiami più tardi, per favore. Arrivederci.",
        cut_off="Mi scusi, è caduta la linea per un momento.",
        say_again="Può ripetere, per favore?",
    ),
    "nl": FixedLines(
        still_there=("Bent u er nog?", "Hallo? Ik hoor u niet."),
        hold_on_over="Neem rustig de tijd. Bent u er nog?",
        no_speech_goodbye="Ik hoor u niet, dus ik hang op. Belt u gerust nog eens. Tot ziens.",
        no_person_goodbye="Er lijkt niemand aan de lijn te zijn, dus ik hang op. Tot ziens.",
        overflow="Op dit moment zijn al onze lijnen bezet. Belt u over een paar minuten terug. Dank u wel.",
        max_length_goodbye="Het spijt me, we moeten hier stoppen. Belt u gerust nog eens. Tot ziens.",
        closing="Tot ziens.",
        fillers=(
            "Een momentje, alstublieft.",
            "Ik ben er nog, een ogenblik.",
            "Bedankt voor het wachten, ik ben er bijna.",
        ),
        try_again="Sorry, dit duurt langer dan het hoort. Ik probeer het nog eens.",
        trouble_goodbye="Sorry, er is bij ons een storing. Belt u later nog eens. Tot ziens.",
        cut_off="Sorry, de verbinding viel even weg.",
        say_again="Kunt u dat nog eens zeggen, alstublieft?",
    ),
    "pt": FixedLines(
        still_there=("Ainda está aí?", "Estou sim? Não o consigo ouvir."),
        hold_on_over="Fique à vontade. Ainda está aí?",
        no_speech_goodbye="Não o consigo ouvir, por isso vou desligar. Volte a ligar quando quiser. Adeus.",
        no_person_goodbye="Parece que não há ninguém na linha, por isso vou desligar. Adeus.",
        overflow="De momento todas as linhas estão ocupadas. Volte a ligar daqui a uns minutos. Obrigado.",
        max_length_goodbye="Lamento, temos de ficar por aqui. Volte a ligar quando quiser. Adeus.",
        closing="Adeus.",
        fillers=(
            "Um momento, por favor.",
            "Ainda estou aqui, só um momento.",
            "Obrigado por esperar, está quase.",
        ),
        try_again="Desculpe, está a demorar mais do que devia. Vou tentar outra vez.",
        trouble_goodbye="Desculpe, estamos com um problema técnico. Volte a ligar mais tarde, por favor. Adeus.",
        cut_off="Desculpe, a ligação caiu por um momento.",
        say_again="Pode repetir, por favor?",
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
        "Let me look.",
        "Let me check.",
        "One moment, please.",
        "You're welcome.",
        "I'm here.",
        "Hello.",
        "Thanks for calling.",
        "Thank you for calling.",
        "Sure,",
        "Okay,",
        "Thanks,",
        "Great,",
        "Sorry,",
        "Of course,",
        "Let me read that back.",
        "One moment.",
        "I didn't catch that.",
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
        "Gerne,",
        "Okay,",
        "Gut,",
        "Danke,",
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
        "Claro,",
        "Vale,",
        "Perfecto,",
        "Gracias,",
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
        "Bien sûr,",
        "D'accord,",
        "Parfait,",
        "Merci,",
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
        "Certo,",
        "Va bene,",
        "Perfetto,",
        "Grazie,",
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
        "Prima,",
        "Natuurlijk,",
        "Oké,",
        "Bedankt,",
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
        "Claro,",
        "Certo,",
        "Perfeito,",
        "Obrigado,",
    ),
}


def openers(language: str) -> tuple[str, ...]:
    """Return the short lines that a reply in a language, e.g. `en-US`, may begin with; none if we know none.

    One that ends in a comma begins a sentence; another may go on with it.
    """
    return _OPENERS.get(language.partition("-")[0], ())


def fixed_lines(language: str) -> FixedLines:
    """Return the lines of a language, e.g. `en-US`."""
    return _LINES.get(language.partition("-")[0], _LINES["en"])


def stall_lines(config: AgentConfig) -> tuple[str, ...]:
    """Return what is said while an answer takes its time: the owner's lines, and ours if those are too few."""
    own = tuple(dict.fromkeys(config.patience.stall_lines))
    return own if len(own) > 1 else tuple(dict.fromkeys((*own, *fixed_lines(config.language).fillers)))


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
        *stall_lines(config),
        lines.try_again,
        lines.trouble_goodbye,
        *(own_lines(config.language) if config.handoff.humans or config.handoff.voicemail else ()),
        lines.cut_off,
        lines.say_again,
        *repair_lines(config.language),
        *openers(config.language),
    )
    return tuple(dict.fromkeys(said))
