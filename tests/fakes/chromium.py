"""Where the browser is that tests drive, and how it is started: without a screen, with a WAV as its microphone."""

import shutil
import wave
from pathlib import Path

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
    "--disable-features=WebRtcHideLocalIpsWithMdns",
    "--disable-background-networking",
    "--no-first-run",
    "--autoplay-policy=no-user-gesture-required",
)
MICROPHONE_HZ = 48000


def browser_path() -> str:
    """Return the installed browser.

    Raises:
        RuntimeError: If there is none; says what to install.
    """
    for name in _NAMES:
        path = shutil.which(name)
        if path is not None:
            return path
    raise RuntimeError(
        "the page's tests drive Chromium, and none is installed: install the Debian package `chromium` "
        "(apt-get install chromium), or leave these tests out with `-m 'not browser'`"
    )


def browser_flags(microphone: Path) -> list[str]:
    """Return the command line that makes `microphone` what the browser hears, again and again."""
    return [*_FLAGS, f"--use-file-for-fake-audio-capture={microphone}"]


def write_microphone(path: Path, pcm: bytes) -> Path:
    """Write what the browser hears: s16le mono at `MICROPHONE_HZ`."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(MICROPHONE_HZ)
        file.writeframes(pcm)
    return path
