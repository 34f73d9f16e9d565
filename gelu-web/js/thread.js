// A thread of the engine: a worker that shares the memory of another, and computes what it is given there.

import init, { runThread } from "./bindings.js";

const node = typeof self === "undefined" ? await import("node:worker_threads") : null;

async function join([module, memory]) {
  await init({ module_or_path: module, memory });
  (node ? node.parentPort : self).postMessage("ready");
  runThread();
}

if (node) node.parentPort.once("message", join);
else self.onmessage = ({ data }) => join(data);
