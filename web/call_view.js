/**
 * Drawing one call: its transcript and the timeline of its turns.
 *
 * Gets plain values and keeps the DOM bounded; lines and bars that did not change are left alone, so that scrolling,
 * an open detail and a screen reader's place survive an update a second.
 */

import { byId, clockText, element, showText } from "./dom.js";
import {
  axisMs,
  cutAfterMs,
  durationText,
  fillersOf,
  STAGES,
  stagesOf,
  summaryOf,
  toolsOf,
  turnInWords,
  waitMs,
} from "./turn_stages.js";

const MAX_LINES = 200;
const MAX_BARS = 100;

const drawn = new WeakMap(); // what each list item was built from

/** Update the children of `list` to `items`, rebuilding only those whose signature changed. */
function reconcile(list, items, keyOf, signatureOf, build) {
  const present = new Map([...list.children].map((node) => [drawn.get(node).key, node]));
  let previous = null;
  for (const item of items) {
    const key = String(keyOf(item));
    const signature = signatureOf(item);
    let node = present.get(key);
    present.delete(key);
    if (node === undefined || drawn.get(node).signature !== signature) {
      const fresh = build(item, node);
      drawn.set(fresh, { key, signature });
      if (node !== undefined) node.replaceWith(fresh);
      node = fresh;
    }
    const place = previous === null ? list.firstElementChild : previous.nextElementSibling;
    if (place !== node) list.insertBefore(node, place);
    previous = node;
  }
  for (const node of present.values()) node.remove();
}

/** The right-hand and left-hand half of the stage. */
export class CallView {
  #transcript = byId("transcript");
  #turns = byId("turns");
  #onSeek;
  #shownId = null;

  /** @param {(atS: number) => void} onSeek called when the person asks to hear a line */
  constructor(onSeek) {
    this.#onSeek = onSeek;
    byId("legend").append(
      ...STAGES.map(({ key, label, hint }) =>
        element("li", { class: "legend-item", title: hint }, element("span", { class: `swatch stage-${key}` }), label),
      ),
    );
  }

  /**
   * @param {object} call
   * @param {string} call.id tells one call from another
   * @param {string} call.callerName "You" or "Caller"
   * @param {{id: number, who: string, text: string, interim?: string, at_s: number, cut: boolean}[]} call.entries
   * @param {object[]} call.turns TurnRecords
   * @param {boolean} call.isLive whether more is to come, so that the transcript follows the last line
   * @param {boolean} call.canSeek whether there is a recording to jump into
   */
  show({ id, callerName, entries, turns, isLive, canSeek }) {
    const list = this.#transcript;
    const isNew = this.#shownId !== id;
    const follows = isLive && (isNew || list.scrollHeight - list.scrollTop - list.clientHeight < 48);
    this.#shownId = id;
    // What was said in an old call is not news: only a live one is read aloud as it goes.
    list.setAttribute("aria-live", isLive ? "polite" : "off");
    this.#showTranscript(id, callerName, entries, canSeek);
    this.#showTurns(id, turns);
    if (follows) list.scrollTop = list.scrollHeight;
    else if (isNew) list.scrollTop = 0;
  }

  #showTranscript(id, callerName, entries, canSeek) {
    const list = this.#transcript;
    byId("transcript-empty").hidden = entries.length > 0;
    list.hidden = entries.length === 0;
    const left = entries.length - MAX_LINES;
    showText(byId("transcript-hidden"), left > 0 ? `${left} earlier lines are not shown.` : "");
    reconcile(
      list,
      entries.slice(-MAX_LINES),
      (entry) => `${id}/${entry.id}`,
      (entry) => JSON.stringify([entry.text, entry.interim, entry.cut, canSeek]),
      (entry) => this.#line(entry, callerName, canSeek),
    );
  }

  #line(entry, callerName, canSeek) {
    const isAgent = entry.who === "agent";
    const time = clockText(entry.at_s);
    const says = element("p", { class: "says" }, entry.text);
    if (entry.interim) {
      // Not yet certain: grey, and not read aloud until it is final.
      const attributes = { class: "interim", "data-testid": "interim", "aria-hidden": "true" };
      says.append(entry.text ? " " : "", element("span", attributes, entry.interim));
    }
    if (entry.cut) {
      const mark = element("span", { class: "cut", "data-testid": "cut", title: "The caller cut in here" }, " —");
      says.append(mark, element("span", { class: "unseen" }, " (cut off)"));
    }
    const who = element("span", { class: "who" }, isAgent ? "Agent" : callerName);
    const isButton = canSeek && time !== "";
    const stamp = isButton ? this.#seekButton(entry.at_s, time) : element("span", { class: "stamp" }, time);
    const side = isAgent ? "agent-line" : "caller-line";
    return element(
      "li",
      { class: `line ${isAgent ? "line-agent" : "line-caller"}`, "data-testid": side },
      element("div", { class: "line-head" }, who, stamp),
      says,
    );
  }

  #seekButton(atS, time) {
    const attributes = { type: "button", class: "stamp", "aria-label": `Play from ${time}` };
    const button = element("button", attributes, `▸ ${time}`);
    button.addEventListener("click", () => this.#onSeek(atS));
    return button;
  }

  #showTurns(id, turns) {
    const shown = turns.slice(-MAX_BARS);
    const axis = axisMs(shown);
    byId("timeline-empty").hidden = turns.length > 0;
    byId("legend").hidden = turns.length === 0;
    const left = turns.length - MAX_BARS;
    const note = left > 0 ? `${left} earlier turns are not drawn; the figures above count them.` : "";
    showText(byId("turns-hidden"), note);
    this.#showTiles(turns);
    showAxis(axis, turns.length > 0);
    reconcile(
      this.#turns,
      shown,
      (turn) => `${id}/${turn.index}`,
      (turn) => JSON.stringify([turn, axis]),
      (turn, before) => turnRow(turn, axis, before?.querySelector("details")?.open ?? false),
    );
  }

  #showTiles(turns) {
    const { typicalMs, slowestMs, greetingMs, cuts } = summaryOf(turns);
    const figures = [
      ["Typical answer", typicalMs],
      ["Slowest answer", slowestMs],
      ["Greeting", greetingMs],
    ]
      .filter(([, ms]) => ms !== null)
      .map(([name, ms]) => [name, durationText(ms)]);
    if (turns.length > 0) figures.push(["Interruptions", String(cuts)]);
    const tiles = byId("tiles");
    tiles.hidden = figures.length === 0;
    tiles.replaceChildren(
      ...figures.map(([name, value]) =>
        element("div", { class: "tile" }, element("dt", {}, name), element("dd", {}, value)),
      ),
    );
  }
}

/** A scale over the bars, in quarters. */
function showAxis(axis, isShown) {
  const scale = byId("axis");
  scale.hidden = !isShown;
  scale.replaceChildren(
    ...[0, 0.25, 0.5, 0.75, 1].map((part) => {
      const tick = element("span", { class: "tick" }, part === 0 ? "0" : durationText(part * axis));
      tick.style.left = `${part * 100}%`;
      return tick;
    }),
  );
}

function turnRow(turn, axis, open) {
  const wait = waitMs(turn);
  const waitText = wait === null ? "not heard" : durationText(wait);
  return element(
    "li",
    { class: "turn", "data-testid": "turn" },
    element(
      "div",
      { class: "turn-head" },
      element("span", { class: "turn-title" }, turnTitle(turn)),
      element("span", { class: "turn-wait", "data-testid": "turn-wait" }, waitText),
    ),
    turnBar(turn, axis),
    toolLane(turn, axis),
    turnFoot(turn),
    turnDetails(turn, open),
  );
}

function turnTitle(turn) {
  if (turn.kind === "greeting") return "Greeting";
  if (turn.kind === "reprompt") return "Reprompt";
  return turn.caller_text ? `“${turn.caller_text}”` : `Turn ${turn.index}`;
}

function turnBar(turn, axis) {
  const bar = element("div", { class: "bar", role: "img", "data-testid": "turn-bar", "aria-label": turnInWords(turn) });
  for (const stage of stagesOf(turn)) {
    if (stage.startMs >= axis) continue;
    const overflows = stage.startMs + stage.ms > axis;
    const width = overflows ? axis - stage.startMs : stage.ms;
    const title = `${stage.label}: ${durationText(stage.ms)} (${stage.hint})`;
    const segment = element(
      "div",
      { class: `segment stage-${stage.key}${overflows ? " segment-over" : ""}`, title },
      element("span", { class: "segment-ms" }, String(Math.round(stage.ms))),
    );
    place(segment, stage.startMs, width, axis);
    bar.append(segment);
  }
  return bar;
}

function toolLane(turn, axis) {
  const tools = toolsOf(turn);
  if (tools.length === 0) return null;
  const lane = element("div", { class: "tool-lane", "aria-hidden": "true" });
  for (const tool of tools) {
    const startMs = Math.min(Math.max(tool.startMs, 0), axis);
    const mark = element("div", { class: tool.ok ? "tool-mark" : "tool-mark tool-mark-failed", title: tool.name });
    place(mark, startMs, Math.min(tool.ms ?? 0, axis - startMs), axis);
    lane.append(mark);
  }
  return lane;
}

function turnFoot(turn) {
  const chips = toolsOf(turn).map(({ name, ms, ok }) => {
    const words = [ok ? "✓" : "✗", name, ms === null ? "running" : durationText(ms), ok ? "" : "failed"];
    const attributes = { class: ok ? "tag" : "tag tag-problem", "data-testid": "tool" };
    return element("span", attributes, words.filter(Boolean).join(" "));
  });
  for (const { text, startMs } of fillersOf(turn)) {
    const words = `“${text}” after ${durationText(startMs)}`;
    chips.push(element("span", { class: "tag", "data-testid": "filler" }, words));
  }
  const cut = cutAfterMs(turn);
  if (cut !== null || turn.cut) {
    const words = cut === null ? "— cut off" : `— caller cut in after ${durationText(cut)}`;
    chips.push(element("span", { class: "tag tag-cut", "data-testid": "interruption" }, words));
  }
  return chips.length > 0 ? element("div", { class: "tags" }, ...chips) : null;
}

/** The numbers behind a bar; built when first opened, so that a long call stays light. */
function turnDetails(turn, open) {
  if (stagesOf(turn).length === 0) return null;
  const details = element("details", { class: "turn-details", open }, element("summary", {}, "Details"));
  const fill = () => details.childElementCount === 1 && details.append(...detailRows(turn));
  if (open) fill();
  details.addEventListener("toggle", fill);
  return details;
}

function detailRows(turn) {
  const rows = stagesOf(turn).map(({ key, label, ms, hint }) =>
    element(
      "tr",
      {},
      element("th", { scope: "row" }, element("span", { class: `swatch stage-${key}` }), label),
      element("td", {}, durationText(ms)),
      element("td", { class: "quiet hint" }, hint),
    ),
  );
  const table = element("table", {}, element("tbody", {}, ...rows));
  if (!turn.agent_text) return [table];
  const words = `Agent, as heard: “${turn.agent_text}${turn.cut ? " —" : ""}”`;
  return [element("p", { class: "turn-answer" }, words), table];
}

function place(node, startMs, widthMs, axis) {
  node.style.left = `${((startMs / axis) * 100).toFixed(3)}%`;
  node.style.width = `${((widthMs / axis) * 100).toFixed(3)}%`;
}
