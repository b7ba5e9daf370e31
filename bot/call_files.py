"""What an ended call leaves on disk beside its recording: `timeline.json` and `transcript.txt`."""

from loguru import logger

from bot.call import Call
from bot.timeline import CallTimeline, write_timeline, write_transcript


def call_timeline(call: Call) -> CallTimeline:
    """Return a call as its timeline is saved and printed."""
    return CallTimeline(
        call_sid=call.setup.call_sid,
        agent=call.setup.agent.slug,
        channel=call.setup.channel.value,
        started_at=call.times.started_at.isoformat(),
        duration_s=call.duration_s,
        turns=call.turns.turns(),
        counts=call.turns.counts,
        ended_reason=str(call.end_reason),
    )


def write_call_files(call: Call) -> None:
    """Write both files; blocks. A disk that refuses is logged: the call is over all the same.

    A call whose line never came leaves nothing: with several workers another one may be holding it.
    """
    folder = call.setup.folder
    if folder is None or call.times.line_s is None:
        return
    timeline = call_timeline(call)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_timeline(folder / call.files.name("timeline.json"), timeline)
        write_transcript(folder / call.files.name("transcript.txt"), timeline)
    except OSError as error:
        logger.error("call {} left no timeline: {}", call.setup.call_sid, error)
