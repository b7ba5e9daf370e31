import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from bot import trial_call
from bot.settings import Settings, Vendor, VendorSource, load_settings
from bot.sim_process import sims_for
from bot.timeline import read_timeline
from bot.trial_call import run_trial_call

pytestmark = [pytest.mark.real_time, pytest.mark.timeout(60)]


@pytest.fixture(scope="module")
def environment() -> Iterator[Mapping[str, str]]:
    """What simulated vendors print; they run for all tests of this file."""
    with sims_for(dict.fromkeys(Vendor, VendorSource.SIM), profile="instant") as printed:
        yield printed


@pytest.fixture
def settings(environment: Mapping[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Settings:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path / 'desk.db'}")
    return load_settings(_env_file=None)


def test_a_call_leaves_both_ends_records_in_one_folder(
    environment: Mapping[str, str],
    settings: Settings,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    runs = tmp_path / "runs"
    code = run_trial_call(
        settings, environment=environment, scenario="hangup_early", as_json=True, runs_dir=runs
    )
    report = json.loads(capsys.readouterr().out)
    assert (code, report["outcome"]) == (0, "ok"), report["reasons"]
    [folder] = runs.iterdir()
    assert report["folder"] == str(folder) == str(runs / report["call_sid"])
    assert {path.name for path in folder.iterdir()} == {
        "call.wav",
        "caller.json",
        "timeline.json",
        "transcript.txt",
    }
    assert (
        report["wav"] == json.loads((folder / "caller.json").read_text())["wav"] == str(folder / "call.wav")
    )
    timeline = read_timeline(folder / "timeline.json")
    assert timeline.ended_reason == "caller_hung_up"
    assert timeline.caller_end is not None
    assert timeline.caller_end.greeting_s is not None


def test_a_call_that_the_agent_refuses_is_told_with_its_reason(
    environment: Mapping[str, str],
    settings: Settings,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trial_call, "FILES_LIMIT_S", 0.5)
    runs = tmp_path / "runs"
    strangers = {**environment, "TWILIO_AUTH_TOKEN": "another account's"}
    code = run_trial_call(
        settings, environment=strangers, scenario="hangup_early", as_json=False, runs_dir=runs
    )
    assert code == 1
    told = capsys.readouterr().err
    assert "the call could not be made: the agent's end left no record of it; no document" in told
    assert not runs.exists() or list(runs.iterdir()) == []
