/**
 * The page's requests to its own server.
 *
 * Every one has a deadline, and every failure is one sentence a person can act on.
 */

const DEADLINE_MS = 10000;

/** A failure with a sentence for the person at the page. */
export class ServerProblem extends Error {
  /**
   * @param {string} sentence
   * @param {number|null} status HTTP status, or null when no answer came
   */
  constructor(sentence, status) {
    super(sentence);
    this.status = status;
  }
}

/**
 * @returns {Promise<any>} the JSON answer
 * @throws {ServerProblem}
 */
async function request(path, { method = "GET", body = null } = {}) {
  let response;
  try {
    response = await fetch(path, {
      method,
      cache: "no-store",
      headers: body === null ? {} : { "content-type": "application/json" },
      body: body === null ? null : JSON.stringify(body),
      signal: AbortSignal.timeout(DEADLINE_MS),
    });
  } catch (error) {
    throw new ServerProblem(
      error.name === "TimeoutError"
        ? `The server did not answer within ${DEADLINE_MS / 1000} seconds.`
        : `No answer from the server at ${location.origin}. Is it running?`,
      null,
    );
  }
  const answer = await response.json().catch(() => null);
  if (!response.ok) {
    const told = answer !== null && (answer.error ?? answer.detail);
    const sentence = typeof told === "string" ? told : `The server answered with status ${response.status}.`;
    throw new ServerProblem(sentence, response.status);
  }
  if (answer === null) throw new ServerProblem("The server's answer could not be read.", response.status);
  return answer;
}

/** Offer a WebRTC session; gives `{sdp, type, pc_id}`. */
export const sendOffer = (offer) => request("/webrtc/offer", { method: "POST", body: offer });

/** Pass on ICE candidates that were found after the offer left. */
export const sendCandidates = (pcId, candidates) =>
  request("/webrtc/offer", { method: "PATCH", body: { pc_id: pcId, candidates } });

/** Have the scripted caller ring; gives `{call_sid}`. */
export const placeTestCall = (scenario) => request("/api/test-call", { method: "POST", body: { scenario } });

/** Recent calls, newest first. */
export const fetchCalls = () => request("/api/calls");

/** One call with its transcript and turns. */
export const fetchCall = (callSid) => request(`/api/calls/${encodeURIComponent(callSid)}`);

/** Where the recording of an ended call is. */
export const recordingUrl = (callSid) => `/api/calls/${encodeURIComponent(callSid)}/audio.wav`;

/** Whether the recording can be had yet; asks for its header only. */
export async function hasRecording(callSid) {
  try {
    const response = await fetch(recordingUrl(callSid), {
      headers: { range: "bytes=0-43" },
      signal: AbortSignal.timeout(DEADLINE_MS),
    });
    await response.body?.cancel();
    return response.ok;
  } catch {
    return false;
  }
}
