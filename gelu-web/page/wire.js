// What travelled, as a person sees it: totals, a strip of real bytes, a row for each step.

const kinds = {
  open: "agree on key and plan", prepare: "you prepare", encrypt: "you encrypt", send: "to the server", wait: "the server computes",
  receive: "to you", decrypt: "you decrypt", activate: "you compute on", evaluate: "you evaluate circuits",
};

export function bytesText(bytes) {
  if (bytes < 1000) return `${bytes} B`;
  return bytes < 1e6 ? `${(bytes / 1e3).toFixed(1)} kB` : `${(bytes / 1e6).toFixed(2)} MB`;
}

export function timeText(seconds) {
  return seconds < 1 ? `${Math.round(seconds * 1000)} ms` : `${seconds.toFixed(2)} s`;
}

/** Grey points, a byte each, from the top left on. */
export function drawBytes(canvas, bytes, from = 0) {
  const { width, height } = canvas;
  const context = canvas.getContext("2d");
  const rows = Math.min(Math.ceil(bytes.length / width), height - from);
  if (rows <= 0) return;
  const image = context.createImageData(width, rows);
  for (let at = 0; at < width * rows && at < bytes.length; at++) {
    image.data.set([bytes[at], bytes[at], bytes[at], 255], 4 * at);
  }
  context.putImageData(image, 0, from);
}

export class Wire {
  #row = 0;
  #last = null;
  #up = 0;
  #down = 0;
  #ciphertexts = 0;

  constructor(byId) {
    this.byId = byId;
  }

  begin() {
    this.#last = null;
    this.#row = this.#up = this.#down = this.#ciphertexts = 0;
    this.byId("steps").replaceChildren();
    for (const name of ["strip", "sight"]) {
      const canvas = this.byId(name);
      canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);
    }
    this.#tell();
  }

  /** Takes note of a step; returns the ciphertexts that have gone up so far. */
  step(step) {
    if (step.direction === "up") {
      this.#up += step.bytes;
      this.#ciphertexts += step.ciphertexts;
    }
    if (step.direction === "down") this.#down += step.bytes;
    // A tensor travels in many messages: they are one row.
    const last = this.#last;
    if (last && ["name", "kind", "direction"].every((part) => last.step[part] === step[part])) {
      last.step = { ...step, bytes: last.step.bytes + step.bytes, ciphertexts: last.step.ciphertexts + step.ciphertexts, seconds: last.step.seconds + step.seconds };
    } else {
      const row = document.createElement("tr");
      row.append(...Array.from({ length: 4 }, () => document.createElement("td")));
      this.#last = { row, step };
      this.byId("steps").append(row);
    }
    this.#fill(this.#last);
    if (step.sample?.length) this.#sample(step);
    this.#tell();
    return this.#ciphertexts;
  }

  #fill({ row, step }) {
    const arrow = { up: "↑ ", down: "↓ " }[step.direction] ?? "";
    const size = step.bytes ? bytesText(step.bytes) : step.ciphertexts ? `${step.ciphertexts} ct.` : "";
    [step.name, `${arrow}${kinds[step.kind] ?? step.kind}`, size, timeText(step.seconds)].forEach((text, at) => {
      row.children[at].textContent = text;
      row.children[at].className = at > 1 ? "number" : "";
    });
  }

  #sample(step) {
    const strip = this.byId("strip");
    const sample = step.sample.subarray(0, strip.width * 4);
    // The latest messages stay.
    if (this.#row + 4 > strip.height) {
      const context = strip.getContext("2d");
      context.drawImage(strip, 0, -4);
      this.#row = strip.height - 4;
    }
    drawBytes(strip, sample, this.#row);
    this.#row += Math.ceil(sample.length / strip.width);
    strip.setAttribute("aria-label", "Bytes of ciphertexts as they travelled: noise, without a pattern");
  }

  #tell() {
    this.byId("up").textContent = bytesText(this.#up);
    this.byId("down").textContent = bytesText(this.#down);
  }
}
