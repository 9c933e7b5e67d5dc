import assert from "node:assert/strict";
import { test } from "node:test";
import { takeToken, withToken } from "../../assets/lazy-token.js";
import { MemoryStorage } from "./support.mjs";

function arrange(hash, storage = new MemoryStorage()) {
  const replaced = [];
  const location = { hash, pathname: "/budgets/parks", search: "?lang=de" };
  const history = { state: null, replaceState: (_state, _title, url) => replaced.push(url) };
  return { replaced, storage, surroundings: { location, history, storage: () => storage } };
}

test("a link's token leaves the address and stays in the tab, for its budget alone", () => {
  const { replaced, storage, surroundings } = arrange("#t=a.b.c");
  assert.equal(takeToken("parks", surroundings), "a.b.c");
  assert.deepEqual(replaced, ["/budgets/parks?lang=de"]);
  const later = arrange("", storage);
  assert.equal(takeToken("parks", later.surroundings), "a.b.c");
  assert.deepEqual(later.replaced, []);
  assert.equal(takeToken("roads", later.surroundings), null);
});

test("other fragments are left alone, and storage that throws only shortens the token's life", () => {
  const { replaced, surroundings } = arrange("#results");
  assert.equal(takeToken("parks", surroundings), null);
  assert.deepEqual(replaced, []);
  const blocked = { ...arrange("#t=a.b.c").surroundings, storage: () => { throw new Error("blocked"); } };
  assert.equal(takeToken("parks", blocked), "a.b.c");
});

test("requests have the token, and keep their other headers", async () => {
  const requests = [];
  const fetch = async (url, options) => requests.push([url, options]);
  await withToken(fetch, "a.b.c")("/mine", { method: "POST", headers: { Accept: "application/json" } });
  const [[url, options]] = requests;
  assert.equal(url, "/mine");
  assert.equal(options.method, "POST");
  assert.deepEqual([...options.headers], [["accept", "application/json"], ["authorization", "Bearer a.b.c"]]);
  assert.equal(withToken(fetch, null), fetch);
});
