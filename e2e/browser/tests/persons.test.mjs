// Several persons at one browser: links with tokens, and signing out of a session.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { generateKeyPairSync, sign } from "node:crypto";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { promisify } from "node:util";
import { BIN_DIR, until } from "../support/allocator.mjs";
import { checkAccessibility, withPage } from "../support/browser.mjs";
import { suite } from "../support/suite.mjs";
import { fields, waitForScript, waitUntilCounted } from "../support/task.mjs";

const ISSUER = "https://id.example";
const { privateKey, publicKey } = generateKeyPairSync("ed25519");

const parts = suite(async (dir) => {
  const keys = join(dir, "keys.json");
  await writeFile(keys, JSON.stringify({ keys: [{ ...publicKey.export({ format: "jwk" }), kid: "k", alg: "EdDSA", use: "sig" }] }));
  return [`identity.token_issuer=${ISSUER}`, `identity.token_keys=${keys}`];
});

function token(sub) {
  const encode = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const now = Math.floor(Date.now() / 1_000);
  const claims = { iss: ISSUER, sub, aud: "allocator", nbf: now - 60, exp: now + 3_600 };
  const message = `${encode({ alg: "EdDSA", kid: "k" })}.${encode(claims)}`;
  return `${message}.${sign(null, Buffer.from(message), privateKey).toString("base64url")}`;
}

const question = (page) => page.locator("#token-question");

/** Sends 100 % for one category. */
async function answer(page, index) {
  await waitForScript(page);
  await fields(page).nth(index).fill("100");
  await page.locator("#send").click();
  await waitUntilCounted(page);
}

async function allocation(budget, sub) {
  const url = `${parts.allocator.url}/v1/budgets/${budget}/submissions/me`;
  const response = await fetch(url, { headers: { Authorization: `Bearer ${token(sub)}` } });
  return response.status === 200 ? (await response.json()).allocation : response.status;
}

test("another person's link asks before it replaces the tab's token, in every language", async () => {
  const url = await parts.allocator.putBudget("links", { identity: "token" });
  await withPage(parts.browser, {}, async (page) => {
    await page.goto(`${url}#t=${token("anna")}`);
    await answer(page, 0);
    assert.equal(await question(page).count(), 0);
    // The same person with a renewed token.
    await page.goto("about:blank");
    await page.goto(`${url}#t=${token("anna")}`);
    await waitUntilCounted(page);
    assert.equal(await question(page).count(), 0);

    // Only the fragment changes: the page is opened anew.
    await page.goto(`${url}#t=${token("otto")}`);
    await question(page).waitFor();
    assert.ok(!page.url().includes("#"), "the token is in the address");
    assert.ok(await fields(page).first().isDisabled());
    await checkAccessibility(page, "the question about another person's link");
    await question(page).getByRole("button", { name: "Stay with the person before" }).click();
    await waitUntilCounted(page);
    assert.equal(await question(page).count(), 0);
    assert.equal(await allocation("links", "otto"), 404);

    await page.goto(`${url}#t=${token("otto")}`);
    await question(page).getByRole("button", { name: "Go on as the person of the link" }).click();
    await answer(page, 1);
    assert.deepEqual(await allocation("links", "anna"), { parks: 100, schools: 0, roads: 0 });
    assert.deepEqual(await allocation("links", "otto"), { parks: 0, schools: 100, roads: 0 });

    for (const language of ["de", "fr", "es", "pl", "ar"]) {
      await page.goto("about:blank");
      await page.goto(`${url}?lang=${language}#t=${token("anna")}`);
      const text = await question(page).innerText();
      assert.ok(text.length > 40 && !/token_|link that you opened/.test(text), text);
      await question(page).getByRole("button").first().click();
    }
  });
});

test("the next person at a browser signs out, without a script", async () => {
  const url = await parts.allocator.putBudget("letters", { identity: "code" });
  const codes = await promisify(execFile)(join(BIN_DIR, "allocator"), [
    "codes", "--set", `sqlite.dir=${join(parts.allocator.dir, "data")}`, "--budget", "letters", "--count", "2",
  ]);
  const [first, second] = codes.stdout.trim().split("\n").slice(1).map((line) => line.split(",")[1]);
  await withPage(parts.browser, { javaScriptEnabled: false }, async (page) => {
    const send = async (category, code) => {
      await page.goto(`${url}/confirm?c.${category}=100`);
      await page.locator("#code").fill(code);
      await page.locator("#confirm button").click();
      await page.waitForURL(/\/mine/);
    };
    await send("parks", first);
    await page.getByRole("button", { name: "Sign out" }).click();
    await page.waitForURL(/\/mine/);
    await page.getByRole("button", { name: "Show my answer" }).waitFor();
    assert.equal(await page.getByRole("button", { name: "Sign out" }).count(), 0);
    assert.deepEqual(await page.context().cookies(), []);
    await send("schools", second);
    await page.goto(`${url}/confirm?c.roads=100`);
    await page.getByRole("button", { name: "Sign out" }).click();
    await page.waitForURL(/\/mine/);
    assert.equal(await page.getByRole("button", { name: "Sign out" }).count(), 0);
  });
  await until("both are counted", async () => (await parts.allocator.aggregate("letters")).people === 2);
});
