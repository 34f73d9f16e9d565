import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import test from "node:test";
import { recorded } from "./recorded.js";

test("the page's recorded run is the report's", async () => {
  const kept = JSON.parse(await readFile(new URL("../page/recorded.json", import.meta.url)));
  assert.ok(kept.points.length > 20, `${kept.points.length}`);
  assert.deepEqual(kept, await recorded());
});
