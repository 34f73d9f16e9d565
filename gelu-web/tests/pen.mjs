// How long a digit takes from the release of the pen to its class, in Chromium, beside `gelu serve` on the same machine:
//
//     node gelu-web/tests/pen.mjs [DIGITS]
import { chromium } from "playwright-core";
import { CHROMIUM, missing, serve, until } from "./server.js";

if (missing) {
  console.log(`in Chromium: skipped, ${missing}`);
  process.exit(0);
}
const digits = Number(process.argv[2] ?? 11);
const server = await serve();
const browser = await chromium.launch({ executablePath: CHROMIUM, args: ["--no-sandbox"] });

const isDone = () => /^Done/.test(document.querySelector("#status").textContent);

for (const hidden of [false, true]) {
  const page = await (await browser.newContext()).newPage();
  await page.goto(server.url);
  await until(page, () => !document.querySelector("#model").disabled);
  if (hidden) await page.click("#hidden");
  // In the page itself, so that the way from this program to it counts for nothing: the pen's release asks at once.
  await page.evaluate(() => {
    const status = document.querySelector("#status");
    let released = 0;
    window.times = [];
    document.querySelector("#drawing").addEventListener("pointerup", () => {
      released = performance.now();
      setTimeout(() => document.querySelector("#run").click());
    });
    new MutationObserver(() => {
      if (released && /^Done/.test(status.textContent)) {
        window.times.push(performance.now() - released);
        released = 0;
      }
    }).observe(status, { childList: true, characterData: true, subtree: true });
  });
  const box = await page.locator("#drawing").boundingBox();
  const place = (x, y) => [box.x + x * box.width, box.y + y * box.height];
  const classes = new Set();
  for (let digit = 0; digit < digits; digit++) {
    await page.click("#clear");
    await page.mouse.move(...place(0.3, 0.2));
    await page.mouse.down();
    // A person takes a second or two.
    for (const [x, y] of [[0.7, 0.2], [0.45, 0.85]]) {
      for (let step = 1; step <= 8; step++) {
        await page.mouse.move(...place(x, y), { steps: 2 });
        await new Promise((resolve) => setTimeout(resolve, 90));
      }
    }
    await page.mouse.up();
    await until(page, digit ? `window.times.length > ${digit}` : isDone);
    classes.add(await page.locator("#class").textContent());
  }
  const times = await page.evaluate(() => window.times);
  const [first, ...others] = times.map((time) => (time / 1000).toFixed(2));
  console.log(`${await browser.version()}, ${hidden ? "hidden" : "revealed"}: read as ${[...classes].join(", ")}; the first ${first} s, ` +
    `then ${others.sort()[others.length >> 1]} s (median of ${others.length}, ${others[0]} to ${others.at(-1)})`);
  await page.context().close();
}
await browser.close();
await server.stop();
