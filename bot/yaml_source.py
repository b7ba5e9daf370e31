"""A YAML file that can say on which line each of its values stands.

Shared by the readers of `agent.yaml` and `flow.yaml`; knows neither of them.
"""

import difflib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

Location = Sequence[int | str]
"""Path to a value: mapping keys and list indexes from the top."""


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong in a file, in one sentence."""

    path: Path
    line: int | None
    """1-based; None when the fault is about the whole file."""
    where: str
    """Dotted path of the value, empty for the whole file."""
    message: str

    def __str__(self) -> str:
        """`flows/reception/agent.yaml:12: listening.max_pause_ms: Input should be …`."""
        place = f"{self.path}:{self.line}" if self.line else str(self.path)
        return f"{place}: {self.where}: {self.message}" if self.where else f"{place}: {self.message}"


class YamlSyntaxError(Exception):
    """The text is not YAML, or not a mapping."""

    def __init__(self, fault: Fault) -> None:
        """Create the error from the one fault that ended the reading."""
        self.fault = fault
        super().__init__(str(fault))


class YamlSource:
    """One parsed YAML mapping with the position of every value.

    `data` is plain Python; `line` and `fault` accept any pydantic location, also one that goes through a
    union or names a missing key: the deepest part that exists in the file gives the line.
    """

    def __init__(self, path: Path, text: str) -> None:
        """Parse `text`.

        Args:
            path: Shown in faults; not read.
            text: One YAML document.

        Raises:
            YamlSyntaxError: If it is not YAML or its top is not a mapping.
        """
        self.path = path
        try:
            root = yaml.compose(text, yaml.SafeLoader)
            self.data: dict[str, Any] = yaml.load(text, yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            sentence = ", ".join(part for part in (error.context, error.problem) if part)
            raise YamlSyntaxError(Fault(path, mark.line + 1 if mark else None, "", sentence)) from None
        except yaml.YAMLError as error:
            raise YamlSyntaxError(Fault(path, None, "", str(error))) from None
        if not isinstance(root, yaml.MappingNode):
            raise YamlSyntaxError(Fault(path, 1, "", "the top of the file must be a mapping"))
        self._root = root

    @classmethod
    def read(cls, path: Path, *, shown_as: Path | None = None) -> "YamlSource":
        """Read and parse a file.

        Raises:
            YamlSyntaxError: If it cannot be read, is not YAML or not a mapping.
        """
        shown = shown_as or path
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "is not UTF-8"
            raise YamlSyntaxError(Fault(shown, None, "", reason or "cannot be read")) from None
        return cls(shown, text)

    def line(self, location: Location) -> int:
        """Return the 1-based line of the deepest part of `location` that the file has."""
        found, _ = self._walk(location)
        return found.line + 1

    def fault(self, location: Location, message: str) -> Fault:
        """Return a fault at `location`, named by the part of it that the file can know."""
        _, where = self._walk(location)
        return Fault(self.path, self.line(location), _dotted(where), message)

    def duplicate_keys(self) -> Iterator[Fault]:
        """Yield a fault for each key that stands twice in one mapping; YAML silently keeps the last."""
        yield from self._duplicates(self._root, ())

    def validation_faults(self, error: ValidationError, model: type[BaseModel]) -> list[Fault]:
        """Translate what pydantic found into faults with lines, and misspelt keys into suggestions."""
        details = error.errors(include_url=False, include_context=False, include_input=False)
        faults = [
            self.fault(detail["loc"], _sentence(detail, lambda loc: _keys_at(model, loc)))
            for detail in details
            if not _is_other_branch(detail, details)
        ]
        return list(dict.fromkeys(faults))

    def _walk(self, location: Location) -> tuple[yaml.Mark, list[int | str]]:
        node: yaml.Node = self._root
        mark = node.start_mark
        where: list[int | str] = []
        for position, part in enumerate(location):
            step = _child(node, part)
            if step is None:
                # A key that the file lacks is worth naming; a union's tag in the middle of the path is not.
                if position == len(location) - 1 and isinstance(node, yaml.MappingNode):
                    where.append(part)
                continue
            mark, node = step
            where.append(part)
        return mark, where

    def _duplicates(self, node: yaml.Node, where: tuple[int | str, ...]) -> Iterator[Fault]:
        if isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                yield from self._duplicates(item, (*where, index))
        elif isinstance(node, yaml.MappingNode):
            seen: set[str] = set()
            for key, value in node.value:
                here = (*where, str(key.value))
                if key.value in seen and key.value != "<<":
                    yield Fault(self.path, key.start_mark.line + 1, _dotted(here), "this key stands twice")
                seen.add(key.value)
                yield from self._duplicates(value, here)


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean X?`, or nothing when no known name is near."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""


def _child(node: yaml.Node, part: int | str) -> tuple[yaml.Mark, yaml.Node] | None:
    if isinstance(node, yaml.SequenceNode):
        if isinstance(part, int) and part < len(node.value):
            item = node.value[part]
            return item.start_mark, item
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if str(key.value) == str(part):
                return key.start_mark, value
    return None


def _dotted(where: Sequence[int | str]) -> str:
    text = ""
    for part in where:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".")


def _sentence(detail: ErrorDetails, keys_at: Callable[[Location], list[str]]) -> str:
    if detail["type"] == "extra_forbidden":
        *parent, key = detail["loc"]
        return f"unknown key{suggestion(str(key), keys_at(parent))}"
    if detail["type"] == "missing":
        return "is missing"
    return detail["msg"].removeprefix("Value error, ")


def _keys_at(model: type[BaseModel], location: Location) -> list[str]:
    """Return the keys that the model at `location` knows, or none when it cannot be told."""
    candidates: list[type[BaseModel]] = [model]
    for part in location:
        below: list[type[BaseModel]] = []
        for candidate in candidates:
            if str(part) in candidate.model_fields:
                # Models nested in `model` name each other through it, in strings.
                hints = get_type_hints(candidate, localns={model.__name__: model})
                below += _models_in(hints[str(part)])
        # An index, a free mapping key or a union's tag names no field: stay where we are.
        candidates = below or candidates
    return [name for candidate in candidates for name in candidate.model_fields]


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for part in getattr(annotation, "__args__", ()) for found in _models_in(part)]


def _is_other_branch(detail: ErrorDetails, details: Sequence[ErrorDetails]) -> bool:
    """Tell whether this is "should be a string" for a value whose other union branch explains more."""
    *parent, tag = detail["loc"] or ("",)
    return tag == "str" and any(
        list(other["loc"][: len(parent)]) == parent and len(other["loc"]) > len(detail["loc"])
        for other in details
        if other is not detail
    )
