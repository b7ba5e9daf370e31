"""Where a voice's frames belong in the agent's audio, while they come in. Pure; part of `playout`.

A voice makes one utterance at a time: its audio, and words with times of the pipeline's clock, which an anchor ties to
that audio. Positions are samples of the agent's audio since the call began, as in `playout_ledger`.

    BETWEEN --begin--> OPEN --end | forget--> BETWEEN

Another line may be put into the middle of an open utterance, and what was to be taken back may have been heard
already: `shift` moves all that follows.
"""

_NS_PER_S = 1_000_000_000


class VoiceIntake:
    """The utterance that is coming in."""

    def __init__(self, rate_hz: int) -> None:
        """Begin between two utterances; `rate_hz` is that of the agent's audio."""
        self.context_id: str | None = None
        """The open utterance's context, None between utterances."""
        self.is_protected = False
        """Whether it plays to its end."""
        self._rate_hz = rate_hz
        self._start = 0
        self._has_audio = False
        self._anchor_ns: int | None = None
        self._last_pts: int | None = None

    @property
    def start(self) -> int:
        """Position of its first sample, as its words count."""
        return self._start

    def begin(self, context_id: str | None, *, at: int, is_protected: bool = False) -> None:
        """An utterance begins behind all audio up to `at`."""
        self.context_id, self.is_protected = context_id, is_protected
        self._start = at
        self._has_audio = False
        self._anchor_ns = None

    def end(self) -> None:
        """Nothing more of it comes, or of what comes nothing is wanted."""
        self.context_id = None

    def anchor(self, anchor_ns: int, *, at: int) -> None:
        """Its next audio stands at `at`, and at `anchor_ns` of the pipeline's clock."""
        self._anchor_ns, self._start = anchor_ns, at
        self._last_pts = None  # the first word may have the time of another reply's last one

    def shift(self, by: int) -> None:
        """What follows stands `by` samples later."""
        self._start += by

    def audio_came(self) -> bool:
        """Note audio; returns whether it is the utterance's first."""
        is_first, self._has_audio = not self._has_audio, True
        return is_first

    def word_start(self, pts: int | None) -> int | None:
        """Return the position of the first sample of a word with this time.

        Args:
            pts: Nanoseconds of the pipeline's clock.

        Returns:
            None if that is not known: a word with the time of the one before it was never timed by the vendor.
        """
        if pts is None or self._anchor_ns is None or pts == self._last_pts:
            return None
        self._last_pts = pts
        return self._start + round((pts - self._anchor_ns) / _NS_PER_S * self._rate_hz)
