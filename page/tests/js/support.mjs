// What several suites of the scripts share: files, seeded randomness, and a scripted server with its own clock.
import { existsSync, readFileSync, readdirSync } from "node:fs";
import { fileURLToPath } from "node:url";

const PAGE = new URL("../../", import.meta.url);

export const LANGUAGES = ["en", "de", "fr", "es", "pl", "ar"];

export const readText = (path) => readFileSync(new URL(path, PAGE), "utf8");
export const texts = (language) => JSON.parse(readText(`texts/${language}/script.json`));
export const assets = () => readdirSync(fileURLToPath(new URL("assets/", PAGE))).sort();

/** Texts of all files of a folder. */
export const sources = (folder) =>
  readdirSync(fileURLToPath(new URL(`${folder}/`, PAGE))).map((file) => readText(`${folder}/${file}`));

/** The vectors that the Rust side writes. */
export function vectors(name) {
  const file = new URL(`tests/vectors/${name}.json`, PAGE);
  if (!existsSync(file)) throw new Error(`${file.pathname} is missing: cargo test -p page writes it`);
  const parsed = JSON.parse(readFileSync(file, "utf8"));
  return Array.isArray(parsed) ? parsed : parsed.vectors;
}

/** mulberry32: the same numbers for the same seed. */
export function seeded(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

export class MemoryStorage {
  items = new Map();
  getItem(key) {
    return this.items.get(key) ?? null;
  }
  setItem(key, value) {
    this.items.set(key, value);
  }
  removeItem(key) {
    this.items.delete(key);
  }
}

/** Answers by script. `answers` has the replies to submissions; the person's cookie is always set. */
export function scriptedServer(answers) {
  const requests = [];
  let clock = 1_000_000;
  const surroundings = {
    now: () => clock,
    random: () => 0.5,
    sleep: async (ms, wake) => {
      surroundings.sleeps.push(ms);
      const before = clock;
      clock += ms;
      wake.now = () => {
        clock = before;
      };
    },
    sleeps: [],
    fetch: async (url, options = {}) => {
      const name = String(url).split("/").pop();
      requests.push({ name, body: options.body, headers: options.headers });
      if (name === "person") return new Response(null, { status: 204 });
      const answer = answers.shift();
      if (answer === undefined) throw new Error("no answer is left");
      if (answer instanceof Error) throw answer;
      const { status, body = null, headers = {} } = typeof answer === "function" ? answer(surroundings) : answer;
      return new Response(body === null ? null : JSON.stringify(body), { status, headers });
    },
  };
  return { requests, surroundings, advance: (ms) => (clock += ms) };
}

export const problem = (status, slug, more = {}) => ({
  status, body: { type: `/problems/${slug}`, status, detail: "words of the server", ...more.body }, headers: more.headers,
});
export const accepted = (receipt) => ({ status: 202, body: { status: "accepted", receipt } });
