// Drawings become digits as in Rust, byte by byte: the digits are those of gelu-io/src/digits/tests.rs.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import test from "node:test";
import { normalizeDigit } from "../page/digit.js";

const bytes = (text) => Uint8Array.from(text.match(/../g), (pair) => parseInt(pair, 16));

test("digits are normalized as Rust normalizes them", async () => {
  const digits = JSON.parse(await readFile(new URL("digits.json", import.meta.url)));
  assert.ok(digits.length >= 6);
  for (const { size, ink, digit } of digits) assert.deepEqual(normalizeDigit(size, bytes(ink)), bytes(digit), `${size}`);
  assert.equal(normalizeDigit([3, 3], new Uint8Array(9)), null);
});
