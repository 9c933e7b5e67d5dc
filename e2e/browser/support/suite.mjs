// One service and one browser for the tests of a file.
import { after, before } from "node:test";
import { Allocator } from "./allocator.mjs";
import { startBrowser } from "./browser.mjs";

/** @param {(dir: string) => Promise<string[]>} [prepare] as of `Allocator.start` */
export function suite(prepare) {
  const parts = {};
  before(async () => {
    // Whichever started is stopped by `after`, also if the other one failed.
    parts.browser = await startBrowser();
    parts.allocator = await Allocator.start(prepare);
  });
  after(async () => {
    await parts.browser?.close();
    await parts.allocator?.stop();
  });
  return parts;
}
