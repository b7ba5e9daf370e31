import subprocess
import sys
from pathlib import Path

import pytest

from bot import sim_process
from bot.errors import SimProcessError
from bot.settings import Vendor, VendorSource
from bot.sim_process import SIM_KEY, SimProcess, sim_environment, sims_for

pytestmark = pytest.mark.real_time

READY = 'print(\'{"DEEPGRAM_BASE_URL": "ws://127.0.0.1:1", "PORTS": 5}\', flush=True)\n'
UNTIL_EOF = "sys.stdin.read()\n"
PREAMBLE = "import signal, sys, time\n"


def start(tmp_path: Path, script: str, *, ready_within_s: float = 10.0, **options: object) -> SimProcess:
    path = tmp_path / "fake_sims.py"
    path.write_text(PREAMBLE + script)
    return SimProcess.start(command=(sys.executable, str(path)), ready_within_s=ready_within_s, **options)  # pyright: ignore[reportArgumentType]


def test_the_ready_line_is_the_environment(tmp_path: Path) -> None:
    with start(tmp_path, READY + UNTIL_EOF) as sims:
        assert sims.environment == {"DEEPGRAM_BASE_URL": "ws://127.0.0.1:1", "PORTS": "5"}
        assert sims.is_running
    assert not sims.is_running


def test_profile_and_seed_are_passed_on(tmp_path: Path) -> None:
    echo = "import json\nprint(json.dumps({'ARGS': ' '.join(sys.argv[1:])}), flush=True)\n"
    with start(tmp_path, echo + UNTIL_EOF, profile="bad-day", seed=7) as sims:
        assert sims.environment["ARGS"] == "--profile bad-day --json --seed 7"


def test_closing_stdin_is_enough_for_a_sim_that_listens(tmp_path: Path) -> None:
    left = tmp_path / "left"
    script = READY + UNTIL_EOF + f"open({str(left)!r}, 'w').write('by itself')\n"
    start(tmp_path, script).stop()
    assert left.read_text() == "by itself"


def test_much_output_never_blocks_the_sims(tmp_path: Path) -> None:
    done = tmp_path / "done"
    chatter = READY + "sys.stdout.write('x' * 3_000_000)\nsys.stdout.flush()\n"
    sims = start(tmp_path, chatter + f"open({str(done)!r}, 'w').close()\n" + UNTIL_EOF)
    sims.stop()
    assert done.exists()


@pytest.mark.parametrize(
    ("script", "exit_code"),
    [
        ("time.sleep(60)\n", -15),
        ("signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + READY + "time.sleep(60)\n", -9),
    ],
    ids=["deaf to stdin: terminated", "deaf to SIGTERM too: killed"],
)
def test_stubborn_sims_end_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, exit_code: int
) -> None:
    monkeypatch.setattr(sim_process, "QUIT_AFTER_EOF_S", 0.2)
    monkeypatch.setattr(sim_process, "KILL_AFTER_S", 0.4)
    sims = start(tmp_path, script if READY in script else READY + script)
    sims.stop()
    assert sims._process.returncode == exit_code


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("sys.exit(3)\n", "exit code 3"),
        ("print('ready!', flush=True)\n" + UNTIL_EOF, "no JSON object"),
        ("print('[]', flush=True)\n" + UNTIL_EOF, "no JSON object"),
        ("sys.stdin.read()\n", "not ready after 0.5 s"),
    ],
    ids=["ends", "prints text", "prints another JSON", "stays silent"],
)
def test_a_failed_start_is_explained_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, says: str
) -> None:
    started: list[subprocess.Popen[bytes]] = []
    original = subprocess.Popen

    def recording(*args: object, **kwargs: object) -> "subprocess.Popen[bytes]":
        started.append(original(*args, **kwargs))  # pyright: ignore[reportCallIssue, reportArgumentType]
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", recording)
    with pytest.raises(SimProcessError, match=says):
        start(tmp_path, script, ready_within_s=0.5 if "0.5" in says else 10.0)
    assert started[0].poll() is not None


def test_a_command_that_is_not_there_is_explained() -> None:
    with pytest.raises(SimProcessError, match="cannot be started"):
        SimProcess.start(command=("/no/such/python",))


def test_simulated_vendors_get_url_and_key_and_no_other_does() -> None:
    plan = {
        Vendor.DEEPGRAM: VendorSource.SIM,
        Vendor.ANTHROPIC: VendorSource.REAL,
        Vendor.TWILIO: VendorSource.SIM,
    }
    printed = {
        "DEEPGRAM_BASE_URL": "ws://127.0.0.1:1",
        "ANTHROPIC_BASE_URL": "http://127.0.0.1:2",
        "TWILIO_BASE_URL": "http://127.0.0.1:3",
        "TWILIO_ACCOUNT_SID": "AC1",
        "TWILIO_AUTH_TOKEN": "t",
    }
    environment = sim_environment(plan, printed)
    assert environment == {
        "SIMS": "auto",
        "DEEPGRAM_BASE_URL": "ws://127.0.0.1:1",
        "DEEPGRAM_API_KEY": SIM_KEY,
        "TWILIO_BASE_URL": "http://127.0.0.1:3",
        "TWILIO_ACCOUNT_SID": "AC1",
        "TWILIO_AUTH_TOKEN": "t",
    }


def test_a_vendor_without_a_sim_is_explained() -> None:
    with pytest.raises(SimProcessError, match="do not serve cartesia"):
        sim_environment({Vendor.CARTESIA: VendorSource.SIM}, {"DEEPGRAM_BASE_URL": "ws://127.0.0.1:1"})


def test_nothing_is_started_when_every_vendor_is_real() -> None:
    with sims_for({Vendor.DEEPGRAM: VendorSource.REAL}) as environment:
        assert environment == {}
