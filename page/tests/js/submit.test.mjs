import assert from "node:assert/strict";
import { test } from "node:test";
import { waitUntilCounted } from "../../assets/receipt.js";
import { ASK_AFTER_MS, makeBody, makeId, makeSender, makeStore, pauseMs, retryAfterMs } from "../../assets/submit.js";
import { MemoryStorage, accepted, problem, scriptedServer } from "./support.mjs";

const urls = { person: "/b/person", submit: "/b/submit", withdraw: "/b/withdraw", mine: "/b/mine", aggregate: "/b/aggregate" };
const VALUES = { health: 4000, education: 3550, defence: 2450 };

function arrange(answers, storage = new MemoryStorage()) {
  const server = scriptedServer(answers);
  const shown = [];
  const store = makeStore("taxes", () => storage);
  const sender = makeSender({ urls, store, show: (state) => shown.push(state), surroundings: server.surroundings });
  const submissions = () => server.requests.filter(({ name }) => name === "submit" || name === "withdraw");
  return { ...server, sender, store, storage, shown, steps: () => shown.map(({ step }) => step), submissions };
}
const idOf = (request) => new URLSearchParams(request.body).get("submission_id");

test("the cookie is asked for before the first send, once", async () => {
  const { sender, requests } = arrange([accepted("1.0"), accepted("1.1")]);
  await sender.prepare();
  await sender.send("submit", VALUES);
  await sender.send("submit", { health: 10000 });
  assert.deepEqual(requests.map(({ name }) => name), ["person", "submit", "submit"]);
});

test("a send during the first edit's request for the cookie waits for it, and is the same person", async () => {
  const { sender, requests } = arrange([accepted("1.0")]);
  await Promise.all([sender.prepare(), sender.send("submit", VALUES)]);
  assert.deepEqual(requests.map(({ name }) => name), ["person", "submit"]);
});

test("every retry has the key of the first try", async () => {
  const { sender, submissions, steps, store } = arrange([
    new TypeError("network"), problem(503, "unavailable"), problem(500, "internal"), problem(429, "rate-limited"),
    problem(409, "in-flight"), problem(408, "request-timeout"), accepted("3.7"),
  ]);
  await sender.send("submit", VALUES);
  assert.equal(submissions().length, 7);
  assert.equal(new Set(submissions().map(idOf)).size, 1);
  assert.equal(steps().at(-1), "stored");
  assert.equal(store.kept.sent.receipt, "3.7");
  assert.equal(store.kept.pending, undefined);
});

test("the request is stored before the first try", async () => {
  const storage = new MemoryStorage();
  let stored = null;
  const { sender } = arrange([() => {
    stored = JSON.parse(storage.getItem("allocator:taxes")).pending;
    return accepted("1.0");
  }], storage);
  await sender.send("submit", VALUES);
  assert.deepEqual(stored.values, VALUES);
  assert.match(stored.id, /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
});

test("a reload sends the same key, and other content a new one", async () => {
  const storage = new MemoryStorage();
  const first = arrange([], storage);
  first.surroundings.sleep = () => new Promise(() => {});
  void first.sender.send("submit", VALUES);
  await new Promise(setImmediate);
  const { id } = first.store.kept.pending;

  const second = arrange([accepted("2.0"), accepted("2.1")], storage);
  await second.sender.resume();
  assert.equal(idOf(second.submissions()[0]), id);
  await second.sender.send("submit", { health: 10000 });
  assert.notEqual(idOf(second.submissions()[1]), id);
});

test("final refusals end the sending and keep nothing pending", async () => {
  for (const [status, slug] of [[409, "budget-closed"], [422, "invalid-allocation"], [400, "malformed"], [404, "not-found"]]) {
    const { sender, submissions, shown, store } = arrange([problem(status, slug)]);
    await sender.send("submit", VALUES);
    assert.equal(submissions().length, 1);
    assert.equal(shown.at(-1).refusal.slug, slug);
    assert.equal(store.kept.pending, undefined);
    assert.equal(store.kept.sent, undefined);
  }
});

test("a deleted cookie is made again once; blocked cookies are final", async () => {
  const again = arrange([problem(403, "forbidden"), accepted("1.0")]);
  await again.sender.send("submit", VALUES);
  assert.deepEqual(again.requests.map(({ name }) => name), ["person", "submit", "person", "submit"]);
  assert.equal(again.steps().at(-1), "stored");

  const blocked = arrange([problem(403, "forbidden"), problem(403, "forbidden")]);
  await blocked.sender.send("submit", VALUES);
  assert.equal(blocked.shown.at(-1).refusal.slug, "forbidden");
});

test("no try is before Retry-After, and waiting grows to half a minute", async () => {
  const { sender, surroundings } = arrange([problem(503, "unavailable", { headers: { "Retry-After": "40" } }), accepted("1.0")]);
  await sender.send("submit", VALUES);
  assert.ok(surroundings.sleeps[0] >= 40_000 && surroundings.sleeps[0] <= 60_000);
  assert.deepEqual([1, 2, 3, 6, 50].map((tries) => pauseMs(tries, 0, () => 0.5)), [1_000, 2_000, 4_000, 30_000, 30_000]);
  assert.equal(pauseMs(1, 0, () => 0), 750);
  assert.equal(pauseMs(1, 0, () => 1), 1_250);
});

test("a request that is put aside for ten minutes is not sent without asking", async () => {
  const { sender, submissions, steps, advance } = arrange([
    () => { advance(ASK_AFTER_MS); throw new TypeError("network"); }, accepted("1.0"),
  ]);
  await sender.send("submit", VALUES);
  assert.equal(steps().at(-1), "asks");
  assert.equal(submissions().length, 1);
  await sender.resume();
  assert.equal(steps().at(-1), "stored");
  assert.equal(new Set(submissions().map(idOf)).size, 1);
});

test("an older answer under way never replaces a newer one", async () => {
  let release;
  const held = new Promise((resolve) => (release = resolve));
  const server = arrange([]);
  let calls = 0;
  server.surroundings.fetch = undefined;
  const surroundings = { ...server.surroundings, fetch: async (url) => {
    if (String(url).endsWith("person")) return new Response(null, { status: 204 });
    calls += 1;
    if (calls === 1) await held;
    return new Response(JSON.stringify({ receipt: `1.${calls}` }), { status: 202 });
  } };
  const shown = [];
  const sender = makeSender({ urls, store: server.store, show: (state) => shown.push(state), surroundings });
  const first = sender.send("submit", VALUES);
  await new Promise(setImmediate);
  await sender.send("submit", { health: 10000 });
  release();
  await first;
  assert.equal(server.store.kept.sent.receipt, "1.2");
  assert.equal(shown.filter(({ step }) => step === "stored").length, 1);
});

test("storage that throws falls back to memory", async () => {
  const server = scriptedServer([accepted("1.0")]);
  const store = makeStore("taxes", () => { throw new DOMException("denied", "SecurityError"); });
  const sender = makeSender({ urls, store, show: () => {}, surroundings: server.surroundings });
  await sender.send("submit", VALUES);
  assert.equal(store.persistent, false);
  assert.equal(store.kept.sent.receipt, "1.0");
});

test("damaged storage counts as empty", () => {
  const storage = new MemoryStorage();
  storage.setItem("allocator:taxes", "{\"draft\":");
  assert.deepEqual(makeStore("taxes", () => storage).kept, {});
});

test("earlier receipts are kept, newest first", () => {
  const storage = new MemoryStorage();
  const store = makeStore("taxes", () => storage);
  for (const receipt of ["1.0", "1.1", "1.2"]) store.accept({ id: "x", kind: "submit", values: {}, receipt, stored_at: 0, counted: true });
  assert.deepEqual(store.kept.earlier, ["1.1", "1.0"]);
});

test("the body is the form's own, without empty shares", () => {
  const body = new URLSearchParams(makeBody({ id: "key", kind: "submit", values: { a: 3550, b: 0, c: 10000, d: 5 }, began_at: 0 }));
  assert.deepEqual([...body], [["c.a", "35.5"], ["c.c", "100"], ["c.d", "0.05"], ["submission_id", "key"]]);
});

test("Retry-After is read as seconds or as a date", () => {
  assert.equal(retryAfterMs("3", 0), 3_000);
  assert.equal(retryAfterMs(new Date(90_000).toUTCString(), 60_000), 30_000);
  for (const header of [null, "", "soon", "-5"]) assert.equal(retryAfterMs(header, 0), 0);
});

const SENT = { id: "x", kind: "submit", values: VALUES, receipt: "3.7", stored_at: 0, counted: false };
const AGGREGATE = { status: 200, body: { budget: "taxes", people: 1 }, headers: { ETag: '"v1"' } };
const MINE = { status: 200, body: { allocation: { health: 40, education: 35.5, defence: 24.5, other: 0 }, receipt: "3.7" } };

test("counted means: in the aggregate and in the person's row, basis point by basis point", async () => {
  const { surroundings, requests } = scriptedServer([problem(412, "not-yet-visible"), problem(503, "unavailable"), AGGREGATE, problem(412, "not-yet-visible"), MINE]);
  const result = await waitUntilCounted(SENT, { urls, surroundings });
  assert.equal(result.state, "counted");
  assert.equal(result.aggregate.people, 1);
  assert.ok(requests.every(({ headers }) => headers["Consistency-Token"] === "3.7" && headers.Prefer === "wait=10"));
});

test("a row with other shares differs, and a withdrawn one is gone", async () => {
  const other = { status: 200, body: { allocation: { health: 39.99, education: 35.5, defence: 24.51 } } };
  assert.equal((await waitUntilCounted(SENT, { urls, ...scriptedServer([AGGREGATE, other]) })).state, "differs");
  const gone = await waitUntilCounted({ ...SENT, kind: "withdraw" }, { urls, ...scriptedServer([AGGREGATE, problem(404, "not-found")]) });
  assert.equal(gone.state, "counted");
});

test("after a minute it is said that counting comes later", async () => {
  const { surroundings } = scriptedServer(Array.from({ length: 100 }, () => problem(412, "not-yet-visible")));
  assert.equal((await waitUntilCounted(SENT, { urls, surroundings })).state, "later");
});

test("ids are random version 4 UUIDs", () => {
  assert.equal(new Set(Array.from({ length: 100 }, makeId)).size, 100);
});
