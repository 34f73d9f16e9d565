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

/** Whether workers can share memory here: pages that no other site can reach into, and Node. */
const sharesMemory = () => globalThis.crossOriginIsolated ?? typeof Worker !== "function";

/** Starts a worker of this package. */
async function start(file, onMessage, onError) {
  const url = new URL(file, import.meta.url);
  if (typeof Worker === "function") {
    const worker = new Worker(url, { type: "module", name: "gelu" });
    worker.onmessage = ({ data }) => onMessage(data);
    worker.onerror = (event) => onError(event.message ?? "its file could not be loaded");
    return worker;
  }
  const { Worker: Thread } = await import("node:worker_threads");
  const worker = new Thread(url);
  worker.on("message", onMessage);
  worker.on("error", (error) => onError(error.message));
  return worker;
}

/** Calls into a worker, and what it tells by itself. */
class Remote {
  #worker;
  #threads = [];
  #calls = new Map();
  #next = 0;
  #gone = null;
  #reject;
  /** Rejected when a worker fails, whether or not somebody waits for it. */
  #failed = new Promise((_, reject) => (this.#reject = reject));
  listeners = new Map();

  constructor() {
    this.#failed.catch(() => {});
  }

  /** Loads the engine, with as many threads, of which the worker itself is one. */
  static async start(threads) {
    if (!hasVectors()) {
      throw new GeluError("unsupported", "expected WebAssembly with 128-bit vectors; use a browser of 2023 or later");
    }
    if (!(Number.isInteger(threads) && threads > 0)) throw new GeluError("input", `expected a number of threads, found ${threads}`);
    const remote = new Remote();
    const fail = (message) => remote.#fail(message);
    remote.#worker = await start("./worker.js", (data) => remote.#take(data), fail);
    try {
      remote.threads = sharesMemory() ? threads : 1;
      const shared = await remote.call("load", { isShared: remote.threads > 1 });
      const joined = Array.from({ length: remote.threads - 1 }, async () => {
        let ready;
        const isReady = new Promise((resolve) => (ready = resolve));
        const thread = await start("./thread.js", () => ready(), fail);
        remote.#threads.push(thread);
        thread.postMessage(shared);
        await isReady;
      });
      // A thread that fails is never ready.
      await Promise.race([Promise.all(joined), remote.#failed]);
      if (remote.threads > 1) await remote.call("join", { threads: remote.threads });
    } catch (error) {
      remote.stop(error);
      throw error;
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
    this.#reject(this.#gone);
    for (const worker of [this.#worker, ...this.#threads]) worker.terminate();
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

/** Threads where it is not said: as many as there are processors, of which telephones have slow ones, too. */
async function processors() {
  const count = globalThis.navigator?.hardwareConcurrency ?? (await import("node:os")).availableParallelism();
  return Math.min(count, 8);
}

/** A key in workers of its own, and sessions with it. */
export class Client {
  #remote;

  /**
   * Makes a key (`keyBits`, `keyType`), or opens a sealed one (`key`, `passphrase`), and computes by `threads`.
   */
  static async create({ keyBits = 2048, keyType = "subgroup", key = null, passphrase = null, threads = null } = {}) {
    const remote = await Remote.start(threads ?? (await processors()));
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
    /** How many threads compute: one where workers cannot share memory. */
    this.threads = remote.threads;
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
