/**
 * One call from the browser: microphone, WebRTC peer, RTVI messages.
 *
 * NEW --start--> CONNECTING --channel open--> LIVE
 * any --hang up | agent left | network lost | refused | deadline--> ENDED, everything released
 *
 * Knows nothing of the page: it reports through the callbacks it is given.
 * No keep-alive pings are sent: a server that got one takes three silent seconds for a lost peer, and a browser slows
 * the timers of a tab in the background (Source: pipecat SmallWebRTCConnection.is_connected).
 */

import { sendCandidates, sendOffer } from "./server_api.js";

const RTVI_LABEL = "rtvi-ai";
const RTVI_VERSION = "2.2.0";
const GATHER_MS = 1500;
const CONNECT_MS = 15000;
const UNSTEADY_MS = 8000;

export const CallState = Object.freeze({ NEW: "new", CONNECTING: "connecting", LIVE: "live", ENDED: "ended" });

export const AGENT_LEFT = "The agent ended the call.";

/** A problem with a sentence for the person at the page. */
export class CallProblem extends Error {}

const MICROPHONE_PROBLEMS = {
  NotAllowedError: "The microphone is blocked. Allow it for this page in the address bar, then try again.",
  NotFoundError: "No microphone was found. Plug one in, then try again.",
  NotReadableError: "The microphone is in use by another program. Close that one, then try again.",
  OverconstrainedError: "No microphone fits. Plug in another one, then try again.",
  SecurityError: "This page may not use the microphone. Open it on localhost or over https.",
};

/** The sentence for what `getUserMedia` threw. */
export function microphoneSentence(error) {
  return MICROPHONE_PROBLEMS[error?.name] ?? "The microphone could not be opened.";
}

export class BrowserCall {
  #callbacks;
  #agent;
  #state = CallState.NEW;
  #peer = null;
  #channel = null;
  #microphone = null;
  #peerId = null;
  #callSid = null;
  #candidates = [];
  #timers = new Map();

  /**
   * @param {object} options
   * @param {string|null} options.agent which agent to talk to, null for the server's first one
   * @param {(state: string, sentence: string|null) => void} options.onState with why it ended, null for a hang-up here
   * @param {(message: object) => void} options.onMessage RTVI messages
   * @param {(side: "you"|"agent", stream: MediaStream) => void} options.onStream
   * @param {(sentence: string|null) => void} options.onNotice a passing problem, null when it passed
   */
  constructor({ agent, onState, onMessage, onStream, onNotice }) {
    this.#agent = agent;
    this.#callbacks = { onState, onMessage, onStream, onNotice };
  }

  get state() {
    return this.#state;
  }

  /** The server's name for this call, null until it has one. */
  get callSid() {
    return this.#callSid;
  }

  /** Open the microphone and connect. Never throws: a failure ends the call with its sentence. */
  async start() {
    this.#setState(CallState.CONNECTING, null);
    try {
      await this.#openMicrophone();
      if (this.#state !== CallState.ENDED) await this.#connect();
    } catch (error) {
      this.#end(error instanceof Error && error.message ? error.message : "The call could not be set up.");
    }
  }

  /** Silence the microphone, or open it again; the stream itself goes on. */
  setMuted(muted) {
    for (const track of this.#microphone?.getAudioTracks() ?? []) track.enabled = !muted;
  }

  /** End the call from this side. */
  hangUp() {
    this.#end(null);
  }

  async #openMicrophone() {
    if (navigator.mediaDevices === undefined) throw new CallProblem(MICROPHONE_PROBLEMS.SecurityError);
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({
        audio: { echoCancellation: true, noiseSuppression: true, autoGainControl: true },
      });
    } catch (error) {
      throw new CallProblem(microphoneSentence(error));
    }
    if (this.#state === CallState.ENDED) {
      // The person hung up while the browser was still asking.
      for (const track of stream.getTracks()) track.stop();
      return;
    }
    this.#microphone = stream;
    const [track] = stream.getAudioTracks();
    track.addEventListener("ended", () => this.#end("The microphone was unplugged or taken away."));
    this.#callbacks.onStream("you", stream);
  }

  async #connect() {
    this.#after("connect", CONNECT_MS, () =>
      this.#end("No connection within 15 seconds. A firewall may be blocking UDP between this browser and the server."),
    );
    const peer = new RTCPeerConnection();
    this.#peer = peer;
    peer.addEventListener("track", ({ streams, track }) =>
      this.#callbacks.onStream("agent", streams[0] ?? new MediaStream([track])),
    );
    peer.addEventListener("connectionstatechange", () => this.#follow(peer.connectionState));
    peer.addEventListener("icecandidate", ({ candidate }) => candidate && this.#trickle(candidate));
    this.#channel = peer.createDataChannel("rtvi");
    this.#channel.addEventListener("open", () => this.#opened());
    this.#channel.addEventListener("message", ({ data }) => this.#received(data));
    this.#channel.addEventListener("close", () => this.#end(AGENT_LEFT));
    const [track] = this.#microphone.getAudioTracks();
    peer.addTransceiver(track, { direction: "sendrecv", streams: [this.#microphone] });
    await this.#negotiate();
  }

  async #negotiate() {
    const peer = this.#peer;
    await peer.setLocalDescription(await peer.createOffer());
    await gathered(peer, GATHER_MS);
    if (this.#state === CallState.ENDED) return;
    this.#candidates = [];
    const { sdp, type } = peer.localDescription;
    const request_data = { agent: this.#agent ?? undefined };
    const answer = await sendOffer({ sdp, type, pc_id: this.#peerId ?? undefined, request_data });
    if (this.#state === CallState.ENDED) return;
    this.#peerId = answer.pc_id;
    this.#callSid ??= answer.call_sid ?? null;
    await peer.setRemoteDescription({ sdp: answer.sdp, type: answer.type });
    this.#flushCandidates();
  }

  #trickle(candidate) {
    this.#candidates.push({
      candidate: candidate.candidate,
      sdp_mid: candidate.sdpMid,
      sdp_mline_index: candidate.sdpMLineIndex,
    });
    this.#flushCandidates();
  }

  #flushCandidates() {
    if (this.#peerId === null || this.#candidates.length === 0) return;
    const late = this.#candidates.splice(0);
    // Not fatal: the candidates of the offer may do, and the connect deadline watches.
    sendCandidates(this.#peerId, late).catch(() => {});
  }

  #opened() {
    this.#clear("connect");
    this.#send({
      type: "client-ready",
      data: { version: RTVI_VERSION, about: { library: "first-ring-page", platform: "web" } },
    });
    this.#setState(CallState.LIVE, null);
  }

  #received(text) {
    let message;
    try {
      message = JSON.parse(text);
    } catch {
      return; // not ours to understand, and nothing the person could do about it
    }
    if (message === null || typeof message !== "object") return;
    if (message.type === "signalling") this.#signalled(message.message?.type);
    else if (message.label === RTVI_LABEL && message.type === "error") this.#failed(message.data ?? {});
    else if (message.label === RTVI_LABEL) this.#callbacks.onMessage(message);
  }

  #signalled(type) {
    if (type === "peerLeft") this.#end(AGENT_LEFT);
    else if (type === "renegotiate") this.#negotiate().catch((error) => this.#end(error.message));
  }

  #failed(data) {
    const sentence = `The agent reported a problem: ${String(data.error ?? "unknown")}`;
    if (data.fatal) this.#end(sentence);
    else this.#callbacks.onNotice(sentence);
  }

  #follow(connectionState) {
    if (connectionState === "connected") {
      this.#clear("unsteady");
      this.#callbacks.onNotice(null);
    } else if (connectionState === "disconnected") {
      this.#callbacks.onNotice("The connection is unsteady. Holding the line…");
      this.#after("unsteady", UNSTEADY_MS, () => this.#end("The network was lost, so the call ended."));
    } else if (connectionState === "failed") {
      this.#end("The network was lost, so the call ended.");
    } else if (connectionState === "closed") {
      this.#end(AGENT_LEFT);
    }
  }

  #send(message) {
    if (this.#channel?.readyState !== "open") return;
    // randomUUID exists only on https and localhost, which is where a microphone does.
    this.#channel.send(JSON.stringify({ label: RTVI_LABEL, id: crypto.randomUUID(), ...message }));
  }

  #end(sentence) {
    if (this.#state === CallState.ENDED) return;
    // First the state: closing the parts below calls back in here.
    const previous = this.#state;
    this.#state = CallState.ENDED;
    for (const timer of this.#timers.values()) clearTimeout(timer);
    this.#timers.clear();
    for (const track of this.#microphone?.getTracks() ?? []) track.stop();
    this.#peer?.close();
    console.debug(`call ${previous} -> ${this.#state}`);
    this.#callbacks.onState(this.#state, sentence);
  }

  #setState(state, sentence) {
    if (this.#state === CallState.ENDED) return;
    console.debug(`call ${this.#state} -> ${state}`);
    this.#state = state;
    this.#callbacks.onState(state, sentence);
  }

  #after(name, delayMs, action) {
    this.#clear(name);
    this.#timers.set(name, setTimeout(action, delayMs));
  }

  #clear(name) {
    clearTimeout(this.#timers.get(name));
    this.#timers.delete(name);
  }
}

/** Wait until the peer knows its own addresses, at most `limitMs`; later ones are trickled. */
function gathered(peer, limitMs) {
  return new Promise((resolve) => {
    if (peer.iceGatheringState === "complete") {
      resolve();
      return;
    }
    const timer = setTimeout(resolve, limitMs);
    peer.addEventListener("icegatheringstatechange", () => {
      if (peer.iceGatheringState !== "complete") return;
      clearTimeout(timer);
      resolve();
    });
  });
}
