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

const noQuestion = async () => assert.fail("nothing is to be asked");

/** A token as an identity provider makes it; only its payload matters here. */
function jwt(sub, signature = "s", iss = "https://id.example") {
  const payload = Buffer.from(JSON.stringify({ iss, sub, name: "Zoë ÿ?>" })).toString("base64url");
  return `h.${payload}.${signature}`;
}

test("a link's token leaves the address and stays in the tab, for its budget alone", async () => {
  const { replaced, storage, surroundings } = arrange("#t=a.b.c");
  assert.equal(await takeToken("parks", noQuestion, surroundings), "a.b.c");
  assert.deepEqual(replaced, ["/budgets/parks?lang=de"]);
  const later = arrange("", storage);
  assert.equal(await takeToken("parks", noQuestion, later.surroundings), "a.b.c");
  assert.deepEqual(later.replaced, []);
  assert.equal(await takeToken("roads", noQuestion, later.surroundings), null);
});

test("another person's link replaces the token only after a question, and leaves the address before it", async () => {
  for (const other of [jwt("s-2"), jwt("s-1", "s", "https://other.example"), "a.b.c", "x"]) {
    for (const replaces of [true, false]) {
      const { storage, surroundings } = arrange(`#t=${jwt("s-1")}`);
      await takeToken("parks", noQuestion, surroundings);
      const link = arrange(`#t=${other}`, storage);
      let asked = 0;
      const ask = async () => {
        asked += 1;
        assert.deepEqual(link.replaced, ["/budgets/parks?lang=de"]);
        return replaces;
      };
      const expected = replaces ? other : jwt("s-1");
      assert.equal(await takeToken("parks", ask, link.surroundings), expected);
      assert.equal(asked, 1);
      assert.equal(await takeToken("parks", noQuestion, arrange("", storage).surroundings), expected);
    }
  }
});

test("a renewed token of the same person, and the same link again, ask nothing", async () => {
  const { storage, surroundings } = arrange(`#t=${jwt("s-1")}`);
  await takeToken("parks", noQuestion, surroundings);
  for (const token of [jwt("s-1"), jwt("s-1", "renewed")]) {
    const link = arrange(`#t=${token}`, storage);
    assert.equal(await takeToken("parks", noQuestion, link.surroundings), token);
  }
  // A person of another budget in the same tab is kept apart.
  assert.equal(await takeToken("roads", noQuestion, arrange(`#t=${jwt("s-2")}`, storage).surroundings), jwt("s-2"));
});

test("other fragments are left alone, and storage that throws only shortens the token's life", async () => {
  const { replaced, surroundings } = arrange("#results");
  assert.equal(await takeToken("parks", noQuestion, surroundings), null);
  assert.deepEqual(replaced, []);
  const blocked = { ...arrange("#t=a.b.c").surroundings, storage: () => { throw new Error("blocked"); } };
  assert.equal(await takeToken("parks", noQuestion, blocked), "a.b.c");
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
