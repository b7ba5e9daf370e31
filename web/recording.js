/**
 * The player for a call's recording: shown once the WAV is there, which is the moment after the call ended.
 */

import { byId } from "./dom.js";
import { hasRecording, recordingUrl } from "./server_api.js";

const TRIES = 5;
const PAUSE_MS = 1000;

export class Recording {
  #box = byId("recording");
  #player = byId("player");
  #callSid = null;
  #onReady;

  /** @param {() => void} onReady called when a recording that was offered can be played */
  constructor(onReady) {
    this.#onReady = onReady;
  }

  /** Whether there is something to play. */
  get isReady() {
    return !this.#box.hidden;
  }

  /** Put the player away. */
  reset() {
    this.#callSid = null;
    this.#player.pause();
    this.#player.removeAttribute("src");
    this.#box.hidden = true;
  }

  /** Show the player for this call as soon as its recording can be had; asking again changes nothing. */
  async offer(callSid) {
    if (this.#callSid === callSid) return;
    this.#callSid = callSid;
    for (let attempt = 0; attempt < TRIES; attempt++) {
      const isThere = await hasRecording(callSid);
      if (this.#callSid !== callSid) return; // another call was opened meanwhile
      if (isThere) {
        this.#show(callSid);
        return;
      }
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    }
  }

  /** Play from a time in seconds since the call began. */
  playFrom(atS) {
    this.#player.currentTime = Math.max(0, atS);
    this.#player.play().catch(() => {}); // the control itself shows what it could not play
  }

  #show(callSid) {
    this.#player.src = recordingUrl(callSid);
    byId("recording-link").setAttribute("href", recordingUrl(callSid));
    byId("recording-link").setAttribute("download", `${callSid}.wav`);
    this.#box.hidden = false;
    this.#onReady();
  }
}
