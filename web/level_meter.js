/**
 * Level meters for both ends of a browser call, one animation loop for all of them.
 *
 * Measures what the WebAudio graph sees; never routes anything to the speakers.
 */

const FLOOR_DB = -60;
const SPOKEN_UPDATE_MS = 500; // how often assistive technology is told
const CALM_UPDATE_MS = 200; // how often the bar moves when the person asked for less motion

/** dBFS of the samples (floats of -1..1) as 0..100. */
export function levelPercent(samples) {
  let sum = 0;
  for (const sample of samples) sum += sample * sample;
  const db = 10 * Math.log10(sum / samples.length + 1e-12);
  return Math.round(Math.min(1, Math.max(0, 1 - db / FLOOR_DB)) * 100);
}

/** Owns one AudioContext and the meters fed by it, until `close()`. */
export class LevelMeters {
  #context = new AudioContext();
  #meters = [];
  #frame = 0;
  #calm = matchMedia("(prefers-reduced-motion: reduce)");

  constructor() {
    this.#frame = requestAnimationFrame((now) => this.#draw(now));
  }

  /** Show the level of `stream` in `node` (a `.meter` with its `.meter-fill`). */
  add(stream, node) {
    const analyser = this.#context.createAnalyser();
    analyser.fftSize = 1024;
    const source = this.#context.createMediaStreamSource(stream);
    source.connect(analyser);
    const samples = new Float32Array(analyser.fftSize);
    const fill = node.firstElementChild;
    this.#meters.push({ node, fill, source, analyser, samples, shown: 0, drawnAt: 0, spokenAt: 0 });
    // A context made before the person touched the page starts suspended.
    this.#context.resume().catch(() => {});
  }

  /** Stop measuring and let the audio graph go. */
  close() {
    cancelAnimationFrame(this.#frame);
    for (const meter of this.#meters) {
      meter.source.disconnect();
      meter.fill.style.transform = "scaleX(0)";
      meter.node.setAttribute("aria-valuenow", "0");
    }
    this.#meters = [];
    this.#context.close().catch(() => {});
  }

  #draw(now) {
    this.#frame = requestAnimationFrame((next) => this.#draw(next));
    for (const meter of this.#meters) {
      if (this.#calm.matches && now - meter.drawnAt < CALM_UPDATE_MS) continue;
      meter.drawnAt = now;
      meter.analyser.getFloatTimeDomainData(meter.samples);
      const level = levelPercent(meter.samples);
      // Quick up, slow down: reads like a needle, not like noise.
      meter.shown = level > meter.shown ? level : meter.shown * 0.88 + level * 0.12;
      meter.fill.style.transform = `scaleX(${(meter.shown / 100).toFixed(3)})`;
      if (now - meter.spokenAt < SPOKEN_UPDATE_MS) continue;
      meter.spokenAt = now;
      meter.node.setAttribute("aria-valuenow", String(Math.round(meter.shown)));
    }
  }
}
