/**
 * The transcript of a browser call, told by RTVI messages.
 *
 * Pure: `hear(state, message, atS)` changes the state it is given and nothing else. Words of the agent are those that
 * were heard (the server passes a word on only then); the record that follows each turn has the last word.
 *
 * Source: pipecat.processors.frameworks.rtvi.models (protocol 2.2.0; `user-transcription` and `bot-tts-text` are the
 * older names of `user-input` and `tts-raw-text`, sent beside or instead of them).
 */

const MAX_ENTRIES = 1000;
const MAX_TURNS = 500;

/** A transcript with nothing in it. */
export function newTranscript() {
  return {
    entries: [],
    turns: [],
    agentSpeaking: false,
    callerSpeaking: false,
    thinking: false,
    callerChannel: null,
    agentChannel: null,
    nextId: 0,
  };
}

/**
 * Take in one RTVI message.
 *
 * @param {ReturnType<typeof newTranscript>} state
 * @param {{type?: string, data?: any}} message
 * @param {number} atS seconds since the call began
 */
export function hear(state, message, atS) {
  const data = message.data ?? {};
  switch (message.type) {
    case "user-started-speaking":
      state.callerSpeaking = true;
      state.thinking = false;
      return;
    case "user-stopped-speaking":
      state.callerSpeaking = false;
      state.thinking = true;
      return;
    case "bot-started-speaking":
      state.agentSpeaking = true;
      state.thinking = false;
      return;
    case "bot-stopped-speaking":
      state.agentSpeaking = false;
      return;
    case "bot-interrupted":
      cutAgent(state);
      return;
    case "user-input":
      if (data.input_type !== "backchannel") hearCaller(state, "user-input", data, atS);
      return;
    case "user-transcription":
      hearCaller(state, "user-transcription", data, atS);
      return;
    case "tts-raw-text":
    case "bot-tts-text":
      hearAgent(state, message.type, String(data.text ?? ""), atS);
      return;
    case "server-message":
      if (data.type === "turn" && data.turn) settle(state, data.turn, atS);
      return;
    default:
  }
}

/** What is going on, in two words a person can read at a glance. */
export function mood(state) {
  if (state.callerSpeaking) return "Listening";
  if (state.agentSpeaking) return "Agent is speaking";
  if (state.thinking) return "Thinking";
  return "Your turn";
}

function hearCaller(state, channel, data, atS) {
  // The same words come on two channels: keep to the one that spoke first.
  state.callerChannel ??= channel;
  const text = String(data.text ?? "").trim();
  if (channel !== state.callerChannel || text === "") return;
  const agent = openEntry(state, "agent");
  if (agent !== undefined && !state.agentSpeaking) agent.open = false;
  const entry = openEntry(state, "caller") ?? push(state, "caller", atS);
  if (!data.final) {
    entry.interim = text;
    return;
  }
  entry.text = joined(entry.text, text);
  entry.interim = "";
  if (agentSpokeAfter(state, entry)) entry.open = false;
}

function hearAgent(state, channel, text, atS) {
  state.agentChannel ??= channel;
  if (channel !== state.agentChannel || text.trim() === "") return;
  const caller = openEntry(state, "caller");
  // An interim that is still to become final keeps its place above the answer.
  if (caller !== undefined && caller.interim === "") caller.open = false;
  const entry = openEntry(state, "agent") ?? push(state, "agent", atS);
  entry.text = joined(entry.text, text.trim());
}

function cutAgent(state) {
  // Pipecat tells of an interruption whenever a caller's turn begins, also when there was nothing to interrupt.
  if (!state.agentSpeaking) return;
  state.agentSpeaking = false;
  const entry = openEntry(state, "agent");
  if (entry === undefined) return;
  entry.cut = true;
  entry.open = false;
}

/**
 * Take in records of turns as the server has them now, also of one that still runs. They draw the timeline only: what
 * is being said meanwhile stays open.
 *
 * @param {ReturnType<typeof newTranscript>} state
 * @param {object[]} turns
 */
export function learnTurns(state, turns) {
  for (const turn of turns) keepTurn(state, turn);
}

/** The record of a finished turn corrects what was shown, where it is plain which lines it is about. */
function settle(state, turn, atS) {
  keepTurn(state, turn);
  const caller = settled(state, "caller", String(turn.caller_text ?? "").trim(), atS);
  if (caller !== null) caller.interim = "";
  const agent = settled(state, "agent", String(turn.agent_text ?? "").trim(), atS);
  if (agent !== null) agent.cut = Boolean(turn.cut);
}

function keepTurn(state, turn) {
  const known = state.turns.findIndex((one) => one.index === turn.index);
  if (known >= 0) state.turns[known] = turn;
  else state.turns.push(turn);
  if (state.turns.length > MAX_TURNS) state.turns.shift();
}

function settled(state, who, text, atS) {
  if (text === "") return null;
  const entry = state.entries.find((one) => one.who === who && !one.settled && sameLine(one.text || one.interim, text));
  if (entry === undefined) {
    const told = who === "caller" ? state.callerChannel : state.agentChannel;
    if (told !== null) return null;
    const late = push(state, who, atS);
    Object.assign(late, { text, settled: true, open: false });
    return late;
  }
  Object.assign(entry, { text, settled: true, open: false });
  return entry;
}

const plain = (text) => text.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, " ").trim();

/** Whether one line is the other, or its beginning. */
function sameLine(shown, recorded) {
  const [a, b] = [plain(shown), plain(recorded)];
  return a !== "" && b !== "" && (a.startsWith(b) || b.startsWith(a));
}

function openEntry(state, who) {
  return state.entries.findLast((entry) => entry.who === who && entry.open);
}

function agentSpokeAfter(state, entry) {
  return state.entries.slice(state.entries.indexOf(entry) + 1).some((later) => later.who === "agent");
}

function push(state, who, atS) {
  const entry = { id: state.nextId++, who, text: "", interim: "", at_s: atS, cut: false, open: true, settled: false };
  state.entries.push(entry);
  if (state.entries.length > MAX_ENTRIES) state.entries.shift();
  return entry;
}

/** Words one after the other; punctuation that came alone stays close. */
function joined(before, text) {
  if (before === "") return text;
  return /^[,.;:!?…]/.test(text) ? before + text : `${before} ${text}`;
}
