import assert from "node:assert/strict";
import { test } from "node:test";
import { makeWords } from "../../assets/dom.js";
import { LANGUAGES, assets, readText, texts } from "./support.mjs";

const PLURAL = /_(zero|one|two|few|many|other)$/;
const placeholders = (text) => [...text.matchAll(/\{(\w+)\}/g)].map(([, name]) => name).sort();
const base = (key) => key.replace(PLURAL, "");

/** Names of plural texts: keys whose forms differ by the plural's name. */
const english = texts("en");
const plurals = new Set(Object.keys(english).filter((key) => PLURAL.test(key) && `${base(key)}_other` in english).map(base));

test("every language has the same texts with the same placeholders", () => {
  for (const language of LANGUAGES) {
    const own = texts(language);
    assert.deepEqual([...new Set(Object.keys(own).map((key) => (plurals.has(base(key)) ? base(key) : key)))].sort(),
      [...new Set(Object.keys(english).map((key) => (plurals.has(base(key)) ? base(key) : key)))].sort(), language);
    for (const [key, text] of Object.entries(own)) {
      const original = english[key] ?? english[`${base(key)}_other`];
      assert.deepEqual(placeholders(text), placeholders(original), `${language}: ${key}`);
      assert.ok(text.trim().length > 0 && text === text.trim() || key === "label_suffix", `${language}: ${key}`);
    }
  }
});

test("every language has each plural form that its numbers need", () => {
  for (const language of LANGUAGES) {
    const own = texts(language);
    const forms = new Intl.PluralRules(language).resolvedOptions().pluralCategories;
    for (const name of plurals) {
      for (const form of forms) assert.ok(`${name}_${form}` in own, `${language}: ${name}_${form}`);
      const kept = Object.keys(own).filter((key) => base(key) === name && PLURAL.test(key));
      assert.equal(kept.length, forms.length, `${language}: ${name} has forms that no number uses`);
    }
  }
});

test("the scripts use every text, and no other", () => {
  const source = assets().filter((file) => file.endsWith(".js")).map((file) => readText(`assets/${file}`)).join("\n");
  const keys = new Set(Object.keys(english).map((key) => (plurals.has(base(key)) ? base(key) : key)));
  const quoted = new Set([...source.matchAll(/"([a-z_]+)"/g)].map(([, word]) => word));
  // Built from a part: fault_{kind}, and withheld_{state} or withheld_{reason}.
  for (const fault of ["not_a_number", "range", "decimals"]) quoted.add(`fault_${fault}`);
  for (const reason of ["after_close", "counting", "minimum_people", "unknown_rule"]) quoted.add(`withheld_${reason}`);
  for (const key of keys) assert.ok(quoted.has(key), `unused: ${key}`);
  const used = [...source.matchAll(/\btext\(\s*"([a-z_]+)"/g)].map(([, word]) => word);
  for (const key of used) assert.ok(keys.has(key), `missing: ${key}`);
});

test("a count picks the plural form of the language", () => {
  const words = makeWords({ language: "ar", texts: texts("ar"), number_format: { decimal: ".", group: "," } });
  const few = words.text("share_empty", { left: words.percent(1250), count: 3 });
  assert.ok(few.includes("3 خانات") && few.includes("12.5%"));
  assert.ok(words.text("share_empty", { left: "", count: 2 }).includes("الخانتين"));
});
