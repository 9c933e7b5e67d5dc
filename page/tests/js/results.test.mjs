import assert from "node:assert/strict";
import { test } from "node:test";
import { toColumns } from "../../assets/lazy-distribution.js";
import { differenceTenths, isNewer, scaleEnd } from "../../assets/lazy-results.js";

test("the scale ends at the largest value, rounded up to ten", () => {
  assert.deepEqual([[], [0], [9.9], [10], [10.01], [40, 15], [99.5], [100]].map(scaleEnd), [10, 10, 10, 10, 20, 40, 100, 100]);
});

test("no number goes back to an older state", () => {
  const at = (time) => ({ people: 1, updated_at: `2026-11-20T21:00:0${time}Z` });
  assert.equal(isNewer(at(1), at(2)), true);
  assert.equal(isNewer(at(2), at(1)), false);
  assert.equal(isNewer(null, at(1)), true);
  assert.equal(isNewer({ withheld: {} }, at(1)), true);
});

test("the difference is of the numbers as they are shown", () => {
  assert.equal(differenceTenths(4000, 15.1348), 249);
  assert.equal(differenceTenths(0, 15.1348), -151);
  assert.equal(differenceTenths(1510, 15.1), 0);
});

test("ten columns leave the ends out and lose nobody", () => {
  const counts = Array.from({ length: 101 }, (_, percent) => percent + 1);
  const { below, columns, all } = toColumns(counts);
  assert.equal(below, 1);
  assert.equal(all, 101);
  assert.equal(columns.length, 10);
  assert.equal(below + all + columns.reduce((a, b) => a + b, 0), counts.reduce((a, b) => a + b, 0));
  assert.equal(columns[0], 2 + 3 + 4 + 5 + 6 + 7 + 8 + 9 + 10);
});
