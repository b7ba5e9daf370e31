"""A playout that only says what it was told: what barge-in sees of the agent's audio."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class FakeAgentPlayout:
    """A `PlayoutControl`. Set what it says of itself; `log` has each pause and resume with its time."""

    is_audible: bool = False
    is_interruptible: bool = True
    remaining_s: float = 3.0
    words: list[str] = field(default_factory=list)
    text: str = ""
    is_paused: bool = False
    log: list[tuple[str, float]] = field(default_factory=list)

    def pause(self) -> None:
        """Fall silent."""
        self.is_paused = True
        self._note("pause")

    def resume(self) -> None:
        """Go on."""
        self.is_paused = False
        self._note("resume")

    def drop(self) -> None:
        """Do as a playout that gets an interruption."""
        self.is_paused = False
        self.is_audible = False
        self._note("drop")

    def recent_words(self) -> Sequence[str]:
        """Return `words`."""
        return self.words

    def current_text(self) -> str:
        """Return `text`."""
        return self.text

    def kinds(self) -> list[str]:
        """Return what was done, in order."""
        return [kind for kind, _ in self.log]

    def _note(self, kind: str) -> None:
        self.log.append((kind, asyncio.get_running_loop().time()))
