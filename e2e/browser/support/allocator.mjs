// Starts `allocator run` on a free port with fresh data, and asks its API what the page should have done.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createWriteStream } from "node:fs";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

/** The folder of the service's program. */
export const BIN_DIR = process.env.ALLOCATOR_BIN_DIR ?? fileURLToPath(new URL("../../../target/debug", import.meta.url));
const START_TIMEOUT_MS = 60_000;

/** Waits until `check` returns something true; every wait of these tests has a condition. */
export async function until(what, check, timeoutMs = 15_000) {
  const deadline = Date.now() + timeoutMs;
  for (;;) {
    const value = await check();
    if (value) return value;
    assert.ok(Date.now() < deadline, `timed out: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

export async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

export class Allocator {
  /** @param {(dir: string) => Promise<string[]>} [prepare] writes files of a test, and returns settings */
  static async start(prepare = async () => []) {
    const allocator = new Allocator();
    allocator.dir = await mkdtemp(join(tmpdir(), "allocator-page-"));
    allocator.settings = await prepare(allocator.dir);
    allocator.port = await freePort();
    allocator.url = `http://127.0.0.1:${allocator.port}`;
    await allocator.launch();
    return allocator;
  }

  /** Starts the process on the same data and port, also after `kill`. */
  async launch() {
    const log = createWriteStream(join(this.dir, "log"), { flags: "a" });
    this.process = spawn(join(BIN_DIR, "allocator"), [
      "run", "--set", `allocator.listen=127.0.0.1:${this.port}`, "--set", `sqlite.dir=${join(this.dir, "data")}`,
      "--set", `exports.dir=${join(this.dir, "exports")}`,
      ...this.settings.flatMap((setting) => ["--set", setting]),
    ], { stdio: ["ignore", "pipe", "pipe"] });
    this.process.stdout.pipe(log);
    this.process.stderr.pipe(log);
    this.exited = new Promise((resolve) => this.process.once("close", resolve));
    let failed = null;
    this.process.once("error", (error) => (failed = error));
    await until("the allocator is ready", async () => {
      if (failed) throw failed;
      if (this.process.exitCode !== null) throw new Error(await readFile(join(this.dir, "log"), "utf8"));
      return fetch(`${this.url}/readyz`).then(({ ok }) => ok, () => false);
    }, START_TIMEOUT_MS);
  }

  async kill() {
    this.process.kill("SIGKILL");
    await this.exited;
  }

  async stop() {
    this.process.kill("SIGTERM");
    await this.exited;
    await rm(this.dir, { recursive: true, force: true });
  }

  /** The administrator's token that the first start made. */
  async adminToken() {
    return (await readFile(join(this.dir, "data", "admin.token"), "utf8")).trim();
  }

  /** Creates or changes a budget with three categories. */
  async putBudget(id, more = {}) {
    const categories = [["parks", "Parks"], ["schools", "Schools"], ["roads", "Roads"]];
    const response = await fetch(`${this.url}/v1/budgets/${id}`, {
      method: "PUT",
      headers: { "Content-Type": "application/json", Authorization: `Bearer ${await this.adminToken()}` },
      body: JSON.stringify({ name: "What for our town?", categories: categories.map(([id, name]) => ({ id, name })), ...more }),
    });
    assert.ok(response.ok, await response.text());
    return `${this.url}/budgets/${id}`;
  }

  /** Submits for another person by the API; resolves when the aggregate has it. */
  async submit(budget, person, allocation) {
    const response = await fetch(`${this.url}/v1/budgets/${budget}/submissions`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ person, allocation }),
    });
    assert.equal(response.status, 202, await response.clone().text());
    const { receipt } = await response.json();
    return this.aggregate(budget, receipt);
  }

  async aggregate(budget, receipt) {
    const headers = receipt ? { "Consistency-Token": receipt, Prefer: "wait=10" } : {};
    const response = await fetch(`${this.url}/v1/budgets/${budget}/aggregate`, { headers });
    assert.equal(response.status, 200);
    return response.json();
  }
}
