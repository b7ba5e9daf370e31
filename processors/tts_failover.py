"""The agent's voice, which is that of one vendor or, when that fails, of the next, in the middle of a sentence.

Stands where a Pipecat voice stands and is one: it gathers clauses, keeps the order of what is said and tells each word
once. Its audio contexts, words and their places are of the utterance, not of a vendor, so nothing behind it sees that
voices changed but for a `SpeechCutFrame`. Pipecat's `ServiceSwitcher` cannot do this: it has no access to the text of
the turn, the next service never saw its beginning, and a service that loses its socket has the rest recorded as said.
The vendors' Pipecat services are hosted (`HostedVoice`) for what they know of the wire.

An utterance is said by one voice at a time, its *leg*. What it has said is the script's to know (`VoiceScript`),
whether it keeps up is the watch's (`VoiceWatch`), whether a vendor is in order the process's (`VoiceHealth`).

    LEG --refused | error | lost | late | starving | silent--> what was not said goes to the next voice, another leg
    LEG --nothing owed, a better voice is well again | the vendor has forgotten it--> next text begins another leg
    LEG --all said--> the utterance ends
    no voice left | too many failures--> the utterance ends with what was said, the rest is forgotten,
        `on_voices_failed`

Every voice is connected from the start of the call. A vendor that failed is probed, by one call for all, with a word
that nobody hears; it is returned to when the next text begins and nothing is owed.
"""

import asyncio
import uuid
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field

from loguru import logger
from pipecat.frames.frames import (
    CancelFrame,
    EndFrame,
    Frame,
    MetricsFrame,
    TTSAudioRawFrame,
    TTSStoppedFrame,
    TTSTextFrame,
)
from pipecat.metrics.metrics import TTSUsageMetricsData
from pipecat.processors.frame_processor import FrameProcessorSetup
from pipecat.services.settings import TTSSettings
from pipecat.services.tts_service import TextAggregationMode, TTSService
from pipecat.utils.text.base_text_aggregator import BaseTextAggregator

from processors.anchored_speech import AnchoredSpeech
from processors.frames import SpeechCutFrame
from processors.loudness import LoudnessBook, amplify
from processors.speculation import SpeculationAccount, SpeculativeTTS
from processors.voice_health import VoiceHealth
from processors.voice_keeper import Probe, VoiceKeeper
from processors.voice_script import VoiceScript
from processors.voice_watch import Pace, VoiceWatch, WatchLimits
from processors.voices import FailureKind, TimedWord, Voice, VoiceFailed, VoiceFailure

ATTEMPTS = 2
"""Of each voice at one text, the others tried in between; a lost connection is worth another."""
MOST_FAILURES = 6
"""In one utterance, whatever was said in between. Voices that all break off after a word or two are none that a caller
can be left with."""
END_LIMIT_S = 0.6
"""Everything is said and the vendor was told that nothing more comes: it has so long to say the same."""
CLOSE_LIMIT_S = 1.0
_TICK_S = 0.04
_OWN_STALL_S = 0.08
"""A process that was held up for so long itself must not blame a vendor."""
_BROKEN = (FailureKind.LATE, FailureKind.STARVING, FailureKind.SILENT, FailureKind.GARBAGE)
"""After these a connection is not to be trusted, though it may seem in order."""
TAIL_BELOW_S = 0.12
"""Words are passed on when they are whole, so that the next voice has none to begin anew; with less than this buffered
a word is begun before."""
HOLD_LIMIT_S = 0.3
HOLD_AUDIO_S = 0.4
"""The first word of a voice is waited for so long, or so much of it. It takes some ten milliseconds."""
_DRY_S = 0.02
_BEGUN_S = 0.12
"""Sound behind the last word of a text that is not its end any more."""
_OPEN_CONTEXT_LIMIT_S = 60.0
"""Pipecat's own limit of an utterance in which nothing happens: ours come long before."""


@dataclass
class _Loss:
    """A failure whose cost is not known yet."""

    leg: "_Leg"
    failure: VoiceFailure
    stage: str
    dry_s: float | None
    """When the caller will have heard all that was there; None if nobody was listening."""


@dataclass(eq=False)
class _Leg:
    """What one voice says of an utterance."""

    voice: Voice
    speech: "_Speech"
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    """Context at the vendor."""
    texts: "asyncio.Queue[str | None]" = field(default_factory=asyncio.Queue)
    """What it is to say; None behind the last."""
    feeding: "asyncio.Task[None] | None" = None
    odd_byte: bytes = b""
    gain: float = 1.0
    tail: bytearray = field(default_factory=bytearray)
    """Audio that is not passed on yet: of a word that is not whole."""
    tail_since_s: float = 0.0
    passed: int = 0
    """Where in the utterance's audio the tail begins."""
    is_connected: bool = False
    is_finished: bool = False
    """Whether it was told that nothing more comes."""


@dataclass(eq=False)
class _Speech:
    """One utterance: what an audio context of ours holds."""

    context_id: str
    script: VoiceScript
    watch: VoiceWatch
    leg: _Leg | None = None
    attempts: Counter[str] = field(default_factory=Counter)
    """By vendor, since something was last said."""
    failures: int = 0
    """Since it began."""
    dry_since_s: float | None = None
    """Since when the listener has nothing left to hear."""
    losses: list[_Loss] = field(default_factory=list)


class FailoverTTS(SpeculativeTTS, AnchoredSpeech, TTSService):
    """See the module. Events: `on_voice_failed(VoiceFailed)`, `on_voices_failed()`."""

    def __init__(
        self,
        voices: Sequence[Voice],
        *,
        health: VoiceHealth,
        loudness: LoudnessBook,
        rate_hz: int,
        aggregator: BaseTextAggregator | None = None,
        text_aggregation_mode: TextAggregationMode = TextAggregationMode.SENTENCE,
        limits: WatchLimits | None = None,
    ) -> None:
        """Create the voice; it connects when the pipeline is set up.

        Args:
            voices: The vendors' voices, the one to begin with first.
            health: Shared by all calls of the process.
            loudness: Shared too; the others are made as loud as the first.
            rate_hz: Sample rate of the agent's audio.
            aggregator: Parts the model's text; None takes Pipecat's.
            text_aggregation_mode: How text reaches the vendors.
            limits: When a voice has failed.

        Raises:
            ValueError: If there is no voice.
        """
        if not voices:
            raise ValueError("a call needs a voice")
        super().__init__(
            sample_rate=rate_hz,
            push_start_frame=True,
            push_text_frames=False,
            pause_frame_processing=True,  # so that a call has one context open at a vendor, as its plan counts them
            stop_frame_timeout_s=_OPEN_CONTEXT_LIMIT_S,
            max_consecutive_zero_audio_contexts=0,
            append_trailing_space=True,  # without it ElevenLabs gives a reply's last word no time of its own
            text_aggregation_mode=text_aggregation_mode,
            settings=TTSSettings(model=None, voice=None, language=None),
        )
        if aggregator is not None:
            self._text_aggregator = aggregator
        self.voices = tuple(voices)
        self._health = health
        self._loudness = loudness
        self._rate_hz = rate_hz
        self._limits = limits
        self._buffered_s: Callable[[], float | None] = lambda: None
        self._unsent_s: Callable[[], float] = lambda: 0.0
        self._speeches: dict[str, _Speech] = {}
        """Utterances that are not all there yet, by context."""
        self._legs: dict[str, _Leg] = {}
        self._abandoned: set[str] = set()
        """Contexts that no voice could finish."""
        self._keepers = {
            voice.vendor: VoiceKeeper(voice, health, rate_hz=rate_hz, tell=self._tell) for voice in voices
        }
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._drops: set[asyncio.Task[None]] = set()
        self._is_released = False
        self._register_event_handler("on_voice_failed")
        self._register_event_handler("on_voices_failed")

    def follow_playout(
        self, buffered_s: Callable[[], float | None], *, unsent_s: Callable[[], float]
    ) -> None:
        """Learn how far the playout is.

        Args:
            buffered_s: Returns how much audio waits to be heard, in seconds; None while nobody listens or it is paused.
            unsent_s: Returns how much of it can be taken back, in seconds.
        """
        self._buffered_s, self._unsent_s = buffered_s, unsent_s

    def think_ahead(self, account: SpeculationAccount) -> None:
        """Join the call's account with every voice; they count what they are given."""
        super().think_ahead(account)
        for voice in self.voices:
            if isinstance(voice, SpeculativeTTS):
                voice.think_ahead(account)

    # Life

    async def setup(self, setup: FrameProcessorSetup) -> None:
        """Begin to connect every voice; does not wait for it: a vendor that hangs must not hold up the call."""
        await super().setup(setup)
        for voice in self.voices:
            await voice.open(setup, self)
            keeping = self._keepers[voice.vendor].run()
            self._tasks.append(self.create_task(keeping, f"keep_{voice.vendor}"))
        self._tasks.append(self.create_task(self._watch(), "watch_voices"))

    async def stop(self, frame: EndFrame) -> None:
        """Play all there is, then let go of the voices."""
        await super().stop(frame)
        await self._release()

    async def cancel(self, frame: CancelFrame) -> None:
        """Let go of the voices at once."""
        await super().cancel(frame)
        await self._release()

    async def cleanup(self) -> None:
        """Let go of the voices, however the call ends."""
        await super().cleanup()
        await self._release()

    async def _release(self) -> None:
        if self._is_released:
            return
        self._is_released = True
        for speech in list(self._speeches.values()):
            self._forget(speech)
        tasks, self._tasks = self._tasks, []
        for task in [*tasks, *self._drops]:
            await self.cancel_task(task)
        await self._close_voices()

    async def _close_voices(self) -> None:
        closing = {
            asyncio.create_task(voice.close(), name=f"close_{voice.vendor}"): voice for voice in self.voices
        }
        done, late = await asyncio.wait(closing, timeout=CLOSE_LIMIT_S)
        for task in late:
            task.cancel()
        for task in done:
            if (error := task.exception()) is not None:
                logger.warning("{} could not be closed: {!r}", closing[task].vendor, error)

    # Speaking

    async def run_tts(self, text: str, context_id: str) -> AsyncGenerator[Frame | None, None]:
        """Have the utterance of a context say one more text."""
        if context_id not in self._abandoned:
            speech = self._speeches.get(context_id)
            if speech is None:
                script = VoiceScript(rate_hz=self._rate_hz)
                speech = _Speech(context_id, script, VoiceWatch(self._limits))
                self._speeches[context_id] = speech
            is_idle = speech.script.is_said
            speech.script.add(text)
            if is_idle and (speech.leg is None or self._is_over(speech.leg)):
                self._end_leg(speech)
                await self._begin_leg(speech, (text,))
            elif speech.leg is not None:
                speech.watch.asked(self._now_s())
                speech.leg.texts.put_nowait(text)
            self._changed.set()
        yield None

    async def flush_audio(self, context_id: str | None = None) -> None:
        """The utterance of a context is complete."""
        speech = self._speeches.get(context_id or "")
        if speech is None:
            if context_id in self._abandoned and self.audio_context_available(context_id):
                await self._end_context(context_id)  # Pipecat opened it anew for the text that came later
            return
        speech.script.is_complete = True
        if speech.leg is None:
            await self._close(speech)
        else:
            self._finish(speech.leg)
        self._changed.set()

    async def on_audio_context_interrupted(self, context_id: str) -> None:
        """Forget an utterance, and with it whatever a failed voice left to another."""
        speech = self._speeches.get(context_id)
        self._abandoned.discard(context_id)
        if speech is not None:
            await self._settle(speech, "dropped")
            self._forget(speech)

    async def on_audio_context_completed(self, context_id: str) -> None:
        """Forget a context that was played."""
        await super().on_audio_context_completed(context_id)
        if context_id != self._turn_context_id:
            self._abandoned.discard(context_id)

    async def _apply_force_complete(self, context_id: str) -> None:
        # What a vendor never timed was said; what no voice said was not, whatever was asked for.
        frames = self._aggregated_frame_sequencer.force_complete(
            context_id, self._word_timestamp_tracker.last_pts
        )
        is_unsaid = context_id in self._abandoned
        await self._push_word_frames(
            [frame for frame in frames if not (is_unsaid and isinstance(frame, TTSTextFrame))]
        )

    # Legs

    def _is_over(self, leg: _Leg) -> bool:
        """Whether the next text is better said by another leg. Only when nothing is owed."""
        idle_s = self._now_s() - leg.speech.watch.last_s
        best = next((voice for voice in self.voices if self._health.is_well(voice.vendor)), leg.voice)
        return leg.is_finished or idle_s > leg.voice.idle_limit_s or leg.voice is not best

    def _order(self, speech: _Speech) -> list[Voice]:
        """Return the voices that may be tried, the best first."""
        return sorted(
            (voice for voice in self.voices if self._may_try(speech, voice)),
            key=lambda voice: (speech.attempts[voice.vendor], not self._health.is_well(voice.vendor)),
        )

    def _may_try(self, speech: _Speech, voice: Voice) -> bool:
        return speech.attempts[voice.vendor] < ATTEMPTS

    def _end_leg(self, speech: _Speech) -> None:
        """Take leave of a leg that owes nothing."""
        leg, speech.leg = speech.leg, None
        if leg is not None:
            self._stop_leg(leg)
            speech.script.begin_voice()

    async def _begin_leg(self, speech: _Speech, texts: Sequence[str], *, again: Voice | None = None) -> None:
        """Have the next voice say texts, `again` if it may; give the utterance up when none is left."""
        if self._is_released:
            return
        voices = self._order(speech) if again is None or not self._may_try(speech, again) else [again]
        if not voices or speech.failures >= MOST_FAILURES:
            await self._give_up(speech)
            return
        # When all plans are used up the best voice is asked all the same: its vendor may see that differently.
        voice = next((one for one in voices if self._health.begin(one.vendor, one.most_at_once)), None)
        if voice is None:
            voice = voices[0]
            self._health.begin(voice.vendor, None)
        speech.attempts[voice.vendor] += 1
        leg = _Leg(voice, speech, gain=self._loudness.gain(voice.sound, self.voices[0].sound))
        leg.passed = speech.script.audio
        speech.leg = self._legs[leg.id] = leg
        speech.watch = VoiceWatch(self._limits)
        speech.watch.asked(self._now_s())
        for text in texts:
            leg.texts.put_nowait(text)
        if speech.script.is_complete:
            self._finish(leg)
        leg.feeding = self.create_task(self._feed(leg), f"feed_{voice.vendor}")
        self._changed.set()

    async def _feed(self, leg: _Leg) -> None:
        """Give a voice its texts as they come."""
        try:
            await self._keepers[leg.voice.vendor].connect()
            leg.is_connected = True
            while (text := await leg.texts.get()) is not None:
                await leg.voice.speak(text, leg.id)
            await leg.voice.finish(leg.id)
        except VoiceFailure as failure:
            await self._fail(leg, failure)

    def _finish(self, leg: _Leg) -> None:
        if not leg.is_finished:
            leg.is_finished = True
            leg.texts.put_nowait(None)

    def _stop_leg(self, leg: _Leg, *, is_broken: bool = False) -> None:
        """Let go of a leg and have its vendor stop, if only by cutting the connection."""
        if self._legs.pop(leg.id, None) is None:
            return
        self._health.end(leg.voice.vendor)
        if leg.feeding is not None and leg.feeding is not asyncio.current_task():
            leg.feeding.cancel()
        if is_broken:
            leg.voice.cut()
        elif not self._is_released:
            self._drop_later(leg.voice, leg.id)

    def _drop_later(self, voice: Voice, context_id: str) -> None:
        task = self.create_task(voice.drop(context_id), f"drop_{voice.vendor}")
        self._drops.add(task)
        task.add_done_callback(self._drops.discard)

    def _forget(self, speech: _Speech) -> None:
        self._speeches.pop(speech.context_id, None)
        if speech.leg is not None:
            self._stop_leg(speech.leg)
            speech.leg = None

    async def _close(self, speech: _Speech) -> None:
        """The utterance is all there."""
        self._forget(speech)
        await self._settle(speech, "none")
        await self._end_context(speech.context_id)

    async def _end_context(self, context_id: str) -> None:
        await self.append_to_audio_context(context_id, TTSStoppedFrame(context_id=context_id))
        await self.remove_audio_context(context_id)

    async def _give_up(self, speech: _Speech) -> None:
        """No voice is left for the rest of an utterance."""
        self._abandoned.add(speech.context_id)
        await self._settle(speech, "gave_up")
        await self._close(speech)
        await self._call_event_handler("on_voices_failed")

    # Failure

    async def _fail(self, leg: _Leg, failure: VoiceFailure) -> None:
        """A voice cannot go on: let what it said stand, and the next say the rest."""
        if leg.id not in self._legs:
            return
        speech, now_s = leg.speech, self._now_s()
        stage = _stage(leg)
        said, cut = speech.script.cut(leg.voice.whole_word(leg.id), begun=self._begun(leg))
        self._stop_leg(leg, is_broken=failure.kind in _BROKEN)
        speech.leg = None
        if failure.kind is not FailureKind.FORGOTTEN:
            speech.failures += 1
            self._health.failed(leg.voice.vendor, failure.kind, now_s)
            self._keepers[leg.voice.vendor].wake()
        await self._pass_on(leg, cut.keep)
        await self._tell_words(speech, said)
        await self.append_to_audio_context(speech.context_id, SpeechCutFrame(speech.context_id, cut.keep))
        buffered_s = self._buffered_s()
        dry_s = None if buffered_s is None else speech.dry_since_s or now_s + buffered_s
        speech.losses.append(_Loss(leg, failure, stage if cut.rest else "done", dry_s))
        if cut.rest:
            is_soft = failure.kind is FailureKind.FORGOTTEN
            await self._begin_leg(speech, cut.rest, again=leg.voice if is_soft else None)
        elif speech.script.is_complete:
            await self._close(speech)
        else:
            await self._settle(speech, "none")

    def _begun(self, leg: _Leg) -> int | None:
        """Return up to where a leg's audio is heard in any case, None if all of it can be taken back."""
        if self._buffered_s() is None:
            return None
        return leg.passed - round(self._unsent_s() * self._rate_hz)

    async def _settle(self, speech: _Speech, action: str) -> None:
        """Tell of the failures of an utterance: it is known now what they cost."""
        losses, speech.losses = speech.losses, []
        now_s = self._now_s()
        dry = [loss.dry_s for loss in losses if loss.dry_s is not None]
        cost_s = max(0.0, now_s - min(dry)) if dry and action != "none" else 0.0
        for loss in losses:
            await self._tell(
                VoiceFailed(
                    vendor=loss.leg.voice.vendor,
                    kind=loss.failure.kind,
                    stage=loss.stage,
                    action=action,
                    cost_s=cost_s if loss is losses[-1] else 0.0,
                    detail=loss.failure.detail,
                )
            )

    async def _tell(self, failed: VoiceFailed) -> None:
        await self._call_event_handler("on_voice_failed", failed)

    async def _watch(self) -> None:
        """Look after the utterances that are being made."""
        was_held_up = False
        while True:
            self._changed.clear()
            if any(_is_busy(speech) for speech in self._speeches.values()):
                due_s = self._now_s() + _TICK_S
                await asyncio.sleep(_TICK_S)
                before, was_held_up = was_held_up, self._now_s() - due_s > _OWN_STALL_S
                if was_held_up and not before:
                    continue  # it was us: what the vendors sent meanwhile is read first, but once and not for ever
            else:
                await self._changed.wait()
            for speech in list(self._speeches.values()):
                await self._look_after(speech)

    async def _look_after(self, speech: _Speech) -> None:
        leg, script, now_s = speech.leg, speech.script, self._now_s()
        if leg is None:
            return
        buffered_s = self._buffered_s()
        if buffered_s is None or buffered_s > _DRY_S:
            speech.dry_since_s = None
        elif speech.dry_since_s is None:
            speech.dry_since_s = max(now_s, speech.watch.since_s)
        if leg.tail and self._wants_tail(leg, buffered_s):
            await self._pass_on(leg, script.audio)
        kind = speech.watch.verdict(
            now_s,
            buffered_s=buffered_s,
            owed_s=script.owed_s(),
            silence_s=script.silence_s,
            has_sound=script.has_sound,
        )
        if kind is not None:
            await self._fail(leg, VoiceFailure(kind))
        elif leg.is_finished and now_s - speech.watch.last_s > END_LIMIT_S:
            await self._end_or_fail(leg, buffered_s)

    async def _end_or_fail(self, leg: _Leg, buffered_s: float | None) -> None:
        """A voice that seems to have made all the sound there is was told to finish, and does not say that it has."""
        speech = leg.speech
        if speech.script.is_said:
            logger.debug("{} never said that it was done", leg.voice.vendor)
            await self._close(speech)
        elif speech.watch.state is Pace.IDLE and (buffered_s or 0.0) <= speech.watch.limits.reserve_s:
            await self._fail(leg, VoiceFailure(FailureKind.STARVING, "it stopped within its last word"))

    # What voices tell

    async def voice_audio(self, voice: Voice, context_id: str, pcm: bytes) -> None:
        """Pass a voice's audio on."""
        if (probe := self._probe(voice, context_id)) is not None:
            probe.audio(pcm, self._now_s())
        leg = self._legs.get(context_id)
        if leg is None:
            return
        pcm = leg.odd_byte + pcm
        leg.odd_byte = pcm[len(pcm) // 2 * 2 :]
        pcm = pcm[: len(pcm) // 2 * 2]
        speech, now_s = leg.speech, self._now_s()
        is_audible = speech.script.add_audio(pcm)
        is_of_text = is_audible and (not speech.watch.has_flowed or speech.script.new_sound_s() > _BEGUN_S)
        speech.watch.audio(len(pcm) / 2 / self._rate_hz, now_s, is_audible=is_of_text)
        self._loudness.hear(voice.sound, pcm, self._rate_hz)
        if is_audible and speech.losses:
            is_same = speech.losses[-1].leg.voice is voice
            await self._settle(speech, f"{'again' if is_same else 'next'}:{voice.vendor}")
        pcm = amplify(pcm, leg.gain)
        if not leg.tail:
            leg.tail_since_s = now_s
        leg.tail += pcm
        await self._follow(speech)

    async def voice_words(self, voice: Voice, context_id: str, words: Sequence[TimedWord]) -> None:
        """Take the times of a voice's words."""
        leg = self._legs.get(context_id)
        if leg is not None:
            leg.speech.script.add_words(words)
            await self._follow(leg.speech)

    async def voice_ended(self, voice: Voice, context_id: str) -> None:
        """A voice says that it has said all."""
        if (probe := self._probe(voice, context_id)) is not None:
            probe.over.set()
        leg = self._legs.get(context_id)
        if leg is None:
            return
        speech = leg.speech
        said, is_true = speech.script.ended()
        await self._pass_on(leg, speech.script.said_end)
        await self._tell_words(speech, said)
        if not is_true:
            await self._fail(leg, VoiceFailure(FailureKind.SILENT, "it ended without audio for all the text"))
        elif speech.script.is_complete:
            await self._close(speech)
        else:
            self._end_leg(speech)
        self._changed.set()

    async def voice_failed(self, voice: Voice, context_id: str, failure: VoiceFailure) -> None:
        """A voice cannot go on with one context."""
        if (probe := self._probe(voice, context_id)) is not None:
            probe.failed(failure)
        elif (leg := self._legs.get(context_id)) is not None:
            await self._fail(leg, failure)

    async def voice_lost(self, voice: Voice, failure: VoiceFailure | None) -> None:
        """A voice's connection is gone."""
        failure = failure or VoiceFailure(FailureKind.CLOSED, "in good order")
        legs = [leg for leg in self._legs.values() if leg.voice is voice]
        for leg in legs:
            await self._fail(leg, failure)
        await self._keepers[voice.vendor].lost(failure, was_speaking=bool(legs))

    def _probe(self, voice: Voice, context_id: str) -> Probe | None:
        """Return the probe that a context is of, if it is one's."""
        probe = self._keepers[voice.vendor].probe
        return probe if probe is not None and probe.context_id == context_id else None

    async def voice_frame(self, voice: Voice, frame: Frame) -> None:
        """Pass a voice's usage on, under its vendor's name."""
        if isinstance(frame, MetricsFrame):
            for report in frame.data:
                if isinstance(report, TTSUsageMetricsData):
                    report.processor = voice.vendor
        await self.push_frame(frame)

    async def _pass_on(self, leg: _Leg, position: int) -> None:
        """Pass on a leg's audio up to a position of the utterance's."""
        size = 2 * max(0, position - leg.passed)
        pcm = bytes(leg.tail[:size])
        del leg.tail[:size]
        if pcm:
            leg.passed += len(pcm) // 2
            frame = TTSAudioRawFrame(pcm, self._rate_hz, 1, context_id=leg.speech.context_id)
            await self.append_to_audio_context(leg.speech.context_id, frame)

    def _wants_tail(self, leg: _Leg, buffered_s: float | None) -> bool:
        """Whether a word that is not whole must be begun all the same."""
        if buffered_s is None:
            return True
        if leg.speech.script.has_said_by_voice:
            return buffered_s < TAIL_BELOW_S
        is_long = len(leg.tail) >= 2 * HOLD_AUDIO_S * self._rate_hz
        return buffered_s < TAIL_BELOW_S and (is_long or self._now_s() - leg.tail_since_s >= HOLD_LIMIT_S)

    async def _follow(self, speech: _Speech) -> None:
        """Tell the words that were said since, and what is awaited now."""
        piece = speech.script.piece
        said = speech.script.take_said()
        if speech.leg is not None:
            wants_all = self._wants_tail(speech.leg, self._buffered_s())
            await self._pass_on(speech.leg, speech.script.audio if wants_all else speech.script.said_end)
        await self._tell_words(speech, said)
        if said:
            speech.attempts.clear()
        if speech.script.is_said or speech.script.owed_s() == 0.0:
            speech.watch.all_made()
            if said and speech.leg is not None:
                self._health.succeeded(speech.leg.voice.vendor)
        elif speech.script.piece != piece:
            speech.watch.next_text(self._now_s())

    async def _tell_words(self, speech: _Speech, words: Sequence[TimedWord]) -> None:
        await self.add_word_timestamps([(word.text, word.start_s) for word in words], speech.context_id)

    def _now_s(self) -> float:
        return asyncio.get_running_loop().time()


def _is_busy(speech: _Speech) -> bool:
    return speech.leg is not None and (speech.watch.state is not Pace.IDLE or speech.leg.is_finished)


def _stage(leg: _Leg) -> str:
    if not leg.is_connected:
        return "connect"
    return "speaking" if leg.speech.script.has_sound else "first_audio"
