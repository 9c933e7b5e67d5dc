import assert from "node:assert/strict";
import { test } from "node:test";
import { gzipSync } from "node:zlib";
import { LANGUAGES, assets, readText, sources } from "./support.mjs";

const FIRST_LOAD_BUDGET_BYTES = 60 * 1024;
/** The server's HTML with the texts, compressed; measured in a browser by e2e/browser. */
const HTML_ALLOWANCE_BYTES = 12 * 1024;

test("nothing is loaded from another host", () => {
  for (const file of assets()) {
    const foreign = readText(`assets/${file}`).match(/(https?:)?\/\/[a-z0-9-]+\.[a-z]+[^"'`\s)]*/gi) ?? [];
    assert.deepEqual(foreign.filter((url) => !url.startsWith("http://www.w3.org/")), [], file);
  }
});

test("the scripts keep to the page's policy: no HTML from strings, no inline styles, no evaluation", () => {
  const forbidden = /\.(inner|outer)HTML|insertAdjacentHTML|document\.write|\beval\(|new Function|createContextualFragment|"style"|\bstyle:|cssText/;
  for (const file of assets().filter((name) => name.endsWith(".js"))) {
    assert.doesNotMatch(readText(`assets/${file}`), forbidden, file);
  }
});

test("the style sheet has no physical sides", () => {
  const css = readText("assets/page.css").replace(/\/\*[\s\S]*?\*\//g, "");
  assert.doesNotMatch(css, /\b(margin|padding|border)-(left|right|top|bottom)\b|[{;]\s*(left|right|top|bottom|width|height):|text-align:\s*(left|right)|float:\s*(left|right)/);
});

test("every colour is written once, for the light and the dark theme", () => {
  const css = readText("assets/page.css").replace(/\/\*[\s\S]*?\*\//g, "");
  const [screen, print] = css.split("@media print");
  assert.ok(print.length > 100);
  const colours = screen.split("\n").filter((line) => /#[0-9a-f]{3,8}\b/i.test(line));
  assert.ok(colours.length > 10);
  for (const line of colours) assert.match(line, /^ {2}--[a-z-]+: var\(--light, #[0-9a-f]{6}\) var\(--dark, #[0-9a-f]{6}\);$/);
});

test("the first load stays within its budget", () => {
  const initial = assets().filter((file) => !/^(lazy-|admin)/.test(file));
  const bytes = initial.reduce((total, file) => total + gzipSync(readText(`assets/${file}`), { level: 9 }).length, 0);
  const texts = Math.max(...LANGUAGES.map((language) => gzipSync(readText(`texts/${language}/script.json`)).length));
  assert.ok(bytes + texts + HTML_ALLOWANCE_BYTES <= FIRST_LOAD_BUDGET_BYTES, `${bytes} + ${texts} bytes`);
});

test("every class and id of the style sheet is on some page", () => {
  const css = readText("assets/page.css").replace(/\/\*[\s\S]*?\*\//g, "").replace(/\{[^{}]*\}/g, "{}");
  const pages = [...sources("src/html"), ...assets().filter((file) => file.endsWith(".js")).map((file) => readText(`assets/${file}`))].join("\n");
  const names = new Set([...css.matchAll(/[.#]([a-z][a-z-]+)/g)].map(([, name]) => name));
  assert.ok(names.size > 50);
  for (const name of names) assert.match(pages, new RegExp(`["# ]${name}["\\s]`), name);
});
