import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from bot.yaml_source import YamlSource, YamlSyntaxError, suggestion

PATH = Path("agent.yaml")
TEXT = """\
name: A
listening:
  max_pause_ms: 5
  barge_in: true
services:
  stt:
    - deepgram
    - {name: other}
"""


class Listening(BaseModel, extra="forbid"):
    max_pause_ms: int
    barge_in: bool = True


class Choice(BaseModel, extra="forbid"):
    name: str


class Model(BaseModel, extra="forbid"):
    name: str
    listening: Listening
    services: dict[str, list[str | Choice]]


def faults(text: str) -> list[str]:
    source = YamlSource(PATH, text)
    with pytest.raises(ValidationError) as caught:
        Model.model_validate(source.data)
    return [str(fault) for fault in source.validation_faults(caught.value, Model)]


@pytest.mark.parametrize(
    ("location", "line"),
    [
        (("name",), 1),
        (("listening",), 2),
        (("listening", "barge_in"), 4),
        (("services", "stt", 1, "name"), 8),
        (("services", "stt", 9), 6),
        (("listening", "absent"), 2),
        ((), 1),
    ],
)
def test_every_value_has_its_line(location: tuple[str | int, ...], line: int) -> None:
    assert YamlSource(PATH, TEXT).line(location) == line


def test_faults_name_file_line_and_value() -> None:
    broken = TEXT.replace("max_pause_ms: 5", "max_pause_ms: soon").replace("name: A", "naem: A")
    assert faults(broken) == [
        "agent.yaml:1: name: is missing",
        "agent.yaml:3: listening.max_pause_ms: Input should be a valid integer, unable to parse string as an integer",
        "agent.yaml:1: naem: unknown key; did you mean name?",
    ]


def test_a_misspelt_key_is_compared_with_its_siblings() -> None:
    assert faults(TEXT.replace("barge_in", "barge")) == [
        "agent.yaml:4: listening.barge: unknown key; did you mean barge_in?"
    ]


def test_the_explaining_branch_of_a_union_wins() -> None:
    assert faults(TEXT.replace("{name: other}", "{nmae: other}")) == [
        "agent.yaml:8: services.stt[1].name: is missing",
        "agent.yaml:8: services.stt[1].nmae: unknown key; did you mean name?",
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: [1, 2\nb: 3\n", r"agent\.yaml:2: while parsing a flow sequence"),
        ("a: b: c", r"agent\.yaml:1: mapping values are not allowed"),
        ("\tx: 1", r"agent\.yaml:1: .*'\\t' that cannot start any token"),
        ("- 1\n- 2\n", r"agent\.yaml:1: the top of the file must be a mapping"),
        ("", "must be a mapping"),
        ("a: !python/object:os.system x", r"agent\.yaml:1: could not determine a constructor"),
        ("a: \x00", "special characters"),
    ],
)
def test_what_is_not_yaml_is_explained(text: str, says: str) -> None:
    with pytest.raises(YamlSyntaxError, match=says):
        YamlSource(PATH, text)


def test_keys_that_stand_twice_are_found() -> None:
    source = YamlSource(PATH, "a: 1\nb:\n  - {c: 1, c: 2}\na: 2\n")
    assert [str(fault) for fault in source.duplicate_keys()] == [
        "agent.yaml:3: b[0].c: this key stands twice",
        "agent.yaml:4: a: this key stands twice",
    ]


def test_a_file_that_cannot_be_read_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(YamlSyntaxError, match="No such file"):
        YamlSource.read(tmp_path / "absent.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9\n")
    with pytest.raises(YamlSyntaxError, match="UTF-8"):
        YamlSource.read(tmp_path / "latin.yaml")


def test_far_names_are_not_suggested() -> None:
    assert suggestion("voice", ["voices", "name"]) == "; did you mean voices?"
    assert suggestion("xyz", ["voices", "name"]) == ""


@given(st.text(max_size=60), st.lists(st.one_of(st.text(max_size=3), st.integers(-2, 5)), max_size=4))
def test_any_text_is_parsed_or_explained(text: str, location: list[str | int]) -> None:
    source: YamlSource | None = None
    with contextlib.suppress(YamlSyntaxError):
        source = YamlSource(PATH, text)
    if source is not None:
        assert 1 <= source.line(location) <= text.count("\n") + text.count("\r") + 2
        list(source.duplicate_keys())
