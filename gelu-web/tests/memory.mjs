// A key that is freed is gone from the module's memory, which two threads share: neither of n's factors is left anywhere in it.
//
//     node gelu-web/tests/memory.mjs

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { once } from "node:events";
import { Worker } from "node:worker_threads";
import init, { Client, makeThreads, shared } from "../pkg/bindings.js";

await init({ module_or_path: await readFile(new URL("../pkg/gelu_bg.wasm", import.meta.url)) });
const [module, memory] = shared();
const thread = new Worker(new URL("../pkg/thread.js", import.meta.url));
thread.postMessage([module, memory]);
await once(thread, "message");
makeThreads(2);
const BYTES = 256;

const number = (bytes) => BigInt(`0x${Buffer.from(bytes).reverse().toString("hex")}`);

/** Where in the memory one of n's factors stands, as little-endian limbs. */
function factors(n) {
  const bytes = new Uint8Array(memory.buffer);
  const found = [];
  for (let at = 0; at + BYTES / 2 <= bytes.length; at += 4) {
    if (bytes[at] % 2 === 0 || bytes[at + BYTES / 2 - 1] < 128) continue;
    const factor = number(bytes.subarray(at, at + BYTES / 2));
    if (n % factor === 0n) found.push(at);
  }
  return found;
}

for (const type of ["subgroup", "djn"]) {
  const client = Client.generate(8 * BYTES, type);
  const session = client.session("any", false, "logits");
  // Enough of a server's words for the client to send its public key: the frame Opened, with a session's name.
  session.open();
  session.takeFrame(Uint8Array.from([10, 3, 10, 1, 1]));
  session.work().forEach((step) => step.free());
  client.makeFactors();
  // A public key's message ends in n and h, which is as long as n^2.
  const hello = session.nextFrame();
  const at = (n) => number(hello.subarray(n, n + BYTES));
  let n = null;
  for (let place = 0; place + 3 * BYTES <= hello.length && !n; place++) {
    const candidate = at(place);
    if (candidate % 2n === 1n && candidate >> BigInt(8 * BYTES - 1) && factors(candidate).length) n = candidate;
  }
  assert.ok(n, "the key's factors are in memory while it is there");
  const before = factors(n).length;
  session.free();
  client.free();
  const left = factors(n);
  assert.deepEqual(left, [], `${type}: ${left.length} of ${before} places still hold a factor`);
  console.log(`${type}: factors of n stood in ${before} places, and in none once the key was freed`);
}
await thread.terminate();
