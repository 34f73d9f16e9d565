// The package against a server: both modes, connections that break, refusals, keys under a passphrase.
//
//     GELU=target/release/gelu node --experimental-websocket gelu-web/tests/package.mjs

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createServer, connect } from "node:net";
import { once } from "node:events";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Client, GeluError, listModels } from "../pkg/gelu.js";

const [grpc, web] = [17443, 17480];
const url = `http://127.0.0.1:${web}`;
// A page of no use; the package is loaded from its own folder.
const page = await mkdtemp(join(tmpdir(), "gelu-page-"));
await writeFile(join(page, "index.html"), "<!doctype html><title>page</title>");
const server = spawn(process.env.GELU ?? "target/release/gelu", [
  "serve", "--insecure", "--listen", `127.0.0.1:${grpc}`, "--web", page, "--web-listen", `127.0.0.1:${web}`, "--model", "lenet5",
  "--modes", "any",
], { stdio: ["ignore", "ignore", "inherit"] });
process.on("exit", () => server.kill("SIGKILL"));

async function models() {
  for (let attempt = 0; ; attempt++) {
    try {
      return await listModels(url);
    } catch (error) {
      if (attempt === 100 || error.code !== "disconnected") throw error;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
}

/** A relay to the server that breaks each connection after so many bytes, so often. */
async function relay(bytes, times) {
  let cut = 0;
  const relaying = createServer((near) => {
    const far = connect(web, "127.0.0.1");
    let moved = 0;
    const move = (to) => (data) => {
      moved += data.length;
      if (moved > bytes && cut < times) {
        cut += 1;
        near.destroy();
        far.destroy();
      } else to.write(data);
    };
    near.on("data", move(far)).on("close", () => far.destroy()).on("error", () => {});
    far.on("data", move(near)).on("close", () => near.destroy()).on("error", () => {});
  });
  relaying.listen(0, "127.0.0.1");
  await once(relaying, "listening");
  return { url: `http://127.0.0.1:${relaying.address().port}`, close: () => relaying.close(), cuts: () => cut };
}

const refuses = (code, message) => (error) => {
  assert(error instanceof GeluError, error);
  assert.equal(error.code, code, error.message);
  assert.match(error.message, message);
  return true;
};

const [model] = await models();
assert.deepEqual([model.name, model.input, model.outputs], ["lenet5", [1, 28, 28], 10]);
// An upright stroke.
const image = Float32Array.from({ length: 784 }, (_, at) => {
  const [row, column] = [Math.floor(at / 28), at % 28];
  return row > 3 && row < 24 && column > 11 && column < 15 ? 0.95 : 0;
});

// Three threads, of which two are workers of their own, whatever this machine has.
const client = await Client.create({ keyBits: 1024, threads: 3 });
assert.deepEqual([client.key.bits, client.key.type, client.backend, client.threads], [1024, "subgroup", "simd128", 3]);
const session = await client.connect(url, "lenet5");
assert.deepEqual(session.input, [1, 28, 28]);
await session.prepare(1);
const result = await session.infer(image);
console.log(`class ${result.class}, ${result.bytesUp} bytes up, ${result.bytesDown} down, ${result.seconds.toFixed(2)} s`);
assert.equal(result.integers.length, 10);
assert.equal(result.class, [...result.outputs].indexOf(Math.max(...result.outputs)));
const ciphertexts = (direction) =>
  result.steps.filter((step) => step.direction === direction).reduce((sum, step) => sum + step.ciphertexts, 0);
assert(ciphertexts("up") > 0 && ciphertexts("down") > 0);
assert(result.steps.filter((step) => step.sample).every((step) => step.sample.length <= 4096));
await assert.rejects(session.infer(image.slice(1)), refuses("input", /expected 784 numbers/));
// The session goes on.
assert.deepEqual((await session.infer(image)).integers, result.integers);

// Connections that break: the same integers.
const broken = await relay(20_000, 3);
const patient = await client.connect(broken.url, "lenet5");
assert.deepEqual((await patient.infer(image)).integers, result.integers);
assert.equal(broken.cuts(), 3);
await patient.close();
broken.close();

// The model hidden from this client.
if (model.hidden) {
  const hidden = await client.connect(url, "lenet5", { hidden: true });
  await hidden.prepare(1);
  const answer = await hidden.infer(image);
  assert.equal(answer.class, result.class);
  if (model.hidden.logits) assert.deepEqual(answer.integers, result.integers);
  await hidden.close();
} else throw new Error("the server does not offer its model hidden");

// Refusals.
await assert.rejects(client.connect(url, "resnet"), refuses("refused", /lenet5/));
await assert.rejects(client.connect("http://127.0.0.1:17999", "lenet5", { patience: 0.2 }), refuses("disconnected", /./));
await assert.rejects(Client.create({ keyBits: 1000 }), refuses("key", /1024, 2048/));
await assert.rejects(Client.create({ threads: 0 }), refuses("input", /threads/));

// The same key, under a passphrase.
const sealed = await client.seal("correct horse");
await assert.rejects(Client.create({ key: sealed, passphrase: "correct house" }), refuses("key", /passphrase/));
await assert.rejects(Client.create({ key: sealed.slice(0, 50), passphrase: "correct horse" }), refuses("key", /sealed/));
const again = await Client.create({ key: sealed, passphrase: "correct horse", threads: 1 });
assert.deepEqual(again.key, client.key);
const alone = await again.connect(url, "lenet5");
assert.deepEqual((await alone.infer(image)).integers, result.integers);
await alone.close();
await again.destroy();

await session.close();
await client.destroy();
await assert.rejects(client.seal("x"), refuses("disconnected", /destroyed/));

// The README's example is what it says.
const readme = await readFile(new URL("../README.md", import.meta.url), "utf8");
const example = readme.match(/```js\n([^]*?)```/)[1].replace('"@gelu-net/client"', JSON.stringify(new URL("../pkg/gelu.js", import.meta.url).href))
  .replace("http://127.0.0.1:7480", url);
assert(example.trim().split("\n").length <= 30);
await import(`data:text/javascript,${encodeURIComponent(example)}`);
await rm(page, { recursive: true });
console.log("the package: all passed");
process.exit(0);
