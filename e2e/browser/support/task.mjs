// What a person does on the page, counted in actions.
import assert from "node:assert/strict";
import { until } from "./allocator.mjs";

/** Ten rough numbers, as somebody types them: they make 96. */
export const ROUGH = ["10", "5", "10", "8", "6", "5", "20", "4", "18", "10"];

export const fields = (page) => page.locator("#allocation input[type=text]");

/** Fills the fields in order; each is one action. Returns the number of actions. */
export async function fillFields(page, texts) {
  for (const [index, text] of texts.entries()) await fields(page).nth(index).fill(text);
  return texts.length;
}

/** Waits until the script has improved the form. */
export async function waitForScript(page) {
  await page.locator("#allocation.enhanced").waitFor();
}

/** Values of all fields in basis points, read independently of the page's own code. */
export async function sumOfFields(page) {
  const texts = await fields(page).evaluateAll((inputs) => inputs.map((input) => input.value));
  return texts.reduce((total, text) => total + Math.round(Number(text.replace(/,/g, ".") || "0") * 100), 0);
}

export const step = (page) => page.locator("#receipt").getAttribute("data-step");

/** Waits until the receipt says that the answer is counted. */
export async function waitUntilCounted(page) {
  await until("the answer is counted", async () => {
    const now = await step(page);
    assert.ok(!["refused", "differs"].includes(now), `the receipt says ${now}: ${await page.locator("#receipt").innerText()}`);
    return now === "counted";
  }, 20_000);
}

/** The receipt's text. */
export const receiptOf = (page) => page.locator("#receipt code").innerText();

/** Fills the rough numbers, scales and sends. */
export async function answer(page, texts = ROUGH) {
  await waitForScript(page);
  await fillFields(page, texts);
  await page.locator("button[value=scale]").click();
  await page.locator("#send").click();
}
