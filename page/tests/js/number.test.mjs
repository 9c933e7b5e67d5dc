import assert from "node:assert/strict";
import { test } from "node:test";
import { WHOLE, group, read, write, writeAverage } from "../../assets/number.js";
import { vectors } from "./support.mjs";

const FORMATS = [{ decimal: ".", group: "," }, { decimal: ",", group: "." }, { decimal: ",", group: "\u202f" }];

test("what is written is read as the same basis points", () => {
  for (const format of FORMATS) {
    for (let value = 0; value <= WHOLE; value += 1) assert.deepEqual(read(write(value, format)), { value });
  }
});

test("numbers of people's own writing are read", () => {
  const cases = {
    "": 0, "  ": 0, "40": 4000, " 40 % ": 4000, "%40": 4000, "35,5": 3550, "35.50": 3550, "33.330": 3333, "0040": 4000,
    ".5": 50, "5.": 500, "-0": 0, "−0.00": 0, "٤٠": 4000, "۳۵٫۵": 3550, "١٢٫٥٪": 1250, "\u200f40\u00a0%": 4000, "100.000": 10000, "%": 0, "5 % %": 500,
  };
  for (const [text, value] of Object.entries(cases)) assert.deepEqual(read(text), { value }, JSON.stringify(text));
});

test("what is no share is a fault of its kind", () => {
  const cases = {
    not_a_number: ["abc", "-", "-%5", ".", "1.2.3", "1,000.5", "1 000", "+5", "--5", "- 5", "5%5", "1e2", "½", "∞"],
    range: ["-5", "−0.01", "100.01", "101", "100.001", "9".repeat(99)],
    decimals: ["33.333", "0.001", "99,999"],
  };
  for (const [fault, texts] of Object.entries(cases)) {
    for (const text of texts) assert.deepEqual(read(text), { fault }, JSON.stringify(text));
  }
});

test("averages have one decimal, half rounded up", () => {
  const format = FORMATS[0];
  const cases = [[15.1348, "15.1"], [0.05, "0.1"], [0.0499, "0.0"], [99.95, "100.0"], [1.005, "1.0"], [1.05, "1.1"], [0, "0.0"], [100, "100.0"]];
  for (const [percent, written] of cases) assert.equal(writeAverage(percent, format), written);
});

test("people are written in full with grouping", () => {
  assert.equal(group(32815, FORMATS[0]), "32,815");
  assert.equal(group(1234567, FORMATS[1]), "1.234.567");
  assert.equal(group(999, FORMATS[0]), "999");
  const spanish = { group: ".", minimum_grouping: 2 };
  assert.deepEqual([1234, 12345].map((value) => group(value, spanish)), ["1234", "12.345"]);
});

test("reading equals the server's on the shared vectors", () => {
  const cases = vectors("read");
  assert.ok(cases.length >= 1000);
  for (const { text, basis_points: value, fault } of cases) {
    assert.deepEqual(read(text), fault ? { fault } : { value }, JSON.stringify(text));
  }
});

test("writing equals the server's on the shared vectors", () => {
  const cases = vectors("write");
  assert.ok(cases.length >= 1000);
  const decimals = { en: ".", de: ",", fr: ",", es: ",", pl: ",", ar: "." };
  for (const { language, basis_points, text } of cases) {
    assert.equal(write(basis_points, { decimal: decimals[language], group: "" }), text);
  }
});
