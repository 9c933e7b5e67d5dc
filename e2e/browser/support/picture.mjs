// Pictures of the page for the docs: taken in a fixed state, and compared with the stored ones.
import assert from "node:assert/strict";
import { mkdir, mkdtemp, readFile, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const FOLDER = fileURLToPath(new URL("../../../docs/pictures/", import.meta.url));
const UPDATES = process.env.UPDATE_SCREENSHOTS === "1";
const WEBP_QUALITY = 70;
/** Pictures are compared by the mean colours of squares: letters are drawn differently on other machines. */
const TILE_PX = 16;
/** A square differs if a channel's mean is further away than this, of 255. */
const MAX_MEAN_DISTANCE = 24;
/** A picture differs if more of its squares do than this. */
const MAX_DIFFERING = 0.05;

/** A font that Debian's browser needs and that has Latin and Arabic letters; no caret and no focus ring of the moment. */
export const PICTURE_STYLES = `
body { font-family: "DejaVu Sans", sans-serif; }
* { caret-color: transparent; }`;

/** Puts fixed texts in place of what differs in each run: receipts and times. */
async function fixTexts(page, time) {
  await page.evaluate(({ clock, day }) => {
    document.activeElement?.blur();
    const replace = (selector, pattern, text) => {
      for (const element of document.querySelectorAll(selector)) element.textContent = element.textContent.replace(pattern, text);
    };
    replace("#receipt code", /.+/, "3.1042-9f86d081884c7d65");
    replace("#as-of, .progress li", /\d{1,2}:\d{2}:\d{2}(\s?([AP]M|[صم]))?/u, clock);
    replace("#state time", /.+/, day);
  }, time);
}

/** Takes a picture of the window and compares it with the stored one, or stores it. */
export async function comparePicture(page, name, time) {
  await fixTexts(page, time);
  const session = await page.context().newCDPSession(page);
  const { data } = await session.send("Page.captureScreenshot", { format: "webp", quality: WEBP_QUALITY });
  const file = join(FOLDER, `${name}.webp`);
  if (UPDATES) {
    await mkdir(FOLDER, { recursive: true });
    await writeFile(file, Buffer.from(data, "base64"));
    return;
  }
  const stored = await readStored(name);
  const differing = await differingTiles(page.context().browser(), stored, data);
  if (differing <= MAX_DIFFERING) return;
  const taken = join(await mkdtemp(join(tmpdir(), "allocator-picture-")), `${name}.webp`);
  await writeFile(taken, Buffer.from(data, "base64"));
  assert.fail(`${(differing * 100).toFixed(1)} % of ${taken} differs from ${file}; if that is meant: UPDATE_SCREENSHOTS=1 local/browser-test`);
}

export async function readStored(name) {
  return (await readFile(join(FOLDER, `${name}.webp`))).toString("base64");
}

/** The part of the squares that differ; all of them if the sizes differ. */
export async function differingTiles(browser, stored, taken) {
  const page = await browser.newPage();
  try {
    return await page.evaluate(async ({ pictures, tile, maxDistance }) => {
      const [one, other] = await Promise.all(pictures.map(async (data) => {
        const image = new Image();
        image.src = `data:image/webp;base64,${data}`;
        await image.decode();
        const canvas = new OffscreenCanvas(image.width, image.height);
        const context = canvas.getContext("2d");
        context.drawImage(image, 0, 0);
        return context.getImageData(0, 0, image.width, image.height);
      }));
      if (one.width !== other.width || one.height !== other.height) return 1;
      const meansOf = ({ data, width }, left, top, right, bottom) => {
        const sums = [0, 0, 0];
        for (let y = top; y < bottom; y += 1) {
          for (let x = left; x < right; x += 1) for (const channel of [0, 1, 2]) sums[channel] += data[(y * width + x) * 4 + channel];
        }
        return sums.map((sum) => sum / ((right - left) * (bottom - top)));
      };
      let differing = 0;
      let all = 0;
      for (let top = 0; top < one.height; top += tile) {
        for (let left = 0; left < one.width; left += tile) {
          const area = [left, top, Math.min(left + tile, one.width), Math.min(top + tile, one.height)];
          const [mean, otherMean] = [meansOf(one, ...area), meansOf(other, ...area)];
          all += 1;
          if (mean.some((value, channel) => Math.abs(value - otherMean[channel]) > maxDistance)) differing += 1;
        }
      }
      return differing / all;
    }, { pictures: [stored, taken], tile: TILE_PX, maxDistance: MAX_MEAN_DISTANCE });
  } finally {
    await page.close();
  }
}
