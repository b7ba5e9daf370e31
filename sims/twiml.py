"""TwiML: a document read into verbs, and what a call does with it, as a generator of effects.

Pure: the interpreter yields what has to happen (`Effect`) and is sent what came of it; `sims.phone_call` acts it
out. Unknown verbs and attributes of the document are problems to be counted, not crashes.

Source: twilio.com/docs/voice/twiml and the pages of each verb.
"""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from urllib.parse import urljoin
from xml.etree import ElementTree as ET

MAX_DOCUMENT_BYTES = 64 * 1024
MAX_DOCUMENTS = 50
"""A call that fetches more documents than this is a redirect loop."""


class TwimlError(Exception):
    """A document that Twilio would not run."""

    def __init__(self, code: int, message: str) -> None:
        """Create it with Twilio's error code."""
        super().__init__(f"{code}: {message}")
        self.code = code


@dataclass(frozen=True)
class Say:
    """Speak `text`, `loop` times (0 is until the call ends)."""

    text: str
    voice: str = "man"
    loop: int = 1


@dataclass(frozen=True)
class Play:
    """Play a sound (a tone stands in for it) or keys to the call."""

    url: str = ""
    digits: str = ""
    loop: int = 1


@dataclass(frozen=True)
class Pause:
    """Say nothing for a while."""

    length_s: float = 1.0


@dataclass(frozen=True)
class Hangup:
    """End the call."""


@dataclass(frozen=True)
class Reject:
    """Do not answer; only as the first verb."""

    reason: str = "rejected"


@dataclass(frozen=True)
class Redirect:
    """Go on with another document."""

    url: str
    method: str = "POST"


@dataclass(frozen=True)
class Stream:
    """A bidirectional media socket."""

    url: str
    name: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict[str, str])
    status_callback: str = ""
    status_callback_method: str = "POST"


@dataclass(frozen=True)
class Connect:
    """Hand the call to a stream until it ends."""

    stream: Stream
    action: str = ""
    method: str = "POST"


@dataclass(frozen=True)
class DialTarget:
    """One `<Number>`, with the document it hears before it is connected."""

    number: str
    url: str = ""
    method: str = "POST"


@dataclass(frozen=True)
class Dial:
    """Ring other people; the first who answers is connected."""

    targets: tuple[DialTarget, ...]
    action: str = ""
    method: str = "POST"
    timeout_s: float = 30.0
    caller_id: str = ""


@dataclass(frozen=True)
class Record:
    """Take a message."""

    action: str = ""
    method: str = "POST"
    timeout_s: float = 5.0
    max_length_s: float = 3600.0
    finish_on_key: str = "1234567890*#"
    play_beep: bool = True
    recording_status_callback: str = ""


@dataclass(frozen=True)
class Gather:
    """Collect keys while saying something."""

    prompts: "tuple[Say | Play | Pause, ...]" = ()
    action: str = ""
    method: str = "POST"
    timeout_s: float = 5.0
    num_digits: int | None = None
    finish_on_key: str = "#"
    action_on_empty: bool = False


Verb = Say | Play | Pause | Hangup | Reject | Redirect | Connect | Dial | Record | Gather


@dataclass(frozen=True)
class Document:
    """A parsed response: its verbs in order, and what is wrong with it."""

    verbs: tuple[Verb, ...]
    problems: tuple[str, ...] = ()

    @property
    def hangs_up(self) -> bool:
        """Whether running to its end means hanging up rather than falling off the end."""
        return any(isinstance(verb, Hangup) for verb in self.verbs)


@dataclass(frozen=True)
class Fetch:
    """Effect: request a document. Sent back: a `Document`, or None when the call cannot go on."""

    url: str
    method: str
    extra: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True)
class Done:
    """What came of a verb, as parameters for its `action`; `digits` empty where nothing was pressed."""

    parameters: Mapping[str, str] = field(default_factory=dict[str, str])
    skips_action: bool = False
    """Whether the verb behind runs, and not the `action`."""


Effect = Fetch | Say | Play | Pause | Reject | Connect | Dial | Record | Gather
Script = Generator[Effect, "Document | Done | None", None]


def parse(text: bytes) -> Document:
    """Read a TwiML document.

    Raises:
        TwimlError: 11750 too large, 12100 not XML, 12200 root is not `<Response>`.
    """
    if len(text) > MAX_DOCUMENT_BYTES:
        raise TwimlError(
            11750, f"the document has {len(text)} bytes, at most {MAX_DOCUMENT_BYTES} are allowed"
        )
    if b"<!DOCTYPE" in text or b"<!ENTITY" in text:
        raise TwimlError(12100, "document types are not accepted")
    try:
        root = ET.fromstring(text)  # noqa: S314 - entities are refused above, the size is bounded
    except ET.ParseError as error:
        raise TwimlError(12100, f"document parse failure: {error}") from error
    if root.tag != "Response":
        raise TwimlError(12200, f"the root element is <{root.tag}>, not <Response>")
    verbs: list[Verb] = []
    problems: list[str] = []
    for element in root:
        verb = _read_verb(element, problems)
        if verb is not None:
            verbs.append(verb)
    return Document(tuple(verbs), tuple(problems))


def run(document: Document, base_url: str) -> Script:
    """Yield the effects of a document and of the documents it leads to; returning ends the call.

    Args:
        document: Where to start.
        base_url: Absolute URL it came from, for relative URLs; empty for inline TwiML.
    """
    for _ in range(MAX_DOCUMENTS):
        fetch = yield from _run_document(resolve(document, base_url))
        if fetch is None:
            return
        answer = yield fetch
        if not isinstance(answer, Document):
            return
        document, base_url = answer, fetch.url


def resolve(document: Document, base_url: str) -> Document:
    """Return `document` with every URL in it absolute; none can be made so when `base_url` is empty."""
    return replace(document, verbs=tuple(_resolve_verb(verb, base_url) for verb in document.verbs))


def _resolve_verb(verb: Verb, base_url: str) -> Verb:
    match verb:
        case Redirect():
            return replace(verb, url=urljoin(base_url, verb.url))
        case Connect() if verb.action:
            return replace(verb, action=urljoin(base_url, verb.action))
        case Dial():
            targets = tuple(
                replace(target, url=urljoin(base_url, target.url)) if target.url else target
                for target in verb.targets
            )
            action = urljoin(base_url, verb.action) if verb.action else ""
            return replace(verb, targets=targets, action=action)
        case Record():
            callback = verb.recording_status_callback
            callback = urljoin(base_url, callback) if callback else ""
            # Without an action, <Record> and <Gather> come back to their own document.
            return replace(verb, action=urljoin(base_url, verb.action), recording_status_callback=callback)
        case Gather():
            return replace(verb, action=urljoin(base_url, verb.action))
        case _:
            return verb


def _run_document(document: Document) -> Generator[Effect, Document | Done | None, Fetch | None]:
    """Yield one document's effects; return the next document to fetch, None to hang up."""
    for position, verb in enumerate(document.verbs):
        match verb:
            case Hangup():
                return None
            case Redirect():
                return Fetch(verb.url, verb.method)
            case Reject():
                if position == 0:
                    yield verb
                return None
            case Say() | Play() | Pause():
                yield verb
            case Connect() | Dial():
                done = yield verb
                if verb.action and not (isinstance(done, Done) and done.skips_action):
                    return Fetch(verb.action, verb.method, _parameters(done))
            case Record():
                done = yield verb
                return Fetch(verb.action, verb.method, _parameters(done))
            case Gather():
                done = yield verb
                if _parameters(done).get("Digits") or verb.action_on_empty:
                    return Fetch(verb.action, verb.method, _parameters(done))
    return None


def _parameters(done: Document | Done | None) -> Mapping[str, str]:
    return done.parameters if isinstance(done, Done) else {}


def _read_verb(element: ET.Element, problems: list[str]) -> Verb | None:
    read = _READERS.get(element.tag)
    if read is None:
        problems.append(f"unknown verb <{element.tag}>")
        return None
    name, attributes = element.tag, _KNOWN_ATTRIBUTES[element.tag]
    problems.extend(f"unknown attribute {name}.{key}" for key in element.attrib if key not in attributes)
    try:
        return read(element, problems)
    except ValueError as error:
        problems.append(f"<{name}>: {error}")
        return None


def _text(element: ET.Element) -> str:
    return " ".join("".join(element.itertext()).split())


def _read_say(element: ET.Element, _: list[str]) -> Say:
    return Say(_text(element), element.get("voice", "man"), int(element.get("loop", "1")))


def _read_play(element: ET.Element, _: list[str]) -> Play:
    return Play(_text(element), element.get("digits", ""), int(element.get("loop", "1")))


def _read_pause(element: ET.Element, _: list[str]) -> Pause:
    return Pause(float(element.get("length", "1")))


def _read_hangup(_: ET.Element, __: list[str]) -> Hangup:
    return Hangup()


def _read_reject(element: ET.Element, _: list[str]) -> Reject:
    return Reject(element.get("reason", "rejected"))


def _read_redirect(element: ET.Element, _: list[str]) -> Redirect:
    return Redirect(_text(element), element.get("method", "POST"))


def _read_connect(element: ET.Element, problems: list[str]) -> Connect:
    nouns = list(element)
    if len(nouns) != 1 or nouns[0].tag != "Stream":
        raise ValueError(f"needs exactly one <Stream>, has {[noun.tag for noun in nouns]}")
    stream = _read_stream(nouns[0], problems)
    return Connect(stream, element.get("action", ""), element.get("method", "POST"))


def _read_stream(element: ET.Element, problems: list[str]) -> Stream:
    problems.extend(
        f"unknown attribute Stream.{key}" for key in element.attrib if key not in _STREAM_ATTRIBUTES
    )
    url = element.get("url", "")
    if not url.startswith(("wss://", "ws://127.0.0.1", "ws://localhost")):
        raise ValueError(f"31923: url must be wss:// (ws:// on loopback), got {url!r}")
    if "?" in url:
        raise ValueError("31920: url must not have a query string")
    if element.get("track", "inbound_track") != "inbound_track":
        raise ValueError("31941: track of a bidirectional stream must be inbound_track")
    parameters: dict[str, str] = {}
    for child in element:
        name, value = child.get("name", ""), child.get("value", "")
        if child.tag != "Parameter" or not name:
            problems.append(f"<Stream> cannot contain <{child.tag}>, or it has no name")
        elif len(name) + len(value) >= 500:
            problems.append(f"<Parameter> {name} is longer than 500 characters")
        else:
            parameters[name] = value
    return Stream(
        url,
        element.get("name", ""),
        parameters,
        element.get("statusCallback", ""),
        element.get("statusCallbackMethod", "POST"),
    )


def _read_dial(element: ET.Element, problems: list[str]) -> Dial:
    targets: list[DialTarget] = []
    own_text = (element.text or "").strip()
    if own_text:
        targets.append(DialTarget(own_text))
    for child in element:
        if child.tag != "Number":
            problems.append(f"<Dial> noun <{child.tag}> is not simulated")
            continue
        targets.append(DialTarget(_text(child), child.get("url", ""), child.get("method", "POST")))
    if not 1 <= len(targets) <= 10:
        raise ValueError(f"needs 1 to 10 numbers, has {len(targets)}")
    return Dial(
        tuple(targets),
        element.get("action", ""),
        element.get("method", "POST"),
        float(element.get("timeout", "30")),
        element.get("callerId", ""),
    )


def _read_record(element: ET.Element, _: list[str]) -> Record:
    return Record(
        element.get("action", ""),
        element.get("method", "POST"),
        float(element.get("timeout", "5")),
        float(element.get("maxLength", "3600")),
        element.get("finishOnKey", "1234567890*#"),
        element.get("playBeep", "true") == "true",
        element.get("recordingStatusCallback", ""),
    )


def _read_gather(element: ET.Element, problems: list[str]) -> Gather:
    if "dtmf" not in element.get("input", "dtmf").split():
        raise ValueError("only input=dtmf is simulated")
    prompts: list[Say | Play | Pause] = []
    for child in element:
        prompt = _read_verb(child, problems)
        if isinstance(prompt, Say | Play | Pause):
            prompts.append(prompt)
        else:
            problems.append(f"<Gather> cannot contain <{child.tag}>")
    digits = element.get("numDigits")
    return Gather(
        tuple(prompts),
        element.get("action", ""),
        element.get("method", "POST"),
        float(element.get("timeout", "5")),
        None if digits is None else int(digits),
        element.get("finishOnKey", "#"),
        element.get("actionOnEmptyResult", "false") == "true",
    )


_READERS = {
    "Say": _read_say,
    "Play": _read_play,
    "Pause": _read_pause,
    "Hangup": _read_hangup,
    "Reject": _read_reject,
    "Redirect": _read_redirect,
    "Connect": _read_connect,
    "Dial": _read_dial,
    "Record": _read_record,
    "Gather": _read_gather,
}

_STREAM_ATTRIBUTES = frozenset({"url", "name", "track", "statusCallback", "statusCallbackMethod"})
_KNOWN_ATTRIBUTES: Mapping[str, Sequence[str]] = {
    "Say": ("voice", "language", "loop"),
    "Play": ("digits", "loop"),
    "Pause": ("length",),
    "Hangup": (),
    "Reject": ("reason",),
    "Redirect": ("method",),
    "Connect": ("action", "method"),
    "Dial": (
        "action", "method", "timeout", "callerId", "answerOnBridge", "timeLimit", "hangupOnStar", "record",
        "recordingStatusCallback", "ringTone", "sequential", "trim", "referUrl",
    ),
    "Record": (
        "action", "method", "timeout", "maxLength", "finishOnKey", "playBeep", "trim", "transcribe",
        "transcribeCallback", "recordingStatusCallback", "recordingStatusCallbackMethod",
        "recordingStatusCallbackEvent",
    ),
    "Gather": (
        "input", "action", "method", "timeout", "numDigits", "finishOnKey", "actionOnEmptyResult",
        "speechTimeout", "language", "hints",
    ),
}  # fmt: skip
