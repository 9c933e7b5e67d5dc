import assert from "node:assert/strict";
import { test } from "node:test";
import { shuffled } from "../../assets/lazy-shuffle.js";

test("a shuffled list has the same items, and the same order for the same seed", () => {
  const items = Array.from({ length: 64 }, (_, index) => index);
  for (const seed of [0, 1, 7, 2 ** 32 - 1]) {
    const once = shuffled(items, seed);
    assert.deepEqual([...once].sort((a, b) => a - b), items);
    assert.deepEqual(shuffled(items, seed), once);
  }
  assert.notDeepEqual(shuffled(items, 1), shuffled(items, 2));
  assert.deepEqual(shuffled([], 1), []);
});

test("every item is about as often in every place", () => {
  const [items, rounds] = [5, 20_000];
  const counts = Array.from({ length: items * items }, () => 0);
  for (let seed = 0; seed < rounds; seed += 1) {
    shuffled([0, 1, 2, 3, 4], seed).forEach((item, place) => (counts[item * items + place] += 1));
  }
  // Expected 4,000 each, with a standard deviation of 57.
  for (const count of counts) assert.ok(Math.abs(count - rounds / items) < 300, String(counts));
});
