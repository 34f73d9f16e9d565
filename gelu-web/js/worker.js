// The Web Worker of gelu.js: it has the key, the WebSocket and the clock. What is computed is in gelu_bg.wasm, whose
// memory it shares with the workers of thread.js where they are there.

import init, { Client, makeThreads, Session, shared } from "./bindings.js";

const node = typeof self === "undefined" ? await import("node:worker_threads") : null;
const post = node ? (data) => node.parentPort.postMessage(data) : (data) => self.postMessage(data);

/** Frames of the server that are refused before they are taken apart. */
const REFUSED = 4000;

let client = null;
const sessions = new Map();

function failure(code, message) {
  return Object.assign(new Error(message), { code });
}

/** Lets the event loop go round, so that messages can arrive between two units of work. */
const turn = (() => {
  const { port1, port2 } = new MessageChannel();
  const waiting = [];
  port1.onmessage = () => waiting.shift()?.();
  if (node) port1.unref();
  return () => new Promise((resolve) => {
    waiting.push(resolve);
    port2.postMessage(0);
  });
})();

/** A session and its connection. */
class Conversation {
  constructor(id, { url, model, hidden, reveal, patience }) {
    this.id = id;
    this.url = url;
    this.patience = patience;
    this.session = client.session(model, hidden, reveal);
    this.socket = null;
    this.timer = null;
    this.isWorking = false;
    this.error = null;
    /** What callers wait for: [condition, resolve, reject]. */
    this.waits = [];
    /** Since when there has been nothing to do but wait for the server. */
    this.idleSince = null;
    /** Since when there has been no connection, and the pause before the next attempt. */
    this.lostSince = null;
    this.pause = 50;
  }

  connect() {
    this.timer = null;
    const socket = new WebSocket(this.url);
    socket.binaryType = "arraybuffer";
    this.socket = socket;
    socket.onopen = () => socket.send(this.session.open());
    socket.onmessage = ({ data }) => {
      if (socket !== this.socket || this.error) return;
      this.guard(() => {
        if (!(data instanceof ArrayBuffer)) throw failure("protocol", "expected binary frames, found text");
        this.session.takeFrame(new Uint8Array(data));
        if (this.session.isOpen) [this.lostSince, this.pause] = [null, 50];
      });
      this.work();
    };
    socket.onclose = ({ code, reason }) => {
      if (socket === this.socket) this.lost(code, reason);
    };
    // A connection that was never made may end without a close.
    socket.onerror = () => setTimeout(() => socket === this.socket && this.lost(1006, ""), 100);
  }

  /** A connection is gone: another one goes on with the session, if the server still has it. */
  lost(code, reason) {
    this.socket = null;
    if (this.error || this.session.isOver) return this.fail(failure("disconnected", "the session is over"));
    if (code === REFUSED) {
      const forgotten = /^(unknown-session|stopping|no such conversation)/i.test(reason);
      return this.fail(failure(forgotten ? "disconnected" : "refused", reason));
    }
    const now = performance.now();
    this.lostSince ??= now;
    const patience = Math.min(this.patience, this.session.keptSeconds || this.patience);
    if (now - this.lostSince > 1000 * patience) {
      return this.fail(failure("disconnected", `the connection broke (${code}), and no other could be made within ${patience} s`));
    }
    this.timer = setTimeout(() => this.connect(), this.pause);
    this.pause = Math.min(2 * this.pause, 5000);
  }

  /** Computes until there is nothing to do before the server says more, and sends what there is to send. */
  async work() {
    if (this.isWorking) return;
    this.isWorking = true;
    try {
      for (;;) {
        if (this.error) return;
        const start = performance.now();
        const steps = this.session.work();
        const seconds = (performance.now() - start) / 1000;
        if (steps.length > 0) this.tell(steps, start, seconds);
        this.send();
        this.settle();
        if (steps.length === 0) {
          this.idleSince ??= performance.now();
          return;
        }
        await turn();
      }
    } catch (error) {
      this.fail(error);
    } finally {
      this.isWorking = false;
    }
  }

  /** Tells the page of steps, whose time is that of the work on them. */
  tell(steps, start, seconds) {
    for (const step of steps) {
      const { name, kind, side, direction = null, bytes, ciphertexts, sample = null } = step;
      step.free();
      if (kind === "receive" && this.idleSince !== null) {
        const waited = (start - this.idleSince) / 1000;
        this.report({ name, side: "server", kind: "wait", direction: null, bytes: 0, ciphertexts, seconds: waited, sample: null });
      }
      this.report({ name, side, kind, direction, bytes, ciphertexts, seconds: side === "client" ? seconds : 0, sample });
    }
    this.idleSince = null;
  }

  report(step) {
    post({ session: this.id, step });
  }

  send() {
    if (this.socket?.readyState !== 1) return;
    for (let frame; (frame = this.session.nextFrame()) !== undefined;) this.socket.send(frame);
  }

  guard(attempt) {
    try {
      attempt();
    } catch (error) {
      this.fail(error);
    }
  }

  /** Resolves when a condition holds. */
  until(condition) {
    return new Promise((resolve, reject) => {
      if (this.error) return reject(this.error);
      this.waits.push([condition, resolve, reject]);
      this.work();
    });
  }

  settle() {
    this.waits = this.waits.filter(([condition, resolve]) => {
      const value = condition();
      if (value) resolve(value);
      return !value;
    });
  }

  /** Ends it; the first reason stays, and the server is told what it does not know. */
  fail(error) {
    this.error ??= error;
    this.waits.splice(0).forEach(([, , reject]) => reject(this.error));
    this.hangUp();
  }

  hangUp() {
    clearTimeout(this.timer);
    const { socket } = this;
    this.socket = null;
    if (!socket) return;
    if (socket.readyState === 1) {
      for (let frame; (frame = this.session.nextFrame()) !== undefined;) socket.send(frame);
    }
    socket.close(1000);
  }

  free() {
    this.fail(failure("disconnected", "the session was closed"));
    sessions.delete(this.id);
    // A unit of work may be on its way: what it holds is freed after it.
    const free = () => (this.isWorking ? turn().then(free) : this.session.free());
    return free();
  }
}

const find = (id) => {
  const found = sessions.get(id);
  if (!found) throw failure("disconnected", "the session was closed");
  return found;
};

const calls = {
  /** What other workers need to share the engine: its code and its memory. */
  async load({ isShared }) {
    const url = new URL("./gelu_bg.wasm", import.meta.url);
    const source = node ? await (await import("node:fs/promises")).readFile(url) : url;
    await init({ module_or_path: source }).catch((error) => {
      throw failure("unsupported", `the engine cannot be loaded here: ${error.message}`);
    });
    return isShared ? shared() : null;
  },

  /** Once the others have loaded it: a browser starts no worker while this one waits for them. */
  join({ threads }) {
    makeThreads(threads);
  },

  create({ keyBits, keyType, key, passphrase }) {
    client = key ? Client.unseal(key, passphrase ?? "") : Client.generate(keyBits, keyType);
    return {
      key: { bits: client.bits, type: client.keyType, fingerprint: client.fingerprint },
      backend: client.backend,
    };
  },

  seal({ passphrase }) {
    return client.seal(passphrase ?? "");
  },

  async ahead({ ciphertexts }) {
    const start = performance.now();
    for (let ready = -1; client && client.factors > ready && client.factors < ciphertexts;) {
      ready = client.factors;
      client.makeFactors();
      await turn();
    }
    return { seconds: (performance.now() - start) / 1000 };
  },

  async open({ session: id, ...options }) {
    const conversation = new Conversation(id, options);
    sessions.set(id, conversation);
    conversation.connect();
    const { session } = conversation;
    try {
      await conversation.until(() => session.isReady);
    } catch (error) {
      await conversation.free();
      throw error;
    }
    return { input: [...session.input], segments: session.segments };
  },

  async prepare({ session: id, count }) {
    const conversation = find(id);
    const start = performance.now();
    conversation.session.prepare(count);
    await conversation.until(() => conversation.session.isPrepared);
    return { seconds: (performance.now() - start) / 1000 };
  },

  async infer({ session: id, input }) {
    const conversation = find(id);
    if (conversation.error) throw conversation.error;
    const start = performance.now();
    conversation.session.start(input);
    const output = await conversation.until(() => conversation.session.takeOutput());
    const { outputs, probabilities = null, class: index, integers, clamped } = output;
    output.free();
    const seconds = (performance.now() - start) / 1000;
    return { outputs, probabilities, class: index, integers, clamped: Number(clamped), seconds };
  },

  async close({ session: id }) {
    const conversation = sessions.get(id);
    if (!conversation) return;
    if (!conversation.error) {
      conversation.session.finish();
      await conversation.until(() => conversation.session.isOver && conversation.session.isFlushed).catch(() => {});
    }
    await conversation.free();
  },

  async destroy() {
    for (const conversation of [...sessions.values()]) await conversation.free();
    client?.free();
    client = null;
  },
};

async function answer({ id, name, args }) {
  try {
    post({ id, value: await calls[name](args) });
  } catch (error) {
    post({ id, error: { code: error.code ?? "protocol", message: error.message ?? String(error) } });
  }
}

if (node) node.parentPort.on("message", answer);
else self.onmessage = ({ data }) => answer(data);
