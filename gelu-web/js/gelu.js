// The client of private inference for pages: the network stays at the server, the image and the key stay here.
// All computing is done in a Web Worker; see README.md.

/** What goes wrong. `code` is one of refused, disconnected, plan, input, key, protocol, unsupported. */
export class GeluError extends Error {
  constructor(code, message) {
    super(message);
    this.name = "GeluError";
    this.code = code;
  }
}

/** An address in the server's API: "http" becomes "ws" where `protocol` says so. */
function address(server, path, protocol = "http") {
  const url = new URL(path, server.endsWith("/") ? server : `${server}/`);
  url.protocol = url.protocol.replace(/^(http|ws)/, protocol);
  return url.href;
}

/** Asks a server which models it offers. */
export async function listModels(server) {
  let response;
  try {
    response = await fetch(address(server, "v1/models"));
  } catch (error) {
    throw new GeluError("disconnected", `cannot reach ${server}: ${error.message}`);
  }
  if (!response.ok) {
    throw new GeluError("refused", `${server} answered ${response.status}: ${(await response.text()).slice(0, 200)}`);
  }
  return response.json();
}

/** Whether this engine has 128-bit vectors, which the arithmetic is made for: a module with one such instruction. */
function hasVectors() {
  const module = [0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11];
  return typeof WebAssembly === "object" && WebAssembly.validate(new Uint8Array(module));
}

/** Calls into a worker, and what it tells by itself. */
class Remote {
  #worker;
  #calls = new Map();
  #next = 0;
  #gone = null;
  listeners = new Map();

  static async start() {
    if (!hasVectors()) {
      throw new GeluError("unsupported", "expected WebAssembly with 128-bit vectors; use a browser of 2023 or later");
    }
    const remote = new Remote();
    const file = new URL("./worker.js", import.meta.url);
    if (typeof Worker === "function") {
      const worker = new Worker(file, { type: "module", name: "gelu" });
      worker.onmessage = ({ data }) => remote.#take(data);
      worker.onerror = (event) => remote.#fail(event.message ?? "its file could not be loaded");
      remote.#worker = worker;
    } else {
      const { Worker: Thread } = await import("node:worker_threads");
      const worker = new Thread(file);
      worker.on("message", (data) => remote.#take(data));
      worker.on("error", (error) => remote.#fail(error.message));
      remote.#worker = worker;
    }
    return remote;
  }

  call(name, args = {}, transfer = []) {
    return new Promise((resolve, reject) => {
      if (this.#gone) return reject(this.#gone);
      const id = this.#next++;
      this.#calls.set(id, { resolve, reject });
      this.#worker.postMessage({ id, name, args }, transfer);
    });
  }

  stop(error) {
    this.#gone ??= error;
    for (const { reject } of this.#calls.values()) reject(this.#gone);
    this.#calls.clear();
    this.#worker.terminate();
  }

  #take({ id, value, error, session, step }) {
    if (step) return this.listeners.get(session)?.(step);
    const call = this.#calls.get(id);
    this.#calls.delete(id);
    if (error) call?.reject(new GeluError(error.code, error.message));
    else call?.resolve(value);
  }

  #fail(message) {
    this.stop(new GeluError("unsupported", `the worker failed: ${message}`));
  }
}

/** A key in a worker of its own, and sessions with it. */
export class Client {
  #remote;

  /**
   * Makes a key (`keyBits`, `keyType`), or opens a sealed one (`key`, `passphrase`).
   */
  static async create({ keyBits = 2048, keyType = "subgroup", key = null, passphrase = null } = {}) {
    const remote = await Remote.start();
    try {
      const made = await remote.call("create", { keyBits, keyType, key, passphrase });
      return new Client(remote, made);
    } catch (error) {
      remote.stop(error);
      throw error;
    }
  }

  constructor(remote, { key, backend }) {
    this.#remote = remote;
    /** Size, type and fingerprint of the key. */
    this.key = Object.freeze(key);
    /** What the arithmetic is computed by: simd128 or portable. */
    this.backend = backend;
  }

  /** The key file under a passphrase: to be kept in IndexedDB, for `Client.create`. */
  seal(passphrase) {
    return this.#remote.call("seal", { passphrase });
  }

  /** Makes random factors for so many ciphertexts, for all sessions to come: nothing is sent, and an input is encrypted sooner. */
  prepare(ciphertexts) {
    return this.#remote.call("ahead", { ciphertexts });
  }

  /** Begins a session with a server about a model; it is there once the server's plan has been checked. */
  async connect(server, model, { hidden = false, reveal = undefined, onStep = null, patience = 120 } = {}) {
    if (hidden && !reveal) {
      const offered = (await listModels(server)).find((one) => one.name === model);
      reveal = offered?.hidden && !offered.hidden.logits ? "class" : "logits";
    }
    const session = new Session(this.#remote, onStep);
    await session._open({ url: address(server, "v1/converse", "ws"), model, hidden, reveal: reveal ?? "logits", patience });
    return session;
  }

  /** Wipes the key and ends the worker; sessions end with it. */
  async destroy() {
    const gone = new GeluError("disconnected", "the client was destroyed");
    await this.#remote.call("destroy").catch(() => {});
    this.#remote.stop(gone);
  }
}

let sessions = 0;

/** A session about one model, for one input after another. */
export class Session {
  #remote;
  #id = sessions++;
  #onStep;
  #steps = null;

  constructor(remote, onStep) {
    this.#remote = remote;
    this.#onStep = onStep;
    remote.listeners.set(this.#id, (step) => {
      this.#steps?.push(step);
      this.#onStep?.(step);
    });
  }

  async _open(options) {
    try {
      const { input, segments } = await this.#remote.call("open", { session: this.#id, ...options });
      /** The extents of an input. */
      this.input = input;
      /** The names of the network's segments. */
      this.segments = segments;
    } catch (error) {
      this.#remote.listeners.delete(this.#id);
      throw error;
    }
  }

  /** Makes what can be made before there is an input, for `count` of them. */
  prepare(count = 1) {
    return this.#remote.call("prepare", { session: this.#id, count });
  }

  /** Sends an input of the model's shape, as numbers in the order of its extents, through the network. */
  async infer(input, { onStep = null } = {}) {
    if (this.#steps) throw new GeluError("input", "expected to wait for the input before this one");
    const before = this.#onStep;
    if (onStep) this.#onStep = onStep;
    this.#steps = [];
    try {
      const result = await this.#remote.call("infer", { session: this.#id, input: Float32Array.from(input) });
      const sum = (direction) =>
        this.#steps.reduce((bytes, step) => (step.direction === direction ? bytes + step.bytes : bytes), 0);
      return { ...result, bytesUp: sum("up"), bytesDown: sum("down"), steps: this.#steps };
    } finally {
      this.#onStep = before;
      this.#steps = null;
    }
  }

  /** Ends the session, and tells the server. */
  async close() {
    await this.#remote.call("close", { session: this.#id }).catch(() => {});
    this.#remote.listeners.delete(this.#id);
  }
}
