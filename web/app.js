/**
 * The page: what its buttons do, what it asks the server, and which call it shows.
 *
 * Two sources feed one view: a browser call (RTVI messages as they come) and any other call (polled while it is live).
 */

import { AGENT_LEFT, BrowserCall, CallState } from "./browser_call.js";
import { CallView } from "./call_view.js";
import { byId, clockText, element, showText } from "./dom.js";
import { LevelMeters } from "./level_meter.js";
import { hear, learnTurns, mood, newTranscript } from "./live_transcript.js";
import { Recording } from "./recording.js";
import { fetchCall, fetchCalls, placeTestCall } from "./server_api.js";

const CALL_POLL_MS = 1000;
const LIST_POLL_MS = 5000;
const LIST_POLL_LIVE_MS = 1500;
const MAX_CALL_ROWS = 50;
const SOUND_HELD_BACK = "The browser holds the sound back. Click anywhere on the page to hear the agent.";

// What the shipped scenarios are about; a name the server adds shows as it is.
const SCENARIOS = {
  booking: "Books a cleaning, changes the day in mid-sentence, confirms and says goodbye. About a minute and a half.",
  message: "Leaves a message for the practice.",
  hours: "Asks two questions about hours and address.",
  dtmf: "Answers with the keypad.",
  hangup_early: "Hangs up while the greeting plays.",
  silent: "Says nothing at all: watch the agent ask again, then end the call.",
};

const NOTHING_YET = [byId("stage-title").textContent, byId("stage-sub").textContent];

/**
 * One browser call and what the page keeps beside it.
 *
 * @typedef {object} Talk
 * @property {BrowserCall} call
 * @property {ReturnType<typeof newTranscript>} transcript
 * @property {number} startedAtMs on the page's monotonic clock
 * @property {LevelMeters|null} meters
 * @property {boolean} isMuted
 * @property {number|null} endedS how long it lasted, null while it does
 * @property {string|null} sentence why it ended, null when the person hung up
 */

const page = {
  /** @type {Talk|null} the latest browser call */
  talk: null,
  /** What the stage shows: null, "talk" or the SID of a call. */
  shown: null,
  /** The answer to the last `GET /api/calls/{sid}` of the call that is shown. */
  detail: null,
  calls: [],
  /** @type {string|null} whom a browser talks to; null leaves it to the server */
  agent: null,
  /** What the list of calls was last built from. */
  drawnCalls: "",
  listTimer: 0,
  callTimer: 0,
};

const recording = new Recording(draw);
const view = new CallView((atS) => recording.playFrom(atS));

// --- talk in the browser

function startTalking() {
  endMeters();
  const talk = {
    call: null,
    transcript: newTranscript(),
    startedAtMs: performance.now(),
    meters: null,
    isMuted: false,
    endedS: null,
    sentence: null,
  };
  talk.call = new BrowserCall({
    agent: page.agent,
    onState: (state, sentence) => talkChanged(talk, state, sentence),
    onMessage: (message) => {
      hear(talk.transcript, message, secondsOf(talk));
      drawSoon();
      if (message.type === "bot-stopped-speaking") fetchTurns(talk);
    },
    onStream: (side, stream) => addStream(talk, side, stream),
    onNotice: (sentence) => showText(byId("talk-problem"), sentence),
  });
  page.talk = talk;
  showText(byId("talk-problem"), "");
  showStage("talk");
  talk.call.start();
}

function talkChanged(talk, state, sentence) {
  if (state === CallState.LIVE) talk.startedAtMs = performance.now();
  if (state === CallState.ENDED) {
    talk.endedS = secondsOf(talk);
    talk.sentence = sentence;
    // A goodbye is told in the status; anything else that ended the call is a problem.
    const isGoodbye = sentence === null || (sentence === AGENT_LEFT && talk.transcript.entries.length > 0);
    showText(byId("talk-problem"), isGoodbye ? "" : sentence);
    endMeters();
    byId("agent-audio").srcObject = null;
    fetchTurns(talk);
    refreshCalls();
  }
  draw();
}

/**
 * Complete the timeline of a browser call: the server sends a turn's record when the next turn begins, and the last
 * one belongs to no message.
 */
async function fetchTurns(talk) {
  if (talk.call.callSid === null) return;
  try {
    const { turns } = await fetchCall(talk.call.callSid);
    if (Array.isArray(turns)) learnTurns(talk.transcript, turns);
    drawSoon();
  } catch {
    // The words are here already, and the list of calls tells of a server that is gone.
  }
}

function addStream(talk, side, stream) {
  if (side === "agent") {
    byId("agent-audio").srcObject = stream;
    byId("agent-audio")
      .play()
      .catch(() => showText(byId("talk-problem"), SOUND_HELD_BACK));
  }
  talk.meters ??= new LevelMeters();
  talk.meters.add(stream, byId(side === "agent" ? "meter-agent" : "meter-you"));
}

/** Browsers may hold sound back until the person touches the page. */
async function playHeldBackSound() {
  const audio = byId("agent-audio");
  if (!isTalking() || audio.srcObject === null || !audio.paused) return;
  try {
    await audio.play();
    if (byId("talk-problem").textContent === SOUND_HELD_BACK) showText(byId("talk-problem"), "");
  } catch {
    showText(byId("talk-problem"), SOUND_HELD_BACK);
  }
}

function endMeters() {
  page.talk?.meters?.close();
  if (page.talk) page.talk.meters = null;
}

function toggleMute() {
  const { talk } = page;
  if (talk === null) return;
  talk.isMuted = !talk.isMuted;
  talk.call.setMuted(talk.isMuted);
  draw();
}

const secondsOf = (talk) => talk.endedS ?? (performance.now() - talk.startedAtMs) / 1000;
const isTalking = () => page.talk !== null && page.talk.call.state !== CallState.ENDED;

// --- test call

async function startTestCall(event) {
  event.preventDefault();
  const button = byId("place-test-call");
  button.disabled = true;
  showText(byId("test-problem"), "");
  try {
    const { call_sid: callSid } = await placeTestCall(byId("scenario").value);
    openCall(callSid);
    refreshCalls();
  } catch (error) {
    showText(byId("test-problem"), error.message);
  } finally {
    button.disabled = false;
  }
}

function fillScenarios(names) {
  const select = byId("scenario");
  if ([...select.options].map((option) => option.value).join() === names.join()) return;
  const chosen = select.value;
  select.replaceChildren(...names.map((name) => element("option", { value: name }, readable(name))));
  select.value = names.includes(chosen) ? chosen : names[0];
  describeScenario();
}

function describeScenario() {
  showText(byId("scenario-hint"), SCENARIOS[byId("scenario").value] ?? "");
}

// --- calls of the server

async function refreshCalls() {
  clearTimeout(page.listTimer);
  if (document.hidden) return; // taken up again by visibilitychange
  try {
    const answer = await fetchCalls();
    page.calls = Array.isArray(answer.calls) ? answer.calls.slice(0, MAX_CALL_ROWS) : [];
    byId("sims-notice").hidden = answer.sims !== true;
    page.agent = Array.isArray(answer.agents) && answer.agents.length > 0 ? String(answer.agents[0]) : null;
    if (Array.isArray(answer.scenarios) && answer.scenarios.length > 0) fillScenarios(answer.scenarios.map(String));
    showText(byId("server-problem"), "");
    drawCalls();
  } catch (error) {
    showText(byId("server-problem"), `${error.message} Trying again every few seconds.`);
  }
  clearTimeout(page.listTimer);
  const isBusy = page.calls.some((call) => call.state !== "ended");
  page.listTimer = setTimeout(refreshCalls, isBusy ? LIST_POLL_LIVE_MS : LIST_POLL_MS);
}

function openCall(callSid) {
  if (location.hash === hashOf(callSid)) followHash();
  else location.hash = hashOf(callSid); // followHash() does the rest, also for the back button
}

const hashOf = (callSid) => `#call=${encodeURIComponent(callSid)}`;

function followHash() {
  const match = /^#call=(.+)$/.exec(location.hash);
  if (match === null) return;
  page.detail = null;
  showStage(decodeURIComponent(match[1]));
  refreshShown();
}

async function refreshShown() {
  clearTimeout(page.callTimer);
  const callSid = page.shown;
  if (callSid === null || callSid === "talk") return;
  let again = true;
  try {
    const detail = await fetchCall(callSid);
    if (page.shown !== callSid) return; // another call was opened meanwhile
    page.detail = detail;
    showText(byId("server-problem"), "");
    again = detail.state !== "ended";
    draw();
  } catch (error) {
    if (page.shown !== callSid) return;
    again = error.status === null;
    if (again) showText(byId("server-problem"), `${error.message} Trying again every few seconds.`);
    else showStageText("Call not found", error.message);
  }
  clearTimeout(page.callTimer);
  if (again) page.callTimer = setTimeout(refreshShown, CALL_POLL_MS);
  else refreshCalls();
}

// --- drawing

let isDrawQueued = false;

/** Draw with the next frame: many words a second cost one update. */
function drawSoon() {
  if (isDrawQueued) return;
  isDrawQueued = true;
  // Not requestAnimationFrame: the transcript of a tab in the background must not pile up.
  setTimeout(() => {
    isDrawQueued = false;
    draw();
  }, 40);
}

function draw() {
  drawTalkControls();
  drawStage();
  drawCallSelection();
}

function drawTalkControls() {
  const { talk } = page;
  const live = isTalking();
  const connected = live && talk.call.state === CallState.LIVE;
  document.body.classList.toggle("is-talking", live);
  handFocusOn(live);
  byId("talk").hidden = live;
  byId("talk").textContent = talk === null ? "Start talking" : "Talk again";
  byId("hangup").hidden = !live;
  byId("hangup").textContent = connected ? "Hang up" : "Cancel";
  byId("mute").hidden = !connected;
  byId("meters").hidden = !connected;
  byId("talk-clock").hidden = !connected;
  byId("talk-hint").hidden = live;
  if (talk === null) return;
  byId("mute").setAttribute("aria-pressed", String(talk.isMuted));
  byId("mute").textContent = talk.isMuted ? "Unmute" : "Mute";
  byId("meter-you").classList.toggle("meter-muted", talk.isMuted);
  byId("talk-clock").textContent = clockText(secondsOf(talk));
  // Never hidden: a live region is only read aloud when it was there before its words changed.
  const status = talkStatus(talk);
  if (byId("talk-status").textContent !== status) byId("talk-status").textContent = status;
}

/** A button that is about to be hidden gives its focus to the one that takes its place. */
function handFocusOn(isLive) {
  const [leaving, coming] = isLive ? ["talk", "hangup"] : ["hangup", "talk"];
  if (document.activeElement !== byId(leaving)) return;
  byId(coming).hidden = false;
  byId(coming).focus();
}

function talkStatus(talk) {
  if (talk.call.state === CallState.CONNECTING) return "Connecting… your browser may ask for the microphone.";
  if (talk.call.state === CallState.LIVE) return talk.isMuted ? "You are muted" : mood(talk.transcript);
  if (talk.transcript.entries.length === 0) return "";
  return `Call ended after ${clockText(talk.endedS)}. ${talk.sentence ?? "You hung up."}`;
}

function showStage(what) {
  page.shown = what;
  recording.reset();
  if (what === "talk") {
    clearTimeout(page.callTimer);
    if (location.hash.startsWith("#call=")) history.pushState(null, "", location.pathname);
  }
  draw();
  const stage = byId("stage");
  if (what !== "talk") stage.focus({ preventScroll: true });
  const isCalm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  stage.scrollIntoView({ block: what === "talk" ? "nearest" : "start", behavior: isCalm ? "auto" : "smooth" });
}

function showStageText(title, sub) {
  showText(byId("stage-title"), title);
  showText(byId("stage-sub"), sub);
  byId("stage-state").hidden = true;
  byId("stage-body").hidden = true;
}

function drawStage() {
  byId("back-to-live").hidden = !isTalking() || page.shown === "talk";
  if (page.shown === null) return;
  if (page.shown === "talk") drawTalk(page.talk);
  else if (page.detail === null) showStageText("Opening the call…", page.shown);
  else drawCall(page.detail);
}

function drawTalk(talk) {
  const state = talk.call.state;
  if (talk.transcript.entries.length === 0 && state === CallState.ENDED) {
    showStageText(...NOTHING_YET);
    return;
  }
  showText(byId("stage-title"), "Your call");
  showText(byId("stage-sub"), page.agent === null ? "In the browser" : `Browser to “${page.agent}”`);
  showState(state === CallState.LIVE ? "live" : state === CallState.ENDED ? "ended" : "ringing");
  byId("stage-body").hidden = false;
  const { entries, turns } = talk.transcript;
  view.show({ id: "talk", callerName: "You", entries, turns, isLive: isTalking(), canSeek: false });
}

function drawCall(detail) {
  const isPhone = detail.channel !== "browser";
  const origin = isPhone && detail.from ? ` from ${detail.from}` : "";
  showText(byId("stage-title"), `${isPhone ? "Phone" : "Browser"} call${origin}`);
  const reason = detail.state === "ended" && detail.ended_reason ? `ended: ${readable(detail.ended_reason)}` : "";
  const facts = [detail.agent, startedText(detail.started_at), clockText(detail.duration_s), reason];
  showText(byId("stage-sub"), facts.filter(Boolean).join(" · "));
  showState(detail.state);
  byId("stage-body").hidden = false;
  if (detail.state === "ended") recording.offer(detail.call_sid);
  const lines = Array.isArray(detail.transcript) ? detail.transcript : [];
  const entries = lines.map((entry, index) => ({ ...entry, id: index }));
  view.show({
    id: detail.call_sid,
    callerName: "Caller",
    entries,
    turns: Array.isArray(detail.turns) ? detail.turns : [],
    isLive: detail.state !== "ended",
    canSeek: recording.isReady,
  });
}

/** agent_hung_up -> "agent hung up" */
const readable = (name) => String(name).replaceAll("_", " ");

const STATE_WORDS = { ringing: "Ringing", live: "Live", ended: "Ended" };

function showState(state) {
  const chip = byId("stage-state");
  chip.hidden = false;
  chip.className = `chip chip-${state in STATE_WORDS ? state : "ended"}`;
  showText(chip, STATE_WORDS[state] ?? String(state));
}

function startedText(iso) {
  const started = new Date(iso ?? "");
  if (Number.isNaN(started.getTime())) return "";
  const isToday = started.toDateString() === new Date().toDateString();
  return started.toLocaleString([], isToday ? { timeStyle: "medium" } : { dateStyle: "medium", timeStyle: "short" });
}

function drawCalls() {
  byId("calls-empty").hidden = page.calls.length > 0;
  const list = byId("calls");
  // The list is short and changes once in a while; the focused row keeps its place.
  const focused = document.activeElement?.closest?.("[data-testid=call-row]")?.getAttribute("href");
  const signature = JSON.stringify(page.calls.map(({ call_sid, state, turns }) => [call_sid, state, turns]));
  if (page.drawnCalls !== signature) {
    page.drawnCalls = signature;
    list.replaceChildren(...page.calls.map(callRow));
    if (focused) [...list.querySelectorAll("a")].find((row) => row.getAttribute("href") === focused)?.focus();
  }
  drawCallSelection();
}

function callRow(call) {
  const turns = Array.isArray(call.turns) ? call.turns.length : call.turns;
  const who = call.channel === "browser" ? "Browser" : `Phone${call.from ? ` · ${call.from}` : ""}`;
  const count = Number.isFinite(turns) ? `${turns} ${turns === 1 ? "turn" : "turns"}` : "";
  const length = [clockText(call.duration_s), count].filter(Boolean).join(" · ");
  return element(
    "li",
    {},
    element(
      "a",
      { class: "call-row", "data-testid": "call-row", href: hashOf(call.call_sid) },
      element("span", { class: `chip chip-${call.state}` }, STATE_WORDS[call.state] ?? String(call.state)),
      element("span", { class: "call-who" }, who),
      element("span", { class: "quiet call-agent" }, String(call.agent ?? "")),
      element("span", { class: "quiet call-when" }, startedText(call.started_at)),
      element("span", { class: "quiet call-length" }, length),
    ),
  );
}

function drawCallSelection() {
  for (const row of byId("calls").querySelectorAll("a")) {
    if (row.getAttribute("href") === hashOf(page.shown ?? "")) row.setAttribute("aria-current", "true");
    else row.removeAttribute("aria-current");
  }
}

// --- wiring

byId("talk").addEventListener("click", startTalking);
byId("hangup").addEventListener("click", () => page.talk?.call.hangUp());
byId("mute").addEventListener("click", toggleMute);
byId("test-call-form").addEventListener("submit", startTestCall);
byId("scenario").addEventListener("change", describeScenario);
byId("back-to-live").addEventListener("click", () => showStage("talk"));
document.addEventListener("visibilitychange", () => !document.hidden && refreshCalls());
document.addEventListener("click", playHeldBackSound);
addEventListener("hashchange", followHash);
// Leaving the page is hanging up: the server must not wait for a peer that is gone.
addEventListener("pagehide", () => page.talk?.call.hangUp());
setInterval(() => isTalking() && drawTalkControls(), 500);

fillScenarios(Object.keys(SCENARIOS));
refreshCalls();
followHash();
if (location.pathname === "/client") byId("talk").focus();
