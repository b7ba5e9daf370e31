/**
 * What a turn's times mean: pure functions from the server's TurnRecord to stages, summary and axis.
 *
 * Times in a record are seconds from the start of the call; everything returned here is milliseconds.
 * Nothing in this file touches the page or a clock.
 */

/**
 * The stages of a wait in the order they follow each other.
 *
 * Each ends with the event it names, so an event that came early (a model that started on a guess) leaves its stage
 * empty: the bar shows what was waited *for*.
 */
export const STAGES = Object.freeze([
  { key: "endpointing", event: "vad_stop", label: "Endpointing", hint: "noticing that the caller stopped" },
  { key: "transcript", event: "transcript_final", label: "Transcript", hint: "the final words of speech recognition" },
  { key: "decision", event: "turn_decided", label: "Turn decision", hint: "making sure the caller is done" },
  { key: "model", event: "llm_first_token", label: "Model", hint: "the model's first token" },
  { key: "sentence", event: "first_sentence", label: "Sentence", hint: "the first sentence that can be spoken" },
  { key: "voice", event: "tts_first_audio", label: "Voice", hint: "the voice's first audio" },
  { key: "ear", event: "heard", label: "To the ear", hint: "audio reaching the caller" },
]);

/** 612.4 -> "612 ms", 1300 -> "1.30 s". Takes milliseconds. */
export function durationText(ms) {
  return Math.round(ms) < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(2)} s`;
}

const isTime = (value) => typeof value === "number" && Number.isFinite(value);

/** When the wait of this turn began, in seconds, or null when nothing of it is known. */
export function waitStart(turn) {
  if (isTime(turn.speech_end)) return turn.speech_end;
  if (turn.kind === "greeting") return 0;
  const events = ["turn_decided", "llm_request", "tts_request", "sent", "heard"];
  const known = events.map((name) => turn[name]).filter(isTime);
  return known.length > 0 ? Math.min(...known) : null;
}

/**
 * The stages that took time.
 *
 * @returns {{key: string, label: string, hint: string, startMs: number, ms: number}[]} without gaps or overlaps
 */
export function stagesOf(turn) {
  const start = waitStart(turn);
  if (start === null) return [];
  const end = isTime(turn.heard) ? turn.heard : Infinity;
  const stages = [];
  let cursor = start;
  for (const { key, event, label, hint } of STAGES) {
    if (!isTime(turn[event])) continue;
    const reached = Math.min(turn[event], end);
    if (reached <= cursor) continue;
    stages.push({ key, label, hint, startMs: (cursor - start) * 1000, ms: (reached - cursor) * 1000 });
    cursor = reached;
  }
  return stages;
}

/** The whole wait in milliseconds, or null when nothing was heard. */
export function waitMs(turn) {
  const start = waitStart(turn);
  if (isTime(turn.answer_s)) return turn.answer_s * 1000;
  return start !== null && isTime(turn.heard) ? Math.max(0, (turn.heard - start) * 1000) : null;
}

/** Tools with their place on the turn's own axis. */
export function toolsOf(turn) {
  const start = waitStart(turn);
  if (start === null || !Array.isArray(turn.tools)) return [];
  return turn.tools
    .filter((tool) => isTime(tool.start))
    .map((tool) => ({
      name: String(tool.name ?? "tool"),
      startMs: (tool.start - start) * 1000,
      ms: isTime(tool.end) ? Math.max(0, (tool.end - tool.start) * 1000) : null,
      ok: tool.ok !== false,
    }));
}

/** Lines that bridged the wait, with when the caller heard each on the turn's own axis. */
export function fillersOf(turn) {
  const start = waitStart(turn);
  if (start === null || !Array.isArray(turn.fillers)) return [];
  return turn.fillers
    .filter((filler) => isTime(filler.start))
    .map((filler) => ({ text: String(filler.text ?? ""), startMs: (filler.start - start) * 1000 }));
}

/** How long the agent had been audible when the caller cut in, in milliseconds, or null. */
export function cutAfterMs(turn) {
  if (!isTime(turn.interrupted_at) || !isTime(turn.heard)) return null;
  return Math.max(0, (turn.interrupted_at - turn.heard) * 1000);
}

/** A sentence that says what the bar shows. */
export function turnInWords(turn) {
  const name = { greeting: "Greeting", reprompt: "Reprompt" }[turn.kind] ?? `Turn ${turn.index}`;
  const wait = waitMs(turn);
  const parts = stagesOf(turn).map((stage) => `${stage.label} ${durationText(stage.ms)}`);
  const tools = toolsOf(turn).map(({ name: tool, ms, ok }) => {
    const length = ms === null ? "running" : durationText(ms);
    return `${tool} ${length}${ok ? "" : ", failed"}`;
  });
  const cut = cutAfterMs(turn);
  const fillers = fillersOf(turn).map(({ text, startMs }) => `“${text}” after ${durationText(startMs)}`);
  return [
    `${name}: ${wait === null ? "nothing was heard" : `heard after ${durationText(wait)}`}`,
    parts.length > 0 ? `: ${parts.join(", ")}` : "",
    fillers.length > 0 ? `. Meanwhile ${fillers.join(", ")}` : "",
    tools.length > 0 ? `. Tools: ${tools.join(", ")}` : "",
    cut === null ? "" : `. Cut off after ${durationText(cut)}`,
    ".",
  ].join("");
}

const middle = (sorted) => sorted[Math.floor((sorted.length - 1) / 2)];

/** Figures over a call; null where there is nothing to tell. Milliseconds, and a count. */
export function summaryOf(turns) {
  const answers = turns
    .filter((turn) => turn.kind === "answer")
    .map(waitMs)
    .filter((ms) => ms !== null)
    .sort((a, b) => a - b);
  const greeting = turns.find((turn) => turn.kind === "greeting");
  return {
    typicalMs: answers.length > 0 ? middle(answers) : null,
    slowestMs: answers.length > 0 ? answers[answers.length - 1] : null,
    greetingMs: greeting === undefined ? null : waitMs(greeting),
    cuts: turns.filter((turn) => turn.cut || isTime(turn.interrupted_at)).length,
  };
}

const AXES_MS = [1000, 1500, 2000, 3000, 4000, 6000, 8000, 12000, 20000, 40000, 60000];

/**
 * The length of the shared axis in milliseconds: it fits every turn, but one very slow turn does not flatten the rest
 * (its bar runs off the edge and its figure tells the truth).
 */
export function axisMs(turns) {
  const ends = turns
    .flatMap((turn) => {
      const stages = stagesOf(turn);
      const last = stages[stages.length - 1];
      return last === undefined ? [] : [last.startMs + last.ms];
    })
    .sort((a, b) => a - b);
  if (ends.length === 0) return AXES_MS[0];
  const wanted = Math.min(ends[ends.length - 1], Math.max(1000, 3 * middle(ends)));
  return AXES_MS.find((ms) => ms >= wanted) ?? AXES_MS[AXES_MS.length - 1];
}
