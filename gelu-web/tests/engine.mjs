// Runs a test program of Rust that was compiled to WebAssembly: all its tests, one after another. One that fails traps.
//
//     node engine.mjs FILE.wasm

import { readFile } from "node:fs/promises";

const module = await WebAssembly.compile(await readFile(process.argv[2]));
let memory;
const env = {
  // What the tests' generators of cases are seeded from.
  __getrandom_v03_custom(at, length) {
    for (let from = 0; from < length; from += 65536) {
      crypto.getRandomValues(new Uint8Array(memory.buffer, at + from, Math.min(65536, length - from)));
    }
    return 0;
  },
};
const { exports } = await WebAssembly.instantiate(module, { env });
memory = exports.memory;
const start = performance.now();
const status = exports.main(0, 0);
console.log(`${process.argv[2]}: ${status === 0 ? "passed" : "FAILED"} in ${((performance.now() - start) / 1000).toFixed(1)} s`);
process.exit(status);
