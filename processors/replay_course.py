"""What of the line one recogniser is sent, and what of the quiet it is spared. Pure: no clock, no I/O.

Vendors listen only a little faster than people speak, so each second of quiet that one which takes over is sent makes
it a second later to what is said next.

    BEHIND --next comes quiet--> BEHIND, shortly before the end of it: the quiet is left out
    BEHIND --sent all speech, which it can hardly have listened to yet--> RESTING: sent nothing
    RESTING --speech | it may have listened to all | it was answered--> BEHIND, shortly before the end of the quiet
    BEHIND --sent all there is--> sent the line as it comes, by whoever holds the course

Places are those of `CallerReplay`: behind what was left out they are not those of the audio that was sent.
"""

from processors.caller_replay import CallerReplay
from processors.hearing_watch import LISTENS

QUIET_SENT_S = 0.3
"""Of the quiet behind and before speech: the rest is left out."""


class ReplayCourse:
    """One connection's."""

    def __init__(self, replay: CallerReplay, begin: int, now_s: float) -> None:
        """Send nothing yet.

        Args:
            replay: The line.
            begin: Where on it the audio begins.
            now_s: When it is connected.
        """
        self._replay = replay
        self._began_s = now_s
        self.begin = begin
        self.sent = begin
        """Up to where the line was sent, but for what was left out."""
        self.until = replay.end
        """What is heard again ends here: the rest was said since."""
        self.is_resting = False
        self._left_out: list[tuple[int, int]] = []
        """Quiet that was not sent: from where, and how much."""

    def place_of(self, heard: int) -> int:
        """Return the place of a sample of the audio that was sent."""
        place = self.begin + heard
        for begin, count in self._left_out:
            place += count if place > begin else 0
        return place

    def piece(self, most: int) -> bytes:
        """Send what comes next, so many samples at most; nothing at the end of the line."""
        piece = self._replay.piece(self.sent, most)
        self.sent += len(piece) // 2
        return piece

    def rest(self, now_s: float) -> bool:
        """Rest, if there is nothing but quiet to be sent and there is speech that is still listened to."""
        listened = self._replay.place(LISTENS * (now_s - self._began_s))
        is_quiet = self._quiet_ahead() is not None and not self._replay.is_sounding
        self.is_resting = is_quiet and self._sent_in_all() > listened
        return self.is_resting

    def leave_out_quiet(self) -> int:
        """Go on shortly before the next speech, or shortly before now; return how much is left out, in samples."""
        self.is_resting = False
        until = self._quiet_ahead()
        if until is None or until <= self.sent:
            return 0
        count = until - self.sent
        self._left_out.append((self.sent, count))
        self.sent = until
        return count

    def _sent_in_all(self) -> int:
        return self.sent - self.begin - sum(count for _, count in self._left_out)

    def _quiet_ahead(self) -> int | None:
        """Return up to where what comes next is quiet that need not be sent, None if it is not."""
        margin = self._replay.place(QUIET_SENT_S)
        began, until = self._replay.quiet_at(self.sent)
        return until - margin if self.sent >= began + margin else None
