"""What is said around a hand-off: to the caller by the agent's voice or the carrier's, and to the person who is rung.

One set per language; an agent whose language has none uses English. Plain data and pure functions; the agent's own
lines are rendered ahead of calls like every fixed line.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from bot.handoff_reasons import HandoffReason


@dataclass(frozen=True)
class HandoffLines:
    """Lines of one language. `{…}` is filled in."""

    # By the agent's own voice.
    putting_through: str
    not_helping: str
    """The same, when the caller could not be helped well."""
    trouble: str
    """The same, when something of ours is broken."""
    to_voicemail: str
    """Nobody is there at this hour."""
    trouble_to_voicemail: str
    nobody_free: str
    """The agent is back."""
    # By the carrier's voice.
    nobody_can_come: str
    call_back: str
    """`{when}` is a day and a time."""
    leave_message: str
    leave_number: str
    """The same, when it is not known whom to call back."""
    thanks: str
    goodbye: str
    fallback: str
    """Said when nothing of ours can be reached, to somebody who may just have talked to a person."""
    # To the person who is rung.
    caller_for: str
    """`{business}` is its name."""
    name: str
    """`{name}` is the caller's."""
    no_name: str
    about: str
    """`{about}` is what they want."""
    last_words: str
    """`{words}` is what they said last."""
    reasons: Mapping[HandoffReason, str]
    """Why they are put through."""
    slots: Mapping[str, str]
    """What else is known of them: key to its label."""
    keys: str
    """What to press."""


def handoff_lines(language: str) -> HandoffLines:
    """Return the lines of a language, e.g. `en-US`."""
    return _LINES.get(language.partition("-")[0], _LINES["en"])


def own_lines(language: str) -> tuple[str, ...]:
    """Return what the agent's own voice says, to be rendered ahead of calls."""
    lines = handoff_lines(language)
    return (
        lines.putting_through,
        lines.not_helping,
        lines.trouble,
        lines.to_voicemail,
        lines.trouble_to_voicemail,
        lines.nobody_free,
    )


def announcement(language: str, reason: HandoffReason, *, is_anybody_there: bool) -> str:
    """Return what the caller is told first."""
    lines = handoff_lines(language)
    if reason.is_ours:
        return lines.trouble if is_anybody_there else lines.trouble_to_voicemail
    if not is_anybody_there:
        return lines.to_voicemail
    return lines.putting_through if reason is HandoffReason.ASKED else lines.not_helping


_R = HandoffReason

_LINES = {
    "en": HandoffLines(
        putting_through="I'll put you through to somebody now. One moment, please.",
        not_helping="I'm sorry, I'm not being much help. Let me put you through to a person. One moment, please.",
        trouble="I'm sorry, we are having trouble on our side. I'll put you through to a person. One moment, please.",
        to_voicemail="There is nobody here right now who could take your call. One moment, please.",
        trouble_to_voicemail="I'm sorry, we are having trouble on our side. One moment, please.",
        nobody_free="I'm sorry, nobody is free to talk right now. Shall I take a message?",
        nobody_can_come="I'm sorry, nobody can come to the phone right now.",
        call_back="We will call you back by {when}.",
        leave_message="Please leave a message after the tone, and hang up when you are done.",
        leave_number="Please say your name and your phone number after the tone, and hang up when you are done.",
        thanks="Thank you.",
        goodbye="Goodbye.",
        fallback="If you still need us, please leave a message with your name and number after the tone.",
        caller_for="A caller for {business}.",
        name="The name is {name}.",
        no_name="They have not said their name.",
        about="It is about: {about}.",
        last_words="They said last: {words}.",
        reasons={
            _R.ASKED: "They asked for a person.",
            _R.FAILED_TURNS: "We could not understand them.",
            _R.UNSURE: "We could hardly understand them.",
            _R.FRUSTRATED: "They are unhappy with the assistant.",
            _R.REPEATED: "They had to say the same thing again and again.",
            _R.MODEL: "Our assistant has broken down.",
            _R.VOICE: "Our assistant has lost its voice.",
            _R.RECOGNISER: "Our assistant cannot hear them.",
            _R.STUCK: "Our assistant is stuck.",
        },
        slots={
            "phone": "Phone number",
            "service": "Appointment for",
            "day": "Day",
            "time": "Time",
            "booked": "Booked",
            "message": "Message",
        },
        keys="Press 1 to take the call, or 2 to decline.",
    ),
    "de": HandoffLines(
        putting_through="Ich verbinde Sie jetzt. Einen Moment, bitte.",
        not_helping="Entschuldigung, ich bin Ihnen keine große Hilfe. Ich verbinde Sie. Einen Moment, bitte.",
        trouble="Entschuldigung, wir haben gerade eine Störung. Ich verbinde Sie. Einen Moment, bitte.",
        to_voicemail="Im Moment ist niemand da, der Ihren Anruf annehmen kann. Einen Moment, bitte.",
        trouble_to_voicemail="Entschuldigung, wir haben gerade eine Störung. Einen Moment, bitte.",
        nobody_free="Es tut mir leid, im Moment ist niemand frei. Soll ich etwas ausrichten?",
        nobody_can_come="Es tut uns leid, im Moment kann niemand ans Telefon kommen.",
        call_back="Wir rufen Sie bis {when} zurück.",
        leave_message="Bitte hinterlassen Sie nach dem Ton eine Nachricht und legen Sie danach auf.",
        leave_number="Bitte nennen Sie nach dem Ton Ihren Namen und Ihre Nummer und legen Sie danach auf.",
        thanks="Vielen Dank.",
        goodbye="Auf Wiederhören.",
        fallback="Wenn Sie uns noch brauchen, nennen Sie bitte nach dem Ton Ihren Namen und Ihre Nummer.",
        caller_for="Ein Anruf für {business}.",
        name="Der Name ist {name}.",
        no_name="Einen Namen haben wir nicht.",
        about="Es geht um: {about}.",
        last_words="Zuletzt gesagt: {words}.",
        reasons={
            _R.ASKED: "Es wurde nach einem Menschen gefragt.",
            _R.FAILED_TURNS: "Wir konnten den Anrufer nicht verstehen.",
            _R.UNSURE: "Wir konnten den Anrufer kaum verstehen.",
            _R.FRUSTRATED: "Der Anrufer ist unzufrieden mit dem Assistenten.",
            _R.REPEATED: "Der Anrufer musste sich immer wiederholen.",
            _R.MODEL: "Unser Assistent ist ausgefallen.",
            _R.VOICE: "Unser Assistent hat keine Stimme mehr.",
            _R.RECOGNISER: "Unser Assistent hört nichts mehr.",
            _R.STUCK: "Unser Assistent kommt nicht weiter.",
        },
        slots={
            "phone": "Telefonnummer",
            "service": "Termin für",
            "day": "Tag",
            "time": "Zeit",
            "booked": "Gebucht",
            "message": "Nachricht",
        },
        keys="Drücken Sie die 1, um den Anruf anzunehmen, oder die 2, um abzulehnen.",
    ),
    "es": HandoffLines(
        putting_through="Le paso con una persona. Un momento, por favor.",
        not_helping="Disculpe, no le estoy ayudando mucho. Le paso con una persona. Un momento, por favor.",
        trouble="Disculpe, tenemos un problema técnico. Le paso con una persona. Un momento, por favor.",
        to_voicemail="Ahora mismo no hay nadie que pueda atender su llamada. Un momento, por favor.",
        trouble_to_voicemail="Disculpe, tenemos un problema técnico. Un momento, por favor.",
        nobody_free="Lo siento, ahora mismo no hay nadie libre. ¿Quiere que tome un recado?",
        nobody_can_come="Lo sentimos, ahora mismo nadie puede ponerse al teléfono.",
        call_back="Le devolveremos la llamada antes de {when}.",
        leave_message="Deje su mensaje después de la señal y cuelgue cuando haya terminado.",
        leave_number="Diga su nombre y su número después de la señal y cuelgue cuando haya terminado.",
        thanks="Gracias.",
        goodbye="Adiós.",
        fallback="Si todavía nos necesita, diga su nombre y su número después de la señal.",
        caller_for="Una llamada para {business}.",
        name="El nombre es {name}.",
        no_name="No ha dicho su nombre.",
        about="Se trata de: {about}.",
        last_words="Lo último que dijo: {words}.",
        reasons={
            _R.ASKED: "Ha pedido hablar con una persona.",
            _R.FAILED_TURNS: "No hemos podido entenderle.",
            _R.UNSURE: "Apenas hemos podido entenderle.",
            _R.FRUSTRATED: "No está contento con el asistente.",
            _R.REPEATED: "Ha tenido que repetir lo mismo varias veces.",
            _R.MODEL: "Nuestro asistente no funciona.",
            _R.VOICE: "Nuestro asistente se ha quedado sin voz.",
            _R.RECOGNISER: "Nuestro asistente no puede oírle.",
            _R.STUCK: "Nuestro asistente está bloqueado.",
        },
        slots={
            "phone": "Teléfono",
            "service": "Cita para",
            "day": "Día",
            "time": "Hora",
            "booked": "Reservado",
            "message": "Mensaje",
        },
        keys="Pulse 1 para aceptar la llamada o 2 para rechazarla.",
    ),
    "fr": HandoffLines(
        putting_through="Je vous passe quelqu'un. Un instant, s'il vous plaît.",
        not_helping="Désolé, je ne vous aide pas beaucoup. Je vous passe quelqu'un. Un instant, s'il vous plaît.",
        trouble="Désolé, nous avons un problème technique. Je vous passe quelqu'un. Un instant, s'il vous plaît.",
        to_voicemail="Personne ne peut prendre votre appel en ce moment. Un instant, s'il vous plaît.",
        trouble_to_voicemail="Désolé, nous avons un problème technique. Un instant, s'il vous plaît.",
        nobody_free="Désolé, personne n'est libre pour l'instant. Voulez-vous laisser un message ?",
        nobody_can_come="Désolé, personne ne peut venir au téléphone en ce moment.",
        call_back="Nous vous rappellerons avant {when}.",
        leave_message="Laissez un message après le bip, puis raccrochez.",
        leave_number="Dites votre nom et votre numéro après le bip, puis raccrochez.",
        thanks="Merci.",
        goodbye="Au revoir.",
        fallback="Si vous avez encore besoin de nous, dites votre nom et votre numéro après le bip.",
        caller_for="Un appel pour {business}.",
        name="Le nom est {name}.",
        no_name="La personne n'a pas dit son nom.",
        about="C'est au sujet de : {about}.",
        last_words="Dernières paroles : {words}.",
        reasons={
            _R.ASKED: "La personne a demandé à parler à quelqu'un.",
            _R.FAILED_TURNS: "Nous n'avons pas pu la comprendre.",
            _R.UNSURE: "Nous l'avons à peine comprise.",
            _R.FRUSTRATED: "Elle est mécontente de l'assistant.",
            _R.REPEATED: "Elle a dû répéter plusieurs fois la même chose.",
            _R.MODEL: "Notre assistant est en panne.",
            _R.VOICE: "Notre assistant n'a plus de voix.",
            _R.RECOGNISER: "Notre assistant n'entend plus.",
            _R.STUCK: "Notre assistant est bloqué.",
        },
        slots={
            "phone": "Téléphone",
            "service": "Rendez-vous pour",
            "day": "Jour",
            "time": "Heure",
            "booked": "Réservé",
            "message": "Message",
        },
        keys="Appuyez sur 1 pour prendre l'appel, ou sur 2 pour refuser.",
    ),
    "it": HandoffLines(
        putting_through="Le passo una persona. Un attimo, per favore.",
        not_helping="Mi scusi, non le sono di grande aiuto. Le passo una persona. Un attimo, per favore.",
        trouble="Mi scusi, abbiamo un problema tecnico. Le passo una persona. Un attimo, per favore.",
        to_voicemail="Al momento non c'è nessuno che possa rispondere. Un attimo, per favore.",
        trouble_to_voicemail="Mi scusi, abbiamo un problema tecnico. Un attimo, per favore.",
        nobody_free="Mi dispiace, al momento nessuno è libero. Vuole lasciare un messaggio?",
        nobody_can_come="Ci dispiace, al momento nessuno può venire al telefono.",
        call_back="La richiameremo entro {when}.",
        leave_message="Lasci un messaggio dopo il segnale e poi riagganci.",
        leave_number="Dica il suo nome e il suo numero dopo il segnale e poi riagganci.",
        thanks="Grazie.",
        goodbye="Arrivederci.",
        fallback="Se ha ancora bisogno di noi, dica il suo nome e il suo numero dopo il segnale.",
        caller_for="Una chiamata per {business}.",
        name="Il nome è {name}.",
        no_name="Non ha detto il suo nome.",
        about="Si tratta di: {about}.",
        last_words="Ha detto per ultimo: {words}.",
        reasons={
            _R.ASKED: "Ha chiesto di parlare con una persona.",
            _R.FAILED_TURNS: "Non siamo riusciti a capire.",
            _R.UNSURE: "Siamo riusciti a capire a malapena.",
            _R.FRUSTRATED: "Non è contento dell'assistente.",
            _R.REPEATED: "Ha dovuto ripetere più volte la stessa cosa.",
            _R.MODEL: "Il nostro assistente non funziona.",
            _R.VOICE: "Il nostro assistente è senza voce.",
            _R.RECOGNISER: "Il nostro assistente non sente.",
            _R.STUCK: "Il nostro assistente è bloccato.",
        },
        slots={
            "phone": "Telefono",
            "service": "Appuntamento per",
            "day": "Giorno",
            "time": "Ora",
            "booked": "Prenotato",
            "message": "Messaggio",
        },
        keys="Prema 1 per accettare la chiamata o 2 per rifiutarla.",
    ),
    "nl": HandoffLines(
        putting_through="Ik verbind u door. Een momentje, alstublieft.",
        not_helping="Sorry, ik help u niet echt verder. Ik verbind u door. Een momentje, alstublieft.",
        trouble="Sorry, er is bij ons een storing. Ik verbind u door. Een momentje, alstublieft.",
        to_voicemail="Er is op dit moment niemand die uw gesprek kan aannemen. Een momentje, alstublieft.",
        trouble_to_voicemail="Sorry, er is bij ons een storing. Een momentje, alstublieft.",
        nobody_free="Het spijt me, er is nu niemand vrij. Zal ik een boodschap aannemen?",
        nobody_can_come="Het spijt ons, er kan nu niemand aan de telefoon komen.",
        call_back="We bellen u terug voor {when}.",
        leave_message="Spreek een bericht in na de toon en hang daarna op.",
        leave_number="Zeg na de toon uw naam en uw nummer en hang daarna op.",
        thanks="Dank u wel.",
        goodbye="Tot ziens.",
        fallback="Als u ons nog nodig hebt, zeg dan na de toon uw naam en uw nummer.",
        caller_for="Een gesprek voor {business}.",
        name="De naam is {name}.",
        no_name="Een naam is niet genoemd.",
        about="Het gaat over: {about}.",
        last_words="Als laatste gezegd: {words}.",
        reasons={
            _R.ASKED: "De beller vroeg naar een mens.",
            _R.FAILED_TURNS: "We konden de beller niet verstaan.",
            _R.UNSURE: "We konden de beller nauwelijks verstaan.",
            _R.FRUSTRATED: "De beller is ontevreden over de assistent.",
            _R.REPEATED: "De beller moest zich steeds herhalen.",
            _R.MODEL: "Onze assistent is uitgevallen.",
            _R.VOICE: "Onze assistent heeft geen stem meer.",
            _R.RECOGNISER: "Onze assistent hoort niets meer.",
            _R.STUCK: "Onze assistent zit vast.",
        },
        slots={
            "phone": "Telefoonnummer",
            "service": "Afspraak voor",
            "day": "Dag",
            "time": "Tijd",
            "booked": "Geboekt",
            "message": "Boodschap",
        },
        keys="Druk op 1 om het gesprek aan te nemen, of op 2 om te weigeren.",
    ),
    "pt": HandoffLines(
        putting_through="Vou passar a chamada a uma pessoa. Um momento, por favor.",
        not_helping="Desculpe, não estou a ajudar muito. Vou passar a chamada a uma pessoa. Um momento, por favor.",
        trouble="Desculpe, temos um problema técnico. Vou passar a chamada a uma pessoa. Um momento, por favor.",
        to_voicemail="De momento não há ninguém que possa atender. Um momento, por favor.",
        trouble_to_voicemail="Desculpe, temos um problema técnico. Um momento, por favor.",
        nobody_free="Lamento, de momento ninguém está livre. Quer deixar um recado?",
        nobody_can_come="Lamentamos, de momento ninguém pode vir ao telefone.",
        call_back="Vamos ligar de volta até {when}.",
        leave_message="Deixe uma mensagem depois do sinal e desligue quando terminar.",
        leave_number="Diga o seu nome e o seu número depois do sinal e desligue quando terminar.",
        thanks="Obrigado.",
        goodbye="Adeus.",
        fallback="Se ainda precisar de nós, diga o seu nome e o seu número depois do sinal.",
        caller_for="Uma chamada para {business}.",
        name="O nome é {name}.",
        no_name="Não disse o nome.",
        about="É sobre: {about}.",
        last_words="A última coisa que disse: {words}.",
        reasons={
            _R.ASKED: "Pediu para falar com uma pessoa.",
            _R.FAILED_TURNS: "Não conseguimos perceber o que disse.",
            _R.UNSURE: "Mal conseguimos perceber o que disse.",
            _R.FRUSTRATED: "Não está satisfeito com o assistente.",
            _R.REPEATED: "Teve de repetir várias vezes a mesma coisa.",
            _R.MODEL: "O nosso assistente avariou.",
            _R.VOICE: "O nosso assistente ficou sem voz.",
            _R.RECOGNISER: "O nosso assistente não ouve.",
            _R.STUCK: "O nosso assistente está bloqueado.",
        },
        slots={
            "phone": "Telefone",
            "service": "Marcação para",
            "day": "Dia",
            "time": "Hora",
            "booked": "Marcado",
            "message": "Recado",
        },
        keys="Prima 1 para atender, ou 2 para recusar.",
    ),
}
