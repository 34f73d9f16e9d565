// `gelu serve` for tests, a relay in front of it that keeps what the browser sends, and a wait for what a page shows.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import net from "node:net";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const path = (name) => fileURLToPath(new URL(name, import.meta.url));

export const GELU = process.env.GELU ?? path("../../target/release/gelu");
export const CHROMIUM = [process.env.CHROMIUM, "/usr/bin/chromium"].find((found) => found && existsSync(found));
const SITE = path("../site");

/** Why there is nothing to test with; false where there is all. */
export const missing = !CHROMIUM ? "no Chromium here: set CHROMIUM" : [GELU, SITE].some((file) => !existsSync(file))
  ? "expected target/release/gelu and gelu-web/site: cargo build --release -p gelu-cli, gelu-web/build" : false;

export async function serve({ web = "127.0.0.1:0", more = ["--insecure"] } = {}) {
  const models = ["--model", path("../../models/lenet5.safetensors"), path("../../models/pneumonia.safetensors")];
  const child = spawn(GELU, ["serve", ...models, "--modes", "any", "--listen", "127.0.0.1:0", "--web", SITE,
    "--web-listen", web, "--grace", "0", "--json", "--log-level", process.env.LOG_LEVEL ?? "off", ...more], { stdio: ["ignore", "pipe", "inherit"] });
  const lines = createInterface(child.stdout);
  const said = await new Promise((resolve, reject) => {
    lines.once("line", (line) => resolve(JSON.parse(line)));
    child.once("exit", (code) => reject(new Error(`gelu serve ended with ${code}`)));
  });
  const ended = new Promise((resolve) => child.once("exit", resolve));
  return { url: said.web, port: Number(new URL(said.web).port), stop: () => (child.kill("SIGTERM"), ended) };
}

/** Waits until that holds in the page. Its policy allows no evaluation of text, by which playwright's own wait works. */
export async function until(page, holds, timeout = 60_000) {
  for (const end = Date.now() + timeout; Date.now() < end; await new Promise((resolve) => setTimeout(resolve, 20))) {
    if (await page.evaluate(holds)) return;
  }
  assert.fail(`${holds}, found: ${await page.locator("#status").textContent()} ${await page.locator("#problem").textContent()}`);
}

/** Passes connections on to a port, and keeps the bytes of WebSockets' messages that come from the browser. */
export async function relay(port) {
  const connections = [];
  const open = new Set();
  const server = net.createServer((browser) => {
    const chunks = [];
    connections.push(chunks);
    const onward = net.connect(port, "127.0.0.1");
    for (const [from, to] of [[browser, onward], [onward, browser]]) {
      open.add(from);
      from.on("data", (chunk) => to.write(chunk));
      from.on("close", () => (open.delete(from), to.destroy()));
      from.on("error", () => to.destroy());
    }
    browser.on("data", (chunk) => chunks.push(chunk));
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    cut: () => open.forEach((socket) => socket.destroy()),
    close: () => (open.forEach((socket) => socket.destroy()), server.close()),
    /** Everything that was sent, without the masks of WebSockets. */
    sent: () => Buffer.concat(connections.map((chunks) => unmasked(Buffer.concat(chunks)))),
  };
}

function unmasked(bytes) {
  const end = bytes.indexOf("\r\n\r\n");
  if (end < 0 || !/upgrade: websocket/i.test(bytes.subarray(0, end))) return bytes;
  const parts = [bytes.subarray(0, end)];
  let at = end + 4;
  while (at + 6 <= bytes.length) {
    let length = bytes[at + 1] & 127;
    at += 2;
    if (length === 126) length = bytes.readUInt16BE((at += 2) - 2);
    else if (length === 127) length = Number(bytes.readBigUInt64BE((at += 8) - 8));
    const mask = bytes.subarray(at, (at += 4));
    parts.push(bytes.subarray(at, at + length).map((byte, place) => byte ^ mask[place % 4]));
    at += length;
  }
  return Buffer.concat(parts);
}
