"""What answers when we do not."""

from xml.etree import ElementTree

import pytest

from bot.agent import Handoff, read_agent
from bot.fallback import fallback_document, fallback_fault
from bot.handoff_lines import handoff_lines
from tests.fakes.launcher import ROOT

CONFIG = read_agent(ROOT / "flows" / "reception").config
LINES = handoff_lines("en")


def verbs(document: str) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(document.encode()))  # noqa: S314 - our own document


def test_the_first_person_is_rung_then_a_message_is_taken() -> None:
    thanks, _, dial, say, record = verbs(fallback_document(CONFIG))
    assert thanks.text == f"{LINES.thanks} {LINES.goodbye}"
    assert (dial.text, dial.attrib["timeout"]) == (CONFIG.handoff.humans[0], str(CONFIG.handoff.ring_s))
    assert say.text == LINES.fallback
    assert "action" not in record.attrib


def test_without_people_a_message_is_taken_at_once() -> None:
    config = CONFIG.model_copy(update={"handoff": Handoff()})
    assert [verb.tag for verb in verbs(fallback_document(config))] == ["Say", "Hangup", "Say", "Record"]


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("", "no voice fallback URL"),
        ("https://calls.example.com/fallback", "stand in for"),
        ("https://handler.twilio.com/twiml/EH1", None),
        ("https://elsewhere.example.com/x", None),
    ],
)
def test_a_fallback_must_not_go_down_with_us(url: str, fault: str | None) -> None:
    found = fallback_fault(url, "https://calls.example.com/twilio/voice")
    assert (found is None) is (fault is None)
    assert (fault or "") in (found or "")
