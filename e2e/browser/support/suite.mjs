// One service and one browser for the tests of a file.
import { after, before } from "node:test";
import { Allocator } from "./allocator.mjs";
import { startBrowser } from "./browser.mjs";

export function suite() {
  const parts = {};
  before(async () => {
    // Whichever started is stopped by `after`, also if the other one failed.
    parts.browser = await startBrowser();
    parts.allocator = await Allocator.start();
  });
  after(async () => {
    await parts.browser?.close();
    await parts.allocator?.stop();
  });
  return parts;
}
