// The page of private inference: what the person sees, what travels, what the server sees.

import { Client, listModels } from "./client/gelu.js";
import { normalizeDigit } from "./digit.js";
import { Drawing } from "./drawing.js";
import { inputOf, readPicture, readsDigits, shapeOf } from "./picture.js";
import { forgetKey, keepKey, keptKey } from "./vault.js";
import { drawBytes, timeText, Wire } from "./wire.js";

const byId = (id) => document.getElementById(id);
/** The server that has the networks: another than the page's where the address says so, `?server=https://host:7480`. */
const server = new URLSearchParams(location.search).get("server") ?? location.origin;
const wire = new Wire(byId);
/** Seconds that a server may be away. */
const PATIENCE = 20;

let models = [];
let client = null;
let making = null;
/** What a network is given, as bytes; null before there is anything. */
let input = null;
/** Messages of this run that carried ciphertexts up, as the server sees them. */
let seen = [];
let isBusy = false;

const drawing = new Drawing(byId("drawing"), byId("pen"), byId("pen-said"), () => {
  const digit = normalizeDigit(...drawing.ink());
  setInput(digit);
});
for (const begins of ["pointerdown", "keydown"]) byId("drawing").addEventListener(begins, makeAhead);

function say(text) {
  byId("status").textContent = text;
}

function complain(text) {
  byId("problem").textContent = text;
  byId("problem").hidden = !text;
}

const model = () => models.find((one) => one.name === byId("model").value);

/** Draws bytes of an input, channel by channel, into a canvas of its size. */
function paint(canvas, bytes, { channels, height, width }) {
  canvas.width = width;
  canvas.height = height;
  const image = new ImageData(width, height);
  const plane = width * height;
  for (let at = 0; at < plane; at++) {
    const color = [0, 1, 2].map((channel) => bytes[(channels === 1 ? 0 : channel) * plane + at]);
    image.data.set([...color, 255], 4 * at);
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}

function setInput(bytes) {
  input = bytes;
  const shape = shapeOf(model());
  const canvas = byId("input");
  if (input) {
    paint(canvas, input, shape);
  } else {
    canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);
  }
  const size = shape ? `${shape.width} × ${shape.height} pixels` : "";
  canvas.setAttribute("aria-label", `What the network is given: ${input ? `your picture at ${size}` : "nothing yet"}`);
  byId("input-size").textContent = input ? size : "nothing yet";
  byId("answer").dataset.of = "";
  showAnswer(null);
  show();
  if (input) makeAhead();
}

/** Makes the key, and what encrypts a picture, while the person draws, unless a key is kept here that the passphrase may open. */
async function makeAhead() {
  try {
    if (!client && !making && (await keptKey().catch(() => undefined))) return;
    const own = await keyed();
    if (!isBusy) await own.prepare(model()?.cost?.ciphertexts_up ?? 0);
  } catch {
    // What goes wrong is said when it is asked for.
  }
}

function show() {
  byId("run").disabled = isBusy || !input || !models.length;
  byId("run").textContent = isBusy ? "Working…" : "Classify";
  byId("model").disabled = byId("hidden").disabled = isBusy || !models.length;
  if (models.length) {
    const { cost, hidden } = model();
    if (!cost) byId("hidden").checked = true;
    if (!hidden) byId("hidden").checked = false;
    byId("hidden").disabled ||= !cost || !hidden;
  }
  showSight();
}

/** What the server has of the picture: ciphertexts, or the picture itself where there is no encryption. */
function showSight() {
  const canvas = byId("sight");
  const isClear = byId("clear").checked;
  canvas.classList.toggle("exposed", isClear && input !== null);
  if (isClear && input) {
    paint(canvas, input, shapeOf(model()));
    canvas.setAttribute("aria-label", "What the server would see without encryption: your picture itself");
    byId("sight-text").textContent = "Without encryption the server would have your picture itself. It is drawn here by your browser; it was not sent.";
    return;
  }
  canvas.width = canvas.height = 64;
  if (!seen.length) {
    canvas.setAttribute("aria-label", "What the server sees: nothing yet");
    byId("sight-text").textContent = "What the server sees of your picture: nothing yet.";
    return;
  }
  drawBytes(canvas, Uint8Array.from(seen.flatMap((sample) => [...sample]).slice(0, 64 * 64)));
  canvas.setAttribute("aria-label", "What the server sees of your picture: bytes of ciphertexts, noise without a pattern");
  byId("sight-text").textContent = "What the server sees of your picture: ciphertexts. These are bytes that it received.";
}

function learns(items) {
  byId("learns").replaceChildren(...items.map((text) => {
    const item = document.createElement("li");
    item.textContent = text;
    return item;
  }));
}

function showAnswer(result) {
  const bars = byId("bars");
  bars.replaceChildren();
  if (!result) {
    byId("class").textContent = "–";
    return;
  }
  const names = model().classes ?? [];
  const name = (at) => names[at] ?? String(at);
  byId("class").textContent = name(result.class);
  const parts = result.probabilities ? [...result.probabilities] : [];
  parts.forEach((part, at) => {
    const item = document.createElement("li");
    const label = document.createElement("span");
    const meter = document.createElement("meter");
    const value = document.createElement("span");
    label.textContent = name(at);
    meter.value = part;
    meter.setAttribute("aria-label", name(at));
    value.className = "value";
    value.textContent = `${(100 * part).toFixed(1)} %`;
    item.append(label, meter, value);
    bars.append(item);
  });
}

/** The key: the kept one where its passphrase is given, or a new one. */
async function keyed() {
  if (client) return client;
  making ??= (async () => {
    byId("key-state").textContent = "being made…";
    const kept = await keptKey().catch(() => undefined);
    const passphrase = byId("passphrase").value;
    if (kept && passphrase) {
      client = await Client.create({ key: kept.sealed, passphrase });
    } else {
      client = await Client.create({ keyBits: 2048, keyType: "subgroup" });
    }
    await showKey();
    return client;
  })();
  try {
    return await making;
  } catch (error) {
    byId("key-state").textContent = "made when it is needed";
    throw error;
  } finally {
    making = null;
  }
}

async function showKey() {
  const kept = await keptKey().catch(() => undefined);
  byId("forget-key").hidden = !kept;
  if (client) {
    const { bits, fingerprint } = client.key;
    const where = kept?.fingerprint === fingerprint ? "kept in this browser, sealed" : "made here, gone with this page";
    byId("key-state").textContent = `${bits} bits, ${String(fingerprint).slice(0, 12)}…, ${where}`;
    byId("keep-key").textContent = "Keep my key";
  } else if (kept) {
    byId("key-state").textContent = `one is kept here, sealed (${String(kept.fingerprint).slice(0, 12)}…)`;
    byId("keep-key").textContent = "Open my key";
  } else {
    byId("key-state").textContent = "made when it is needed";
    byId("keep-key").textContent = "Keep my key";
  }
}

const doing = {
  encrypt: "Your browser encrypts", send: "Ciphertexts go to the server", wait: "The server computes on ciphertexts",
  receive: "Ciphertexts come back", decrypt: "Your browser decrypts", activate: "Your browser computes the activations",
};

async function classify() {
  const { name } = model();
  const isHidden = byId("hidden").checked;
  isBusy = true;
  seen = [];
  complain("");
  showAnswer(null);
  wire.begin();
  byId("time").textContent = "–";
  show();
  let session = null;
  // The farewell is no part of it.
  let isAnswered = false;
  try {
    say("Making your key…");
    const own = await keyed();
    const start = performance.now();
    const onStep = (step) => {
      if (isAnswered) return;
      const ciphertexts = wire.step(step);
      if (doing[step.kind]) say(`${doing[step.kind]} (${step.name})…`);
      if (step.direction === "up" && step.sample?.length) {
        seen.push(step.sample);
        showSight();
      }
      byId("time").textContent = timeText((performance.now() - start) / 1000);
      learns([
        `that you ask about ${name}`, `your public key, ${own.key.bits} bits`, `${ciphertexts} ciphertexts`,
        "when they came, and from which address",
      ]);
    };
    say("Asking for a session…");
    session = await own.connect(server, name, { hidden: isHidden, onStep, patience: PATIENCE });
    if (isHidden) {
      say("Preparing what needs no picture…");
      await session.prepare(1);
    }
    const result = await session.infer(inputOf(model(), input), { onStep });
    isAnswered = true;
    const seconds = (performance.now() - start) / 1000;
    byId("time").textContent = timeText(seconds);
    showAnswer(result);
    const named = model().classes?.[result.class] ?? result.class;
    say(`Done in ${timeText(seconds)}. The answer is ${named}; only this page knows it.`);
  } catch (error) {
    say("");
    complain(explain(error));
  } finally {
    await session?.close();
    isBusy = false;
    show();
  }
}

/** What went wrong, and what can be done. */
function explain(error) {
  switch (error.code) {
    case "disconnected": return `The server cannot be reached (${error.message}). Nothing of your picture is lost: try again when it is back.`;
    case "refused": return `The server refused: ${error.message}.`;
    case "key": return `The key cannot be opened: ${error.message}. Is it the passphrase that it was kept with?`;
    case "unsupported": return `This browser cannot do it: ${error.message}.`;
    default: return error.message;
  }
}

async function load() {
  try {
    const offered = await listModels(server);
    models = offered.filter((one) => shapeOf(one) && (one.cost || one.hidden));
  } catch (error) {
    say("");
    complain(explain(error));
    setTimeout(load, 3000);
    return;
  }
  complain("");
  if (!models.length) return say("The server offers no network that takes pictures.");
  byId("model").replaceChildren(...models.map((one) => new Option(one.name)));
  say("Draw a digit, or take a picture. Nothing is sent before you ask.");
  chosen();
}

function chosen() {
  const digits = readsDigits(model());
  for (const board of document.querySelectorAll(".board, #drawing-help, #erase, #samples")) board.hidden = !digits;
  setInput(digits ? normalizeDigit(...drawing.ink()) : null);
}

async function loadSamples() {
  const samples = await (await fetch("samples.json")).json();
  const shelf = document.createElement("div");
  for (const { label, pixels } of samples) {
    const bytes = Uint8Array.from(pixels.match(/../g), (pair) => parseInt(pair, 16));
    const button = document.createElement("button");
    const canvas = document.createElement("canvas");
    button.type = "button";
    button.setAttribute("aria-label", `A drawn ${label}`);
    paint(canvas, bytes, { channels: 1, height: 28, width: 28 });
    button.append(canvas);
    button.addEventListener("click", () => {
      drawing.put(bytes, 28);
      setInput(bytes);
    });
    shelf.append(button);
  }
  byId("samples").append(shelf);
}

byId("controls").addEventListener("submit", (event) => {
  event.preventDefault();
  if (!isBusy && input) classify();
});
byId("model").addEventListener("change", chosen);
byId("clear").addEventListener("change", showSight);
byId("erase").addEventListener("click", () => drawing.clear());
byId("file").addEventListener("change", async ({ target }) => {
  const [file] = target.files;
  if (!file) return;
  complain("");
  try {
    const bytes = await readPicture(file, model());
    if (readsDigits(model())) drawing.put(bytes, 28);
    setInput(bytes);
  } catch (error) {
    complain(error.message);
  }
  target.value = "";
});
byId("keep").addEventListener("submit", async (event) => {
  event.preventDefault();
  complain("");
  const passphrase = byId("passphrase").value;
  try {
    const own = await keyed();
    await keepKey(await own.seal(passphrase), own.key.fingerprint);
    byId("passphrase").value = "";
    say("Your key is kept in this browser, sealed.");
  } catch (error) {
    complain(explain(error));
  }
  showKey();
});
byId("forget-key").addEventListener("click", async () => {
  await forgetKey();
  byId("passphrase").value = "";
  say("The kept key is forgotten.");
  showKey();
});

loadSamples();
showKey();
load();
