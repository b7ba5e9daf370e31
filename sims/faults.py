"""Faults one can turn on a vendor at run time, by HTTP or in process.

A sim asks its `FaultBoard` once for each request or socket (`take`) and acts out what it gets; the
board only counts. Which faults a vendor can act out is the vendor's `supported` set.
"""

import enum
import random
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from pydantic import BaseModel, NonNegativeFloat, PositiveInt


class FaultKind(enum.Enum):
    """What goes wrong."""

    REFUSE = "refuse"
    """TCP is accepted and closed at once, before any HTTP answer."""
    UNAUTHORIZED = "401"
    RATE_LIMITED = "429"
    SERVER_ERROR = "500"
    OVERLOADED = "529"
    HANG_BEFORE_FIRST_BYTE = "hang_before_first_byte"
    """Accepted, then nothing at all."""
    HANG_AFTER_FIRST_BYTE = "hang_after_first_byte"
    """A little content, then nothing, the connection stays open."""
    CLOSE_MID_STREAM = "close_mid_stream"
    """A little content, then the connection is cut without a goodbye."""
    SLOW_FIRST_BYTE = "slow_first_byte"
    """The first content comes `after_s` later than it would."""
    TRICKLE = "trickle"
    """Content at a fifth of the speed of speech, so that playing it starves."""
    GARBAGE = "garbage"
    """Something that is not the protocol."""
    EMPTY = "empty"
    """A well-formed answer without content."""


class FaultSpec(BaseModel, frozen=True, extra="forbid"):
    """One fault as asked for over HTTP: `{"kind": "429", "count": 2}`."""

    kind: FaultKind
    count: PositiveInt | None = None
    """Requests or sockets it hits; None means until cleared."""
    skip: int = 0
    """Requests or sockets let through first."""
    after_s: NonNegativeFloat = 0.5
    """Where a fault happens mid-stream: content time in seconds (audio) or wall time (tokens)."""
    after_words: int | None = None
    """Of a recogniser: a fault mid-stream happens behind so many scripted words, in place of `after_s`."""
    keyterm: str | None = None
    """Of a recogniser: hits only sockets that ask for this key term. None hits every socket."""
    voice: str | None = None
    """Of a voice vendor: hits only what is spoken with this voice. None hits every voice."""
    model: str | None = None
    """Of a vendor of models: hits only what is asked of this model. None hits every model."""
    caller: str | None = None
    """Of the carrier: hits only requests about calls of this caller, or streams of those. None hits every one."""


@dataclass
class _Armed:
    spec: FaultSpec
    skip: int
    left: int | None


class FaultBoard:
    """The armed faults of one vendor, oldest first."""

    def __init__(self, supported: Iterable[FaultKind], *, error_rate: float = 0.0, seed: int = 0) -> None:
        """Create an empty board.

        Args:
            supported: Faults this vendor can act out.
            error_rate: Share of takes that draw a random supported fault when none is armed.
            seed: Seed of that draw.
        """
        self.supported = frozenset(supported)
        self.error_rate = error_rate
        self._rng = random.Random(seed)  # noqa: S311 - repeatable faults, not secrets
        self._armed: list[_Armed] = []
        self.hits: dict[FaultKind, int] = {}

    def arm(self, spec: FaultSpec) -> None:
        """Arm one fault.

        Raises:
            ValueError: If this vendor cannot act it out.
        """
        if spec.kind not in self.supported:
            names = ", ".join(sorted(kind.value for kind in self.supported))
            raise ValueError(f"this vendor cannot {spec.kind.value!r}; it can: {names}")
        self._armed.append(_Armed(spec, spec.skip, spec.count))

    def clear(self) -> None:
        """Disarm everything."""
        self._armed.clear()

    def first(self, voice: str | None = None) -> FaultKind | None:
        """Return what `take` would hit with, if anything is armed for this voice."""
        return next((armed.spec.kind for armed in self._armed if armed.spec.voice in (None, voice)), None)

    def take(
        self,
        voice: str | None = None,
        *,
        keyterms: Collection[str] = (),
        model: str | None = None,
        caller: str | None = None,
    ) -> FaultSpec | None:
        """Return the fault that hits the request or socket now starting, if any.

        Args:
            voice: What it is spoken with, if that is known.
            keyterms: Words that a recogniser is to expect.
            model: What is asked for an answer.
            caller: Whose call a request is about, if it is about one.
        """
        spec = self._take_armed(voice, keyterms, model, caller)
        if spec is None and self.error_rate and self._rng.random() < self.error_rate:
            kinds = sorted(self.supported, key=lambda kind: kind.value)
            spec = FaultSpec(kind=self._rng.choice(kinds))
        if spec is not None:
            self.hits[spec.kind] = self.hits.get(spec.kind, 0) + 1
        return spec

    def _take_armed(
        self, voice: str | None, keyterms: Collection[str], model: str | None, caller: str | None
    ) -> FaultSpec | None:
        for armed in self._armed:
            if armed.spec.voice not in (None, voice) or armed.spec.keyterm not in (None, *keyterms):
                continue
            if armed.spec.model not in (None, model) or armed.spec.caller not in (None, caller):
                continue
            if armed.skip > 0:
                armed.skip -= 1
                return None
            if armed.left is not None:
                armed.left -= 1
                if armed.left == 0:
                    self._armed.remove(armed)
            return armed.spec
        return None
