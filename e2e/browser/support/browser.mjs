// Starts Debian's Chromium, and watches every page for violations of the policy and requests to other hosts.
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { mkdir, readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { join } from "node:path";
import { chromium } from "playwright-core";

const require = createRequire(import.meta.url);
const AXE = require.resolve("axe-core/axe.min.js");
const EXECUTABLE = process.env.CHROMIUM ?? ["/usr/bin/chromium", "/usr/bin/chromium-browser"].find(existsSync);
const SCREENSHOTS = process.env.ALLOCATOR_SCREENSHOTS;

/** Rules of WCAG 2.2 AA and good practice. */
const AXE_TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"];

export const PHONE = { width: 320, height: 568 };
export const DESKTOP = { width: 1280, height: 900 };

export async function startBrowser() {
  assert.ok(EXECUTABLE, "chromium is not installed");
  return chromium.launch({
    executablePath: EXECUTABLE,
    args: ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
      "--disable-component-update", "--disable-sync"],
  });
}

/**
 * Opens a page in a fresh profile. `page.faults` collects what no page may do; `close` checks that it is empty.
 */
export async function openPage(browser, options = {}) {
  const { allowConsole = [], ...rest } = options;
  const context = await browser.newContext({ viewport: PHONE, locale: "en", ...rest });
  const page = await context.newPage();
  page.setDefaultTimeout(10_000);
  page.faults = [];
  page.requests = [];
  context.on("request", (request) => {
    const url = new URL(request.url());
    page.requests.push(request);
    if (!["127.0.0.1", "localhost"].includes(url.hostname) && url.protocol !== "data:") page.faults.push(`foreign: ${url}`);
  });
  page.on("pageerror", (error) => page.faults.push(`error: ${error}`));
  page.on("console", (message) => {
    const text = message.text();
    const isExpected = /Failed to load resource/.test(text) || allowConsole.some((pattern) => pattern.test(text));
    if (message.type() === "error" && !isExpected) page.faults.push(`console: ${text}`);
  });
  await context.addInitScript(() => {
    globalThis.violations = [];
    document.addEventListener("securitypolicyviolation", (event) =>
      globalThis.violations.push(`${event.violatedDirective}: ${event.blockedURI} ${event.sample}`));
  });
  page.finish = async () => {
    const violations = await page.evaluate(() => globalThis.violations ?? []).catch(() => []);
    await context.close();
    assert.deepEqual([...page.faults, ...violations], []);
  };
  return page;
}

/** Runs `action` with a page, and checks at its end that the page did nothing forbidden. */
export async function withPage(browser, options, action) {
  const page = await openPage(browser, options);
  let done = false;
  try {
    await action(page);
    done = true;
  } finally {
    if (!done) await page.context().close();
  }
  await page.finish();
}

/** What axe cannot decide by itself, by rule, message and place, and why it is no fault. Whatever else it leaves open fails. */
const EXPLAINED = [
  // − and + are drawn in the colours of the other buttons, whose words axe measures.
  ["color-contrast", "Element content contains only non-text characters"],
  // An empty field has the colours of a filled one, which axe measures in other states.
  ["color-contrast", "Element has no value; test color contrast with a value entered"],
  // A single digit of a table has the colours of the longer numbers in it.
  ["color-contrast", "Element content is too short to determine if it is actual text content"],
  // A wide table has its frame's edge over the columns that are scrolled out of sight.
  ...["it's partially obscured by another element", "it partially overlaps other elements"].map((reason) =>
    ["color-contrast", `Element's background color could not be determined because ${reason}`, ".wide, .scroll"]),
  // "−" is a sign; its name is "Health: one less".
  ["label-content-name-mismatch", "Unable to determine if the visible text is part of the accessible name"],
];

/** Checks the page's present state with axe: no violation, and nothing left open that is not explained. */
export async function checkAccessibility(page, state) {
  // By the debugger's protocol: the page's own policy forbids inline scripts.
  if (!(await page.evaluate(() => "axe" in globalThis))) await page.evaluate(await readFile(AXE, "utf8"));
  // In a window as high as the page, the bar covers nothing that axe should measure.
  const viewport = page.viewportSize();
  await page.setViewportSize({ ...viewport, height: Math.max(viewport.height, await page.evaluate(() => document.documentElement.scrollHeight)) });
  const found = await page.evaluate(async ({ tags, explained }) => {
    const result = await globalThis.axe.run(document, {
      runOnly: { type: "tag", values: tags },
      rules: { "target-size": { enabled: true } },
      resultTypes: ["violations", "incomplete"],
    });
    const isExplained = (rule, { message }, target) => explained.some(([id, text, place]) =>
      id === rule && text === message && (!place || document.querySelector(target)?.closest(place)));
    const isOpen = (rule) => ({ any, all, none, target }) => [...any, ...all, ...none].some((check) => !isExplained(rule, check, target[0]));
    const open = result.incomplete.map((rule) => ({ ...rule, nodes: rule.nodes.filter(isOpen(rule.id)) })).filter(({ nodes }) => nodes.length > 0);
    return [...result.violations, ...open].map(({ id, help, nodes }) => `${id}: ${help}\n    ${nodes.map(({ html, failureSummary }) => `${html.slice(0, 160)} ${failureSummary}`).join("\n    ")}`);
  }, { tags: AXE_TAGS, explained: EXPLAINED });
  await page.setViewportSize(viewport);
  assert.deepEqual(found, [], `accessibility of: ${state}`);
}

/** Checks that nothing is wider than the window. */
export async function checkNoSidewaysScrolling(page, state) {
  const { scroll, client, wide } = await page.evaluate(() => {
    const root = document.documentElement;
    const limit = root.clientWidth + 1;
    const isInScroller = (element) => element.closest(".wide") !== null;
    const wide = [...document.querySelectorAll("body *")].filter((element) => {
      const { left, right, width } = element.getBoundingClientRect();
      return width > 1 && !isInScroller(element) && !element.closest(".visually-hidden, .skip") && (right > limit || left < -1);
    });
    return { scroll: root.scrollWidth, client: root.clientWidth, wide: wide.map((element) => `${element.tagName}.${element.className?.baseVal ?? element.className}`).slice(0, 5) };
  });
  assert.ok(scroll <= client, `${state}: ${scroll} > ${client}, ${wide}`);
}

/** Checks that no text is cut: by its box, or by the field that it is in. */
export async function checkNothingCut(page, state) {
  const cut = await page.evaluate(() =>
    [...document.querySelectorAll("body *")].filter((element) => {
      if (element.closest(".visually-hidden, .wide, .scroll, .skip, svg, textarea") || !element.checkVisibility()) return false;
      const { overflowX, overflowY, clipPath } = getComputedStyle(element);
      if (clipPath !== "none") return false;
      const isField = element.matches("input[type=text]");
      const hides = (overflow) => isField || ["hidden", "clip"].includes(overflow);
      return (hides(overflowX) && element.scrollWidth > element.clientWidth + 1)
        || (!isField && hides(overflowY) && element.scrollHeight > element.clientHeight + 1);
    }).map((element) => `${element.outerHTML.slice(0, 90)}: ${element.scrollWidth} > ${element.clientWidth}`).slice(0, 5));
  assert.deepEqual(cut, [], `cut in: ${state}`);
}

/** Takes a picture, where a folder for pictures is set. */
export async function screenshot(page, name, options = {}) {
  if (!SCREENSHOTS) return;
  await mkdir(SCREENSHOTS, { recursive: true });
  await page.screenshot({ path: join(SCREENSHOTS, `${name}.png`), ...options });
}
