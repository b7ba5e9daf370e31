"""`firstring call` as a person runs it: sims and launcher are processes of their own."""

import http.server
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import pytest

from bot import trial_call
from bot.settings import load_settings
from bot.sim_calls import SimCallError
from bot.sim_process import SimProcess
from bot.timeline import read_timeline
from bot.trial_call import run_trial_call

pytestmark = pytest.mark.real_time

ROOT = Path(__file__).parent.parent.parent


def firstring_call(folder: Path, scenario: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "bot.cli",
        "call",
        "--json",
        "--profile",
        "instant",
        "--scenario",
        scenario,
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "AGENTS_DIR": str(ROOT / "flows")}
    return subprocess.run(  # noqa: S603 - our own command
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=100, check=False
    )


@pytest.mark.timeout(110)
def test_a_call_leaves_what_both_ends_know_and_nothing_else(tmp_path: Path) -> None:
    result = firstring_call(tmp_path, "hangup_early")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["outcome"] == "ok"
    folder = tmp_path / report["folder"]
    assert folder.name == report["call_sid"]
    assert {path.name for path in folder.iterdir()} == {
        "call.wav",
        "caller.json",
        "timeline.json",
        "transcript.txt",
    }
    assert report["wav"] == json.loads((folder / "caller.json").read_text())["wav"]
    assert tmp_path / report["wav"] == folder / "call.wav"
    timeline = read_timeline(folder / "timeline.json")
    assert timeline.ended_reason == "caller_hung_up"
    assert timeline.caller_end is not None
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [folder.name]


@contextmanager
def no_launcher(environment: Mapping[str, str]) -> Generator[None]:
    assert environment["WORKERS"] == "1"
    yield


class _Ready(http.server.BaseHTTPRequestHandler):
    """A launcher that is ready, and nothing more."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/readyz" else 404)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def ready_launcher(environment: Mapping[str, str]) -> Generator[None]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", int(environment["PORT"])), _Ready) as server:
        serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        serving.start()
        try:
            yield
        finally:
            server.shutdown()
            serving.join(5.0)


def test_a_call_that_the_sim_does_not_place_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(trial_call, "_launcher", ready_launcher)
    with SimProcess.start(profile="instant", seed=1) as sims:
        settings = load_settings(
            _env_file=None,
            agents_dir=ROOT / "flows",
            twilio={"base_url": sims.environment["TWILIO_BASE_URL"]},
        )
        code = run_trial_call(settings, environment={}, scenario="none", as_json=False, runs_dir=tmp_path)
    assert code == 1
    told = " ".join(capsys.readouterr().err.split())
    assert "the call could not be made:" in told
    assert "none" in told.partition("the call could not be made:")[2]
    assert list(tmp_path.iterdir()) == []


def test_no_call_is_ordered_from_the_real_carrier(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def call(*_: Any) -> NoReturn:
        raise AssertionError("somebody was asked for a call")

    monkeypatch.setattr(trial_call, "_launcher", no_launcher)
    monkeypatch.setattr(trial_call, "_call", call)
    settings = load_settings(_env_file=None, twilio={"account_sid": "AC" + "0" * 32, "auth_token": "t"})
    code = run_trial_call(settings, environment={}, scenario="booking", as_json=False, runs_dir=tmp_path)
    assert code == 1
    assert "SIMS=on make call" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


async def test_a_call_that_the_agent_refused_is_told_with_the_callers_reasons(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial_call, "FILES_LIMIT_S", 0.2)
    refused = {"reasons": ["no document from the webhook", "0 turns were answered"]}
    with pytest.raises(SimCallError, match="no document from the webhook; 0 turns were answered"):
        await trial_call._agents_timeline(tmp_path / "timeline.json", refused)


def test_a_launcher_that_ignores_its_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    stubborn = "\n".join(
        (
            "import signal, time",
            "signal.signal(signal.SIGTERM, signal.SIG_IGN)",
            "print('up', flush=True)",
            "time.sleep(60)",
        )
    )
    started: list[subprocess.Popen[bytes]] = []
    real: Any = subprocess.Popen

    def start(_: Any, **options: Any) -> subprocess.Popen[bytes]:
        process = real([sys.executable, "-c", stubborn], **{**options, "stdout": subprocess.PIPE})
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        started.append(process)
        return process

    monkeypatch.setattr(trial_call.subprocess, "Popen", start)
    monkeypatch.setattr(trial_call, "_STOP_LIMIT_S", 0.3)
    with trial_call._launcher({}):
        pass
    [process] = started
    assert process.returncode == -signal.SIGKILL
    assert process.stdout is not None
    process.stdout.close()


async def test_a_server_that_is_never_ready_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial_call, "READY_LIMIT_S", 0.3)
    with pytest.raises(SimCallError, match=r"not ready after 0\.3 s"):
        await trial_call._wait_until_ready(trial_call._free_port())
