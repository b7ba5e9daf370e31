import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from pipecat.metrics.metrics import LLMTokenUsage
from prometheus_client.parser import text_string_to_metric_families

from bot.metrics import LABEL_VALUES, Metrics, forget_the_dead
from processors.recognisers import RecogniserFailed
from processors.speculation import Prices, SpeculationAccount, Waste
from processors.turn_record import BargeInDecision, ToolRun, TurnRecord
from processors.voices import FailureKind, VoiceFailed

ANSWER = TurnRecord(
    index=1,
    kind="answer",
    speech_end=3.0,
    vad_stop=3.2,
    llm_request=3.25,
    llm_first_token=3.55,
    heard=3.8,
    agent_end=5.1,
    interrupted_at=5.0,
    cut=True,
    tools=(ToolRun("book", 3.3, 3.4, True), ToolRun("slow", 3.3)),
    answer_s=0.8,
)


def samples(metrics: Metrics) -> dict[tuple[str, ...], float]:
    """Return `{(name, label values…): value}` as Prometheus reads it."""
    body, content_type = metrics.exposition()
    assert content_type.startswith("text/plain")
    return {
        (sample.name.removeprefix("firstring_"), *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def test_a_call_from_ring_to_end() -> None:
    metrics = Metrics.create()
    metrics.call_began("phone")
    metrics.call_began("phone")
    metrics.turn(TurnRecord(0, "greeting", heard=0.07), agent="reception", channel="phone")
    metrics.turn(ANSWER, agent="reception", channel="phone")
    metrics.call_ended(
        agent="reception",
        channel="phone",
        outcome="completed",
        duration_s=61.0,
        longest_silence_s=0.8,
        silence_cause="model",
    )
    got = samples(metrics)
    assert got["calls_active", "phone"] == 1
    assert got["calls_total", "reception", "phone", "completed"] == 1
    assert got["call_seconds_sum", "phone"] == 61.0
    assert got["longest_silence_seconds_sum", "model", "phone"] == 0.8
    assert got["greeting_seconds_bucket", "phone", "0.06"] == 0
    assert got["greeting_seconds_bucket", "phone", "0.08"] == 1
    assert got["answer_seconds_sum", "reception", "phone"] == 0.8
    assert got["answer_seconds_count", "reception", "phone"] == 1
    assert got["stop_seconds_sum", "phone"] == pytest.approx(0.1)
    assert got["stage_seconds_sum", "model"] == pytest.approx(0.3)
    assert got["interruptions_total", "reception", "phone"] == 1
    assert got["turns_total", "reception", "phone", "answer"] == 1
    assert got["tool_seconds_sum", "yes", "book"] == pytest.approx(0.1)
    assert got["tool_seconds_count", "unfinished", "slow"] == 0


def test_a_voice_that_failed_and_what_it_cost() -> None:
    metrics = Metrics.create()
    for stage, cost_s in (("speaking", 0.3), ("first_audio", 0.0), ("probe", 0.0)):
        failed = VoiceFailed("elevenlabs", FailureKind.STARVING, stage, "next:cartesia", cost_s)
        metrics.voice_failed(failed, agent="reception")
    got = samples(metrics)
    assert got["voice_failures_total", "next", "reception", "starving", "speaking", "elevenlabs"] == 1
    assert got["voice_failures_total", "next", "reception", "starving", "probe", "elevenlabs"] == 1
    assert got["voice_failure_seconds_count", "elevenlabs"] == 2, "a probe is heard by nobody"
    assert got["voice_failure_seconds_sum", "elevenlabs"] == pytest.approx(0.3)


def test_a_recogniser_that_failed() -> None:
    metrics = Metrics.create()
    for stage, cost_s in (("speaking", 0.4), ("connect", 0.0), ("replay", 0.2)):
        failed = RecogniserFailed("deepgram", FailureKind.CLOSED, stage, "again:deepgram", cost_s)
        metrics.recogniser_failed(failed, agent="reception")
    got = samples(metrics)
    assert got["recogniser_failures_total", "again", "reception", "closed", "speaking", "deepgram"] == 1
    assert got["recogniser_failure_seconds_count", "deepgram"] == 2, "nobody spoke while it was dialled"
    assert got["recogniser_failure_seconds_sum", "deepgram"] == pytest.approx(0.6)


def test_what_was_thought_ahead_for_nothing() -> None:
    account = SpeculationAccount(budget_usd=1.0, prices=Prices(per_character=0.001))
    for verdict in (account.confirm, account.withdraw, account.withdraw):
        account.begin()
        account.spent(Waste(input_tokens=100, characters=20))
        verdict()
    metrics = Metrics.create()
    metrics.speculation(account, agent="reception")
    got = samples(metrics)
    assert got["speculations_total", "reception", "confirmed"] == 1
    assert got["speculations_total", "reception", "withdrawn"] == 2
    assert got["speculation_waste_total", "reception", "input_tokens"] == 200
    assert got["speculation_waste_total", "reception", "characters"] == 40
    assert got["speculation_waste_usd_total", "reception"] == pytest.approx(0.04)


def test_decisions_about_sounds() -> None:
    metrics = Metrics.create()
    decisions = (BargeInDecision("pause", "sound", 1.0), BargeInDecision("resume", "noise", 1.1))
    metrics.turn(TurnRecord(0, "answer", barge_in=decisions), agent="reception", channel="phone")
    got = samples(metrics)
    assert got["barge_in_total", "phone", "pause", "sound"] == 1
    assert got["barge_in_total", "phone", "resume", "noise"] == 1


def test_counters() -> None:
    metrics = Metrics.create()
    metrics.call_refused("full")
    metrics.media_fault("bad base64", 3)
    metrics.marks_lost(2)
    metrics.voice_windows_dropped(4)
    metrics.llm_tokens(vendor="anthropic", model="m", kind="output", count=20)
    metrics.llm_tokens(vendor="anthropic", model="m", kind="output", count=-5)
    metrics.llm_asked(vendor="anthropic", model="m", tier="strong", reason="repair")
    metrics.llm_attempt_failed(vendor="openai", failure="hang", stage="answer", response="next")
    metrics.llm_hedged(vendor="openai")
    spent = LLMTokenUsage(prompt_tokens=9, completion_tokens=3, total_tokens=20, cache_read_input_tokens=8)
    metrics.llm_wasted(vendor="openai", model="m", tokens=spent)
    metrics.tts_characters("cartesia", 12)
    metrics.stt_seconds("deepgram", 1.5)
    metrics.audio_cache_lookup("memory")
    metrics.loop_lag(0.003)
    metrics.loop_lag(-0.003)
    metrics.teardown(0.2)
    metrics.tasks(9)
    metrics.tasks(7)
    metrics.store_failed(store="redis")
    metrics.write_lost(store="redis", kind="event", reason="full")
    got = samples(metrics)
    assert got["calls_refused_total", "full"] == 1
    assert got["media_faults_total", "bad base64"] == 3
    assert got[("marks_lost_total",)] == 2
    assert got[("voice_windows_dropped_total",)] == 4
    assert got["llm_tokens_total", "output", "m", "anthropic"] == 20
    assert got["llm_requests_total", "m", "repair", "strong", "anthropic"] == 1
    assert got["llm_failures_total", "hang", "next", "answer", "openai"] == 1
    assert got["llm_hedges_total", "openai"] == 1
    assert got["llm_wasted_tokens_total", "input", "m", "openai"] == 17
    assert got["llm_wasted_tokens_total", "output", "m", "openai"] == 3
    assert got["tts_characters_total", "cartesia"] == 12
    assert got["stt_seconds_total", "deepgram"] == 1.5
    assert got["audio_cache_lookups_total", "memory"] == 1
    assert got[("loop_lag_seconds_count",)] == 1
    assert got[("teardown_seconds_sum",)] == 0.2
    assert got[("tasks",)] == 7
    assert got["store_failures_total", "redis"] == 1
    assert got["writes_lost_total", "event", "full", "redis"] == 1


def test_a_call_that_went_on_in_another_worker_is_not_one_of_ours() -> None:
    metrics = Metrics.create()
    metrics.call_began("phone")
    metrics.call_taken("phone")
    got = samples(metrics)
    assert got["calls_active", "phone"] == 0
    assert not [key for key in got if key[0] in ("calls_total", "call_seconds_count")]


def test_values_from_outside_cannot_grow_a_label_without_bound() -> None:
    metrics = Metrics.create()
    for number in range(LABEL_VALUES + 50):
        metrics.media_fault(f"kind {number}" + "x" * 500)
    faults = {key[1]: value for key, value in samples(metrics).items() if key[0] == "media_faults_total"}
    assert len(faults) == LABEL_VALUES + 1
    assert faults["other"] == 50
    assert max(map(len, faults)) <= 64


def test_two_registries_do_not_meet() -> None:
    one, other = Metrics.create(), Metrics.create()
    one.marks_lost()
    assert samples(other)[("marks_lost_total",)] == 0


def test_a_shared_folder_needs_the_environment_first(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="PROMETHEUS_MULTIPROC_DIR"):
        Metrics.create(tmp_path)


WORKER = """
import os, signal
from pathlib import Path
from bot.metrics import Metrics
metrics = Metrics.create(Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]))
metrics.call_began("phone")
metrics.marks_lost(5)
print(metrics.exposition()[0].decode(), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def crashing_worker(folder: Path) -> str:
    """Run a worker that is killed with a call on its line; return the last exposition it made."""
    environment = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(folder)}
    done = subprocess.run(  # noqa: S603 - our own script
        [sys.executable, "-c", WORKER],
        env=environment,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    return done.stdout


def test_workers_are_summed_and_dead_ones_have_no_calls(tmp_path: Path) -> None:
    crashing_worker(tmp_path)
    exposition = crashing_worker(tmp_path)
    assert "firstring_marks_lost_total 10.0" in exposition
    assert 'firstring_calls_active{channel="phone"} 1.0' in exposition
    assert len(list(tmp_path.glob("gauge_livesum_*.db"))) == 1


def test_living_workers_are_not_forgotten(tmp_path: Path) -> None:
    alive, foreign = tmp_path / f"gauge_livesum_{os.getppid()}.db", tmp_path / "gauge_livesum_none.db"
    alive.touch()
    foreign.touch()
    forget_the_dead(tmp_path)
    assert alive.exists()
    assert foreign.exists()
