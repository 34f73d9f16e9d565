// The page in a real Chromium, with a real server.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import axe from "axe-core";
import { chromium } from "playwright-core";
import { CHROMIUM, GELU, missing, relay, serve, until } from "./server.js";

const options = { skip: missing, timeout: 120_000 };
let browser, server;

before(async () => {
  if (missing) return;
  browser = await chromium.launch({ executablePath: CHROMIUM, args: ["--no-sandbox"] });
  server = await serve();
});
after(async () => {
  await browser?.close();
  await server?.stop();
});

async function opened(url = server.url, settings = {}) {
  const context = await browser.newContext(settings);
  const page = await context.newPage();
  const problems = [];
  page.on("pageerror", (error) => problems.push(error.message));
  page.on("console", (message) => /Content Security Policy/.test(message.text()) && problems.push(message.text()));
  await page.goto(url);
  await until(page, () => !document.querySelector("#model").disabled);
  page.problems = problems;
  return page;
}

/** Draws a 1 or a 7 by pointer. */
async function draw(page, points = [[0.3, 0.2], [0.7, 0.2], [0.45, 0.85]]) {
  const box = await page.locator("#drawing").boundingBox();
  const place = ([x, y]) => [box.x + x * box.width, box.y + y * box.height];
  await page.mouse.move(...place(points[0]));
  await page.mouse.down();
  for (const point of points.slice(1)) await page.mouse.move(...place(point), { steps: 8 });
  await page.mouse.up();
}

const done = (page) => until(page, () => /^Done/.test(document.querySelector("#status").textContent));
const answer = (page) => page.locator("#class").textContent();

/** How many threads compute in a page where three are asked for, and how many factors they make. */
const threads = (page) => page.evaluate(async () => {
  const { Client } = await import("/client/gelu.js");
  const client = await Client.create({ keyBits: 1024, threads: 3 });
  await client.prepare(100);
  await client.destroy();
  return [crossOriginIsolated, client.threads];
});

test("a drawn digit is read, and what is sent holds nothing of it", options, async () => {
  const between = await relay(server.port);
  const page = await opened(between.url);
  await draw(page);
  await page.click("#run");
  await done(page);
  assert.equal(await answer(page), "7");
  assert.equal(await page.locator("#bars li").count(), 10);
  const sent = between.sent();
  assert.ok(sent.length > 100_000, `${sent.length} bytes`);
  const input = await page.evaluate(() => {
    const { data } = document.querySelector("#input").getContext("2d").getImageData(0, 0, 28, 28);
    return Array.from({ length: 784 }, (_, at) => data[4 * at]);
  });
  // Runs of four pixels that are not all black or white, as bytes and as the floats that the network takes.
  let runs = 0;
  for (let at = 0; at + 4 <= 784; at++) {
    const run = input.slice(at, at + 4);
    if (new Set(run).size < 3) continue;
    runs++;
    assert.ok(!sent.includes(Buffer.from(run)), `pixels ${at} as bytes`);
    const floats = Float32Array.from(run, (pixel) => pixel / 255);
    assert.ok(!sent.includes(Buffer.from(floats.buffer)), `pixels ${at} as floats`);
  }
  assert.ok(runs > 20, `${runs}`);
  // The relay does keep what is sent: the question's own words are there.
  assert.ok(sent.includes("lenet5"));
  assert.deepEqual(page.problems, []);
  await page.context().close();
  between.close();
});

test("threads share the page's memory", options, async () => {
  const page = await opened();
  assert.deepEqual(await threads(page), [true, 3]);
  assert.deepEqual(page.problems, []);
  await page.context().close();
});

test("with the keyboard alone, with the network hidden", options, async () => {
  const page = await opened();
  const reach = async (id) => {
    for (let at = 0; at < 40; at++) {
      if ((await page.evaluate(() => document.activeElement.id)) === id) return;
      await page.keyboard.press("Tab");
    }
    assert.fail(`${id} is not reached`);
  };
  await reach("hidden");
  await page.keyboard.press("Space");
  await reach("drawing");
  await page.keyboard.press("Space");
  for (let at = 0; at < 15; at++) await page.keyboard.press("ArrowDown");
  await page.keyboard.press("Space");
  assert.equal(await page.locator("#pen-said").textContent(), "The pen is up.");
  await page.focus("#model");
  await reach("run");
  await page.keyboard.press("Enter");
  await done(page);
  assert.equal(await answer(page), "1");
  assert.deepEqual(page.problems, []);
  await page.context().close();
});

test("a server that goes away and comes back", options, async () => {
  const own = await serve();
  const page = await opened(own.url);
  await page.click("#samples button >> nth=3");
  await until(page, () => /bits/.test(document.querySelector("#key-state").textContent));
  await own.stop();
  await page.click("#run");
  await until(page, () => !document.querySelector("#problem").hidden);
  assert.match(await page.locator("#problem").textContent(), /cannot be reached/);
  const again = await serve({ web: `127.0.0.1:${own.port}` });
  await until(page, () => !document.querySelector("#run").disabled);
  await page.click("#run");
  await done(page);
  assert.equal(await answer(page), "3");
  await page.context().close();
  await again.stop();
});

test("a connection that breaks in the middle, and a reload", options, async () => {
  const between = await relay(server.port);
  const page = await opened(between.url);
  await page.click("#samples button >> nth=5");
  await page.click("#run");
  await until(page, () => document.querySelectorAll("#steps tr").length > 3);
  between.cut();
  await done(page);
  assert.equal(await answer(page), "5");
  await page.click("#run");
  await until(page, () => document.querySelectorAll("#steps tr").length > 3);
  await page.reload();
  await until(page, () => !document.querySelector("#model").disabled);
  await page.click("#samples button >> nth=8");
  await page.click("#run");
  await done(page);
  assert.equal(await answer(page), "8");
  await page.context().close();
  between.close();
});

test("a key is kept, sealed, and opened by its passphrase only", options, async () => {
  const page = await opened();
  await page.click("#key-box summary");
  const keep = async (passphrase) => {
    await page.fill("#passphrase", passphrase);
    await page.click("#keep-key");
  };
  await keep("correct horse");
  await until(page, () => /kept in this browser, sealed/.test(document.querySelector("#key-state").textContent));
  const key = (await page.locator("#key-state").textContent()).slice(0, 24);
  await page.reload();
  await page.click("#key-box summary");
  await until(page, () => /is kept here/.test(document.querySelector("#key-state").textContent));
  await keep("wrong horse");
  await until(page, () => !document.querySelector("#problem").hidden);
  await keep("correct horse");
  await until(page, () => /kept in this browser, sealed/.test(document.querySelector("#key-state").textContent));
  assert.equal((await page.locator("#key-state").textContent()).slice(0, 24), key);
  await page.context().close();
});

test("a certificate that the browser does not know is not gone past", options, async () => {
  const folder = mkdtempSync(join(tmpdir(), "gelu-web-"));
  try {
    const made = spawnSync(GELU, ["certs", "--out", join(folder, "certs"), "--server", "127.0.0.1"], { encoding: "utf8" });
    assert.equal(made.status, 0, made.stderr);
    const file = (name) => join(folder, "certs", name);
    const own = await serve({ more: ["--web-open", "--client-ca", file("ca.pem"), "--tls-cert", file("server.pem"), "--tls-key", file("server.key")] });
    assert.match(own.url, /^https:/);
    const page = await browser.newPage();
    await assert.rejects(page.goto(own.url), /ERR_CERT_AUTHORITY_INVALID/);
    await page.close();
    const known = await opened(own.url, { ignoreHTTPSErrors: true });
    assert.equal(await known.locator("#model option").count(), 2);
    await known.context().close();
    await own.stop();
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test("a page that another server serves is let in by its origin", options, async () => {
  const kinds = { html: "text/html", css: "text/css", js: "text/javascript", json: "application/json", svg: "image/svg+xml", wasm: "application/wasm" };
  const pages = createServer((request, response) => {
    const { pathname } = new URL(request.url, "http://pages");
    const name = pathname === "/" ? "/index.html" : pathname;
    response.setHeader("content-type", kinds[name.split(".").pop()] ?? "text/plain");
    response.end(readFileSync(new URL(`../site${name}`, import.meta.url)));
  });
  await new Promise((resolve) => pages.listen(0, "127.0.0.1", resolve));
  const origin = `http://127.0.0.1:${pages.address().port}`;
  const own = await serve({ more: ["--insecure", "--web-origin", origin] });
  const page = await opened(`${origin}/?server=${own.url}`);
  await page.click("#samples button >> nth=4");
  await page.click("#run");
  await done(page);
  assert.equal(await answer(page), "4");
  // Such a page shares no memory with its workers, and one thread computes.
  assert.deepEqual(await threads(page), [false, 1]);
  // The other server has not heard of this origin.
  await page.goto(`${origin}/?server=${server.url}`);
  await until(page, () => !document.querySelector("#problem").hidden);
  await page.context().close();
  await own.stop();
  pages.close();
  pages.closeAllConnections();
});

for (const colorScheme of ["light", "dark"]) {
  test(`axe finds nothing to mend, ${colorScheme}`, options, async () => {
    for (const path of ["", "/training.html"]) {
      const context = await browser.newContext({ colorScheme, bypassCSP: true });
      const page = await context.newPage();
      await page.goto(server.url + path);
      await page.waitForLoadState("networkidle");
      await page.evaluate(axe.source);
      const { violations } = await page.evaluate(() => globalThis.axe.run());
      assert.deepEqual(violations.map(({ id, nodes }) => [id, nodes.map((node) => node.html)]), []);
      await context.close();
    }
  });
}

test("the page is small", options, () => {
  const names = ["index.html", "style.css", "app.js", "client/gelu.js", "client/worker.js", "client/thread.js", "client/bindings.js", "client/gelu_bg.wasm", "samples.json"];
  const gzip = (bytes) => spawnSync("gzip", ["-9c"], { input: bytes }).stdout.length;
  const bytes = names.reduce((sum, name) => sum + gzip(readFileSync(new URL(`../site/${name}`, import.meta.url))), 0);
  assert.ok(bytes < 600_000, `${bytes} bytes`);
});
