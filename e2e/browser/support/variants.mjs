// The page with longer texts, other styles, or a stream that the test feeds.

/** Words of a text, except placeholders and the entities of HTML. */
const WORDS = /&#?\w+;|\{\w+\}|\p{L}{3,}/gu;

/** Makes each word 40 % longer. */
export const lengthen = (text) =>
  text.replace(WORDS, (word) => (/^[&{]/.test(word) ? word : word + word.slice(0, Math.ceil(word.length * 0.4))));

const lengthenAll = (value) => typeof value === "string" ? lengthen(value)
  : Object.fromEntries(Object.entries(value).map(([key, text]) => [key, lengthenAll(text)]));

/** Serves every document with longer texts: those of the server, and those that its script will show. */
export async function useLongTexts(page) {
  await page.route((url) => !/\/(assets|v1)\//.test(url.pathname), async (route) => {
    if (route.request().resourceType() !== "document") return route.fallback();
    const response = await route.fetch({ maxRedirects: 0 });
    if (!/text\/html/.test(response.headers()["content-type"] ?? "")) return route.fulfill({ response });
    const parts = (await response.text()).split(/(<script\b.*?<\/script>|<title>.*?<\/title>)/s);
    return route.fulfill({ response, body: parts.map(lengthenPart).join("") });
  });
}

function lengthenPart(part) {
  const data = /^(<script[^>]*id="page-data"[^>]*>)(.*)(<\/script>)$/s.exec(part);
  if (!data) return part.startsWith("<script") || part.startsWith("<title") ? part : part.replace(/>[^<]+</g, lengthen);
  const content = JSON.parse(data[2]);
  content.texts = lengthenAll(content.texts);
  for (const category of content.budget.categories) category.name = lengthen(category.name);
  return data[1] + JSON.stringify(content).replaceAll("<", "\\u003c") + data[3];
}

/** Serves the style sheet with more rules at its end. */
export async function addStyles(page, rules) {
  await page.route("**/page.css", async (route) => {
    const response = await route.fetch();
    return route.fulfill({ response, body: (await response.text()) + rules });
  });
}

/** What WCAG 2.2, 1.4.12 lets readers set. */
export const WIDE_SPACING = `
* { letter-spacing: 0.12em !important; word-spacing: 0.16em !important; line-height: 1.5 !important; }
p { margin-block-end: 2em !important; }`;

/** Replaces the browser's streams by ones that the test feeds. */
export async function useFedStreams(page) {
  await page.addInitScript(() => {
    globalThis.streams = [];
    globalThis.EventSource = class extends EventTarget {
      static CONNECTING = 0;
      static OPEN = 1;
      static CLOSED = 2;
      readyState = 1;
      constructor(url) {
        super();
        this.url = url;
        globalThis.streams.push(this);
      }
      close() {
        this.readyState = 2;
      }
    };
  });
  return {
    /** Sends one aggregate to each open stream. */
    send: (aggregate) => page.evaluate((data) => {
      for (const stream of globalThis.streams) {
        if (stream.readyState === 1) stream.dispatchEvent(new MessageEvent("aggregate", { data }));
      }
    }, JSON.stringify(aggregate)),
    open: () => page.evaluate(() => globalThis.streams.filter(({ readyState }) => readyState !== 2).length),
  };
}

/** A later state of an aggregate: `step` seconds later, with other people and averages. */
export function laterState(aggregate, step) {
  const shift = (step % 7) + step / 10;
  return {
    ...aggregate,
    people: aggregate.people + step * 1_111,
    updated_at: new Date(Date.parse(aggregate.updated_at) + step * 1_000).toISOString(),
    categories: aggregate.categories.map((category, index) => ({
      ...category, average_percent: Math.max(0, Math.min(100, category.average_percent + (index % 2 ? shift : -shift))),
    })),
  };
}
