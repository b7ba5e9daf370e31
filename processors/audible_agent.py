"""Whether the caller hears the agent, and what was told of it. Pure; part of `playout`.

    SILENT --audio sent--> AUDIBLE --it is no filler--> TURN ("bot started speaking")
    AUDIBLE, TURN --everything heard | cut--> SILENT ("bot stopped speaking", if it was a turn)

Who is paused is audible: they have not finished. Times are seconds of one clock.
"""

LEAST_GAP_S = 0.5
"""A silence inside of what the agent says is told of from here: shorter ones are pauses, or marks on their way."""


class AudibleAgent:
    """What the caller hears of the agent, as far as audio was sent."""

    def __init__(self) -> None:
        """Begin in silence."""
        self.is_audible = False
        """Whether the caller hears the agent, a filler included."""
        self.is_turn = False
        """Whether "bot started speaking" was told; not for a filler."""
        self._sounds_until_s: float | None = None

    @property
    def sounds_until_s(self) -> float:
        """When what was sent ends; the past when the caller is what made it stop."""
        return float("-inf") if self._sounds_until_s is None else self._sounds_until_s

    def sent(self, length_s: float, now_s: float) -> bool:
        """Audio left for the wire; returns whether the agent becomes audible with it."""
        self._sounds_until_s = max(now_s, self.sounds_until_s) + length_s
        began, self.is_audible = not self.is_audible, True
        return began

    def gap_began_s(self, now_s: float) -> float | None:
        """Return since when nothing was heard in the middle of a turn; None if that is no gap."""
        began_s = self._sounds_until_s
        is_gap = self.is_turn and began_s is not None and now_s - began_s >= LEAST_GAP_S
        return began_s if is_gap else None

    def begin_turn(self) -> bool:
        """What is heard is no filler; returns whether that is to be told."""
        began, self.is_turn = not self.is_turn, True
        return began

    def stop(self) -> bool:
        """Nothing is heard any more; returns whether the end of a turn is to be told."""
        was_turn, self.is_audible, self.is_turn = self.is_turn, False, False
        return was_turn

    def hush(self) -> None:
        """The caller made it stop: the silence that follows is for their sake."""
        self._sounds_until_s = None
