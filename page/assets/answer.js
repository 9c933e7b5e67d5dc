// @ts-check
/**
 * The person's own answer: from the form to the receipt, and back for a change.
 *
 * Owns which of form and receipt is in sight, and what is restored after a reload. The parts are `control.js`,
 * `submit.js` and `receipt.js`.
 */
import { makeControl } from "./control.js";
import { find, findAll, make, setText } from "./dom.js";
import { makeReceipt, toBasisPoints, waitUntilCounted } from "./receipt.js";
import { browserSurroundings, makeSender, makeStore } from "./submit.js";

/**
 * A row that is missing so long after the receipt was withdrawn elsewhere: before, it may not be written yet.
 */
const ROW_DELAY_MS = 60_000;

/**
 * @param {{data: any, words: import("./dom.js").Words, announce: ReturnType<typeof import("./dom.js").makeAnnouncer>,
 *   openResults: () => Promise<any>, clockCorrection: (header: string | null) => void,
 *   step: (name: string, action: () => any) => Promise<any>}} options
 */
export async function makeAnswer({ data, words, announce, openResults, clockCorrection, step }) {
  const { text } = words;
  const form = /** @type {HTMLFormElement | null} */ (find("#allocation"));
  const section = find("#receipt");
  const surroundings = browserSurroundings();
  /** @type {string | null} */
  let token = null;
  if (data.sends === "token") {
    const { askToReplace, followLinks, takeToken, withToken } = await import("./lazy-token.js");
    followLinks();
    token = await takeToken(data.budget.id, () => askToReplace(words));
    surroundings.fetch = withToken(surroundings.fetch, token);
  }
  // Whoever comes with another token is another person: the end of a token is its signature.
  const store = makeStore(token ? `${data.budget.id}:${token.slice(-16)}` : data.budget.id);
  const takesAnswers = data.sends !== "elsewhere" && (data.sends !== "token" || token !== null);
  const isOpen = () => data.state === "open" && form !== null && takesAnswers;
  if (token && isOpen()) openForm();
  let edited = false;

  const sender = makeSender({ urls: data.urls, store, show: onSending, surroundings });
  const receipt = section && makeReceipt(section, {
    data, words, announce,
    actions: {
      change: showForm,
      withdraw: () => void sender.send("withdraw", {}),
      check: () => void count(),
      tryNow: () => sender.hurry(),
      resume: () => void sender.resume(),
      discard() {
        sender.discard();
        receipt?.hide();
        showForm();
      },
    },
  });
  // The receipt shows what this link leads to.
  if (receipt) find("p.own")?.remove();
  if (isOpen() && data.budget.order === "shuffled") await step("order", shuffle);
  const control = isOpen() && receipt ? await step("control", () => makeControl(/** @type {HTMLFormElement} */ (form), {
    data, words, announce, changed, send, lastAnswer: () => store.kept.sent?.kind === "submit" ? store.kept.sent.values : null,
  })) : null;

  /** Before the control is made: keys and tools follow the order in sight. */
  async function shuffle() {
    const { shuffleRows } = await import("./lazy-shuffle.js");
    shuffleRows(find(".rows", form), data.budget.id);
    find(".hint", form)?.append(" ", text("shuffled"));
  }

  /** The server's form is closed to whoever has no token. */
  function openForm() {
    find("#answers-elsewhere")?.remove();
    const fieldset = form && /** @type {HTMLFieldSetElement | null} */ (find("fieldset", form));
    if (fieldset) fieldset.disabled = false;
    for (const part of findAll("[data-needs-token]")) part.hidden = false;
  }

  /** @param {Record<string, string>} texts @param {string[]} fixed */
  function changed(texts, fixed) {
    const isEmpty = Object.values(texts).every((value) => value.trim() === "") && fixed.length === 0;
    store.update({ draft: isEmpty ? undefined : { values: texts, fixed, at: Date.now() } });
    warnOfMemory();
    if (edited) return;
    edited = true;
    // The cookie is there before the first send, so that retries are one person.
    void sender.prepare();
    void openResults();
  }

  /** @param {Record<string, number>} values */
  function send(values) {
    note("");
    // The next page asks for the personal code; this one never holds it.
    if (data.sends === "form") return form?.submit();
    if (form) form.hidden = true;
    receipt?.show({ step: "sending", kind: "submit", values }, { focus: true });
    void sender.send("submit", values);
  }

  /** @param {any} state */
  function onSending({ step: name, pending, nextAt, refusal }) {
    const { kind, values } = pending;
    const sent = store.kept.sent;
    if (name === "stored") {
      void count();
      return;
    }
    if (name === "refused" && refusal.slug === "budget-closed") data.state = "closed";
    receipt?.show({
      step: name, kind, values, nextAt, refusal, beganAt: pending.began_at, offline: navigator.onLine === false,
      closed: !isOpen(), earlier: sent ? [sent.receipt] : [],
    }, { focus: name === "refused" });
    if (name === "refused" && kind === "submit" && isOpen()) {
      if (form) form.hidden = false;
      if (refusal.slug === "invalid-allocation" && control?.showServerFaults(refusal.errors)) receipt?.hide();
    }
  }

  /** The receipt as the store has it. @param {import("./receipt.js").Step} name @param {{focus?: boolean, say?: boolean}} [options] */
  async function showSent(name, options) {
    const { sent, earlier } = store.kept;
    if (!sent) return;
    const results = await openResults();
    receipt?.show({
      step: name, kind: sent.kind, values: sent.values, receipt: sent.receipt, storedAt: sent.stored_at, earlier,
      closed: !isOpen(), showShares: !results?.hasNumbers(),
    }, options);
  }

  /** Waits until the last accepted request is counted, and shows everyone's numbers with it. */
  async function count() {
    const sent = store.kept.sent;
    if (!sent) return;
    note("");
    await showSent("stored");
    const results = await openResults();
    const own = sent.kind === "submit" ? sent.values : null;
    results?.setOwn(own);
    results?.open();
    const result = await waitUntilCounted(sent, { urls: data.urls, surroundings });
    if (store.kept.sent?.id !== sent.id) return;
    if (result.aggregate) results?.take(result.aggregate);
    if (result.state === "counted") store.update({ sent: { ...sent, counted: true } });
    if (receipt?.shown && !["stored", "counting"].includes(receipt.shown.step)) return;
    await showSent(result.state);
  }

  /** Shows the form again, with the person's own values unless something was typed since. */
  function showForm() {
    if (!form || !control) return;
    const { sent, draft } = store.kept;
    form.hidden = false;
    if (!draft && sent?.kind === "submit") control.setAnswer(sent.values);
    form.scrollIntoView({ block: "start" });
    control.focusFirst();
  }

  /** A sentence above the form; empty removes it. @param {string} sentence @param {string} [id] */
  function note(sentence, id = "draft-notice") {
    find(`#${id}`)?.remove();
    if (sentence && form) form.prepend(make("p", { class: "notice", id }, sentence));
  }

  function warnOfMemory() {
    if (!store.persistent && !find("#memory-notice")) note(text("memory_only"), "memory-notice");
  }

  /** What an earlier visit left: a request that was not sent, a draft, or an answer. */
  function restore() {
    warnOfMemory();
    const { pending, draft, sent } = store.kept;
    const isFilled = control !== null && !control.isEmpty();
    if (pending) {
      if (form) form.hidden = true;
      receipt?.show({ step: "asks", kind: pending.kind, values: pending.values, beganAt: pending.began_at, closed: !isOpen() },
        { say: false });
    }
    // Values in the address were typed without this script, after the draft.
    if (draft && control && !isFilled) {
      control.restore(draft.values, draft.fixed ?? []);
      note(text("restored", { time: words.time(draft.at) }));
    }
    if (sent && !pending) showAnswer(Boolean(draft || isFilled));
  }

  /** Shows the sent answer, in place of the form unless that has newer values. @param {boolean} keepForm */
  function showAnswer(keepForm) {
    const sent = store.kept.sent;
    if (!sent) return;
    if (form && !keepForm) form.hidden = sent.kind === "submit";
    if (!sent.counted) {
      void count();
      return;
    }
    void showSent("counted", { say: false });
    if (sent.kind === "submit") void showOwn(sent.values);
  }

  /** @param {Record<string, number> | null} own */
  async function showOwn(own) {
    const results = await openResults();
    results?.setOwn(own);
    if (own) results?.open();
  }

  /** Asks the server what is counted for this person: the cookie outlives what scripts store. */
  async function checkMine() {
    const response = await surroundings.fetch(data.urls.mine, { headers: { Accept: "application/json" }, cache: "no-store" });
    clockCorrection(response.headers.get("Date"));
    const { pending, sent, draft } = store.kept;
    if (pending || (sent && !sent.counted)) return;
    if (response.status === 200) {
      const own = await response.json();
      const values = toBasisPoints(own.allocation);
      if (sent?.receipt === own.receipt) return;
      // When it was stored is not known here.
      store.update({ sent: { id: "", kind: "submit", values, receipt: String(own.receipt), stored_at: 0, counted: true } });
      showAnswer(Boolean(draft) || edited);
    } else if ((response.status === 404 || response.status === 204) && sent?.kind === "submit" && Date.now() - sent.stored_at > ROW_DELAY_MS) {
      store.update({ sent: undefined, earlier: undefined });
      receipt?.hide();
      if (form) form.hidden = false;
      void showOwn(null);
    }
  }

  globalThis.addEventListener("online", () => sender.hurry());
  document.addEventListener("visibilitychange", () => !document.hidden && sender.hurry());
  globalThis.addEventListener("storage", (event) => {
    // Another tab sent what this one was waiting to send.
    const waiting = receipt?.shown && ["waiting", "asks", "sending"].includes(receipt.shown.step);
    if (event.key === store.key && waiting && !store.kept.pending) showAnswer(false);
  });

  const skip = find("a.skip");
  const skipText = skip?.textContent ?? "";
  /** The skip link leads to what is in the form's place. */
  function updateSkipLink() {
    if (!skip || !form) return;
    const isAnswered = section && !section.hidden;
    skip.setAttribute("href", !form.hidden ? "#allocation" : isAnswered ? "#receipt" : "#results");
    setText(skip, !form.hidden ? skipText : text(isAnswered ? "skip_to_answer" : "skip_to_results"));
  }
  const watcher = new MutationObserver(updateSkipLink);
  for (const part of [form, section]) if (part) watcher.observe(part, { attributeFilter: ["hidden"] });

  if (receipt && data.page !== "results") restore();
  const whenIdle = globalThis.requestIdleCallback ?? ((/** @type {() => void} */ action) => setTimeout(action, 300));
  whenIdle(() => void step("mine", checkMine));

  return {
    /** The budget closed while the page was open. */
    close() {
      if (form) form.hidden = true;
      if (receipt?.shown && store.kept.sent) void showSent(receipt.shown.step, { say: false });
    },
  };
}
