"""What people say to a dental front desk, as training text for a small language model.

Lower-case words of the CMU dictionary, one phrase a line, the same lines every time. Templates, not transcripts:
`{day}` and the like are filled from the lists below. Data and the code to fill it, nothing that listens.
"""

import itertools
import random
import re

_LISTS: dict[str, str] = {
    "day": "monday tuesday wednesday thursday friday saturday sunday tomorrow today",
    "when": "morning|afternoon|evening|next week|this week|next month|at noon|after lunch|before noon|after work",
    "hour": "eight nine ten eleven twelve one two three four five",
    "minute": "thirty|fifteen|forty five|o'clock|twenty|forty|oh five|ten",
    "half": "in the morning|in the afternoon|a m|p m|sharp",
    "service": "cleaning|checkup|check up|filling|crown|whitening|consultation|root canal|extraction|x ray|dentist"
    "|dental cleaning|teeth cleaning|regular checkup|new patient visit|emergency visit|follow up",
    "pain": "toothache|broken tooth|chipped tooth|lost filling|lot of pain|bad toothache|terrible toothache"
    "|swollen gum|loose crown|sensitive tooth|cavity|bleeding gum",
    "who": "doctor|dentist|hygienist|office|manager|receptionist|person|human|nurse|front desk|somebody|someone",
    "first": "john mary maria james robert michael david sarah anna emily linda susan karen lisa nancy peter paul"
    " thomas mark daniel george kevin brian laura julia alice emma olivia sophia lucas henry jack oliver william"
    " elizabeth jennifer patricia barbara jessica richard joseph charles christopher matthew anthony steven andrew"
    " joshua ryan jacob nicholas eric jonathan justin scott brandon ben sam alex chris kate jane helen ruth carol"
    " diana victoria rachel hannah grace amy angela melissa michelle rosa carlos jose luis juan pedro ana elena",
    "last": "smith johnson williams brown jones garcia miller davis rodriguez martinez hernandez lopez gonzalez"
    " wilson anderson thomas taylor moore jackson martin lee perez thompson white harris sanchez clark lewis"
    " robinson walker young allen king wright scott torres hill flores green adams nelson baker hall rivera"
    " campbell mitchell carter roberts turner phillips parker evans edwards collins stewart morris murphy cook"
    " rogers morgan cooper peterson reed bailey bell kelly howard ward cox richardson wood watson brooks bennett"
    " gray james hughes price myers long foster sanders ross morales powell sullivan russell fisher",
    "date": "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth"
    " fourteenth fifteenth sixteenth seventeenth eighteenth nineteenth twentieth",
    "month": "january february march april may june july august september october november december",
    "digit": "zero oh one two three four five six seven eight nine",
    "insurance": "delta dental|insurance|medicaid|medicare|aetna|cigna|dental insurance",
}

_TEMPLATES = """
hi|hello|hey|good morning|good afternoon|good evening|hello there|hi there|hello are you there|can you hear me
yes|yeah|yep|yes please|yes that's right|that's right|that's correct|correct|right|exactly|sure|of course|absolutely
okay|ok|alright|all right|great|perfect|wonderful|sounds good|that sounds good|that sounds great|that works
that works for me|that would be great|that would be perfect|that's fine|fine|good|yes that works|yes i would|i do
please do
no|nope|no thanks|no thank you|not really|no that's wrong|that's not right|that's wrong|no that's it|no that's all
i don't
no thanks that's all|no thank you that's all|that's all|that's it|that is all|nothing else|that's everything
no nothing else
thank you|thanks|thanks a lot|thank you very much|thank you so much|thank you bye|thank you goodbye|thanks bye
bye|goodbye|bye bye|have a good day|have a nice day|see you then|no that's all thank you goodbye|okay thank you bye
um|uh|hmm|well|wait|hold on|one moment|just a moment|sorry|excuse me|pardon|sorry what was that|what did you say
could you repeat that|can you repeat that please|please say that again|i didn't catch that|i don't understand|stop
help|i need help|can you help me|i have a question|i have another question|who is this|are you a robot
is this a robot
i'd like to book a {service}|i would like to book a {service} please|i'd like to book a {service} please
book a {service}
i'd like to book an appointment|i want to book an appointment|i need an appointment|i'd like to make an appointment
i need to make an appointment|i want to make an appointment for a {service}|i'd like to schedule a {service}
i need to schedule a {service}|i'd like an appointment for a {service}|i need an appointment for a {service}
can i book an appointment|can i make an appointment|can i get an appointment|could i come in for a {service}
can i schedule a {service}|do you have anything on {day}|do you have any openings|do you have anything {day} {when}
i'm calling to book an appointment|i'm calling about an appointment|i'm calling to schedule a {service}
it's for a {service}
a {service}|just a {service}|a {service} please|a {service} for me|for a {service}|a regular cleaning
just a regular cleaning
i have a {pain}|i've got a {pain}|my tooth hurts|my teeth hurt|it hurts|it really hurts|it's an emergency
i am in pain
i need to see the {who}|i need to see a {who} today|as soon as possible|how soon can i come in|is it urgent
{day}|{day} {when}|{day} please|on {day}|on {day} {when}|next {day}|this {day}|{day} would be great|{day} works
how about {day}
{day} would be good|{day} at {hour}|{day} at {hour} {minute}|{day} {when} would be great|{day} {when} works for me
maybe {day}|actually {day}|actually {day} would be better|actually can we make it {day}
could we make it {day} instead
actually could we do {day}|actually i meant {day}|sorry i meant {day}|no {day}|no i said {day}|make it {day}
not {day}
what about {day}|what about {day} {when}|how about {day} at {hour}|can i come {day}|could i come on {day}
is {day} possible
sometime {when}|any time {when}|any day is fine|any time works|i'm free on {day}|i can't do {day}|the first one
the second one
{hour}|{hour} {minute}|at {hour}|at {hour} {minute}|{hour} {minute} please|{hour} {half}|{hour} {minute} {half}
{hour} works
{hour} {minute} works for me|{hour} o'clock works|{hour} {minute} is good|{hour} {minute} is fine
{hour} would be great
i'll take {hour} {minute}|i'll take the {hour} {minute}|i'll take {hour}|let's do {hour} {minute}|let's say {hour}
the earliest|the earliest one|the first one please|the last one|the later one|the {hour} {minute} one|around {hour}
half past {hour}|quarter past {hour}|quarter to {hour}|after {hour}|before {hour}|between {hour} and {hour}
the {date}|{month} {date}|on the {date}|{month} the {date}|the {date} of {month}|on {month} {date} at {hour}
my name is {first} {last}|my name is {first} {last}|my name's {first} {last}|this is {first} {last}
i'm {first} {last}
it's {first} {last}|{first} {last}|{first} {last}|{first}|{last}|{first} {last} please|the name is {first} {last}
my first name is {first}|my last name is {last}|it is {first}|yes it's {first} {last}|for {first} {last}
my number is {phone}|my phone number is {phone}|{phone}|{phone}|{phone}|it's {phone}|you can reach me at {phone}
call me at {phone}
the number is {phone}|sure it's {phone}|yes it's {phone}|my callback number is {phone}|{phone} please
the same number
use this number|this number is fine|the number i'm calling from|you have my number
what are your hours|what are your opening hours|when are you open|when do you open|when do you close
are you open on {day}
are you open today|are you open {day}|what time do you open|what time do you close|what time do you close on {day}
what time do you open on {day}|how late are you open|are you open on weekends|and on {day}|and {day}
your hours please
where are you|where are you located|what is your address|what's your address|where is your office|how do i get there
what's the address|can you tell me the address|can i have your address|is there parking|where can i park
how much is a {service}|how much does a {service} cost|what does a {service} cost|do you take {insurance}
do you accept {insurance}|do you take my insurance|i have {insurance}|are you taking new patients|i'm a new patient
can i leave a message|i'd like to leave a message|i want to leave a message|can i leave a message for the {who}
i'd like to leave a message for the {who}|please tell the {who} that i called|please tell the {who} i will be late
please ask the {who} to call me back|can someone call me back|could the {who} call me back|please call me back
call me back please|call me back on {day}|tell the {who} i'm running late|i'm running late|it's about my {service}
it's about my bill|it's about my insurance|i have a question about my bill|i have a question about my {service}
i need to cancel my appointment|i want to cancel my appointment|i'd like to cancel|cancel my appointment please
i need to reschedule|i'd like to reschedule my appointment|can i move my appointment to {day}
i need to change my appointment
can i speak to a {who}|can i speak to the {who}|i want to talk to a {who}|i'd like to speak to a {who}
let me talk to a {who}
could i talk to {who}|i would like to speak to the {who}|a real person please|transfer me please
put me through to the {who}
i would like to speak to a {who}|i'd like to talk to a real person|is the {who} there|operator
remove me from your list|don't call me again|wrong number|you have the wrong number|i'll call back later|never mind
i don't know|i'm not sure|let me check|let me think|i think so|maybe|maybe later|it doesn't matter|whatever works
it's for my son|it's for my daughter|it's for my wife|it's for my husband|for me|it's for me|for two people
i've been there before|no it's my first time|yes i've been there before|is that okay|does that work|what do you have
what else do you have|do you have anything earlier|do you have anything later|anything later|something earlier
is {hour} {minute} available|can we do {hour} {minute} instead|can you do {hour}|do you have {hour} {minute}
"""

_PER_TEMPLATE = 14
"""Fillings drawn for a template with blanks."""


def make_phrases(seed: int = 1) -> list[str]:
    """Return a few thousand phrases."""
    rng = random.Random(seed)  # noqa: S311 - repeatable text, not secrets
    choices = {name: re.split(r"\|" if "|" in text else r" ", text) for name, text in _LISTS.items()}
    templates = [phrase.strip() for phrase in re.split(r"[|\n]", _TEMPLATES) if phrase.strip()]
    phrases: list[str] = []
    for template in templates:
        if "{" not in template:
            phrases += [template] * 4
        else:
            phrases += [_fill(template, choices, rng) for _ in range(_PER_TEMPLATE)]
    every_name = itertools.chain(choices["first"], choices["last"])  # no name may be missing by chance
    return (
        phrases
        + list(every_name)
        + [word for name in ("day", "hour", "month", "service") for word in choices[name]]
    )


def _fill(template: str, choices: dict[str, list[str]], rng: random.Random) -> str:
    def pick(match: re.Match[str]) -> str:
        if match[1] == "phone":
            return " ".join(rng.choice(choices["digit"]) for _ in range(rng.choice((7, 10, 10))))
        return rng.choice(choices[match[1]])

    return re.sub(r"\{(\w+)\}", pick, template)
