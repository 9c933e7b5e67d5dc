import assert from "node:assert/strict";
import { test } from "node:test";
import { left, scale, share, sum } from "../../assets/allocation.js";
import { WHOLE } from "../../assets/number.js";
import { seeded, vectors } from "./support.mjs";

/** Values and a random choice of indexes, often at the edges. */
function* cases(count) {
  const random = seeded(20261129);
  for (let round = 0; round < count; round += 1) {
    const length = 1 + Math.floor(random() * 64);
    const most = random() < 0.5 ? Math.ceil((2 * WHOLE) / length) : WHOLE;
    const values = Array.from({ length }, () => (random() < 0.3 ? 0 : Math.floor(random() * (most + 1))));
    const chosen = values.map((_, index) => index).filter(() => random() < 0.4);
    yield { values, chosen };
  }
}

test("share gives exactly what is left, and differs by one basis point at most", () => {
  for (const { values, chosen } of cases(3000)) {
    const shared = share(values, chosen);
    if (left(values) <= 0 || chosen.length === 0) {
      assert.deepEqual(shared, values);
      continue;
    }
    assert.equal(sum(shared), WHOLE);
    const given = chosen.map((index) => shared[index] - values[index]);
    assert.ok(Math.max(...given) - Math.min(...given) <= 1);
    assert.deepEqual([...given].sort((a, b) => b - a), given);
    values.forEach((value, index) => chosen.includes(index) || assert.equal(shared[index], value));
  }
});

test("scale makes exactly 100, keeps the fixed ones and zeros, and is off by less than a basis point", () => {
  for (const { values, chosen } of cases(3000)) {
    const scaled = scale(values, chosen);
    const kept = sum(chosen.map((index) => values[index]));
    if (kept > WHOLE) {
      assert.equal(scaled, null);
      continue;
    }
    if (chosen.length === values.length) {
      assert.deepEqual(scaled, values);
      continue;
    }
    assert.equal(sum(scaled), WHOLE);
    for (const index of chosen) assert.equal(scaled[index], values[index]);
    const weight = sum(values) - kept;
    values.forEach((value, index) => {
      if (chosen.includes(index) || weight === 0) return;
      if (value === 0) assert.equal(scaled[index], 0);
      assert.ok(Math.abs(scaled[index] - (value * (WHOLE - kept)) / weight) < 1);
    });
  }
});

test("the arguments are never changed", () => {
  const values = Object.freeze([1000, 2000, 0]);
  share(values, Object.freeze([2]));
  scale(values, Object.freeze([0]));
});

for (const [name, action, second] of [["share", share, "over"], ["scale", scale, "fixed"]]) {
  test(`${name} equals the server's on the shared vectors`, () => {
    const shared = vectors(name);
    assert.ok(shared.length >= 1000);
    for (const vector of shared) assert.deepEqual(action(vector.values, vector[second]), vector.result);
  });
}
