"""The filler that is being heard: where it ends, and whether that was told. Pure; part of `playout`.

    NONE --said--> WAITING --audio of it is sent--> HEARD --heard to its end | cut--> NONE

Its audio is known by its position, also when it is sent once more after a pause.
"""


class PlayoutFiller:
    """At most one line that only breaks a silence. Positions are samples of the agent's audio."""

    def __init__(self) -> None:
        """Begin without one."""
        self._text = ""
        self._end = 0
        """Behind the last filler."""
        self._is_told = False

    @property
    def text(self) -> str:
        """What it says, "" without one."""
        return self._text

    @property
    def end(self) -> int:
        """Position behind the last filler, the present one if there is one."""
        return self._end

    def said(self, text: str, *, end: int) -> None:
        """A filler stands in the agent's audio up to `end`."""
        self._text, self._end, self._is_told = text, end, False

    def has(self, position: int) -> bool:
        """Whether the sample at a position is a filler's."""
        return position < self._end

    def sent(self) -> bool:
        """Audio of it was sent; returns whether it begins to be heard with that."""
        is_first, self._is_told = not self._is_told, True
        return is_first

    def is_heard(self, heard: int) -> bool:
        """Whether there is one and it was heard to its end, when the caller has heard all up to `heard`."""
        return self._text != "" and heard >= self._end

    def over(self) -> bool:
        """It is not heard any more; returns whether the caller heard any of it."""
        was_told, self._is_told, self._text = self._is_told, False, ""
        return was_told

    def cut(self, at: int) -> None:
        """What stood behind `at` was thrown away: other audio takes its place."""
        self._end = min(self._end, at)
