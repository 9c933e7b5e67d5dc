// @ts-check
/**
 * Keeps a budget's draft, pending request and last receipt in localStorage.
 *
 * Owns the stored form. Falls back to memory where storage throws. Never holds the person's identity: that is a cookie
 * which scripts cannot read.
 */

/**
 * @typedef {{id: string, kind: "submit" | "withdraw", values: Record<string, number>, began_at: number}} Pending
 * @typedef {{id: string, kind: "submit" | "withdraw", values: Record<string, number>, receipt: string, stored_at: number,
 *   counted: boolean}} Sent
 * @typedef {{values: Record<string, string>, fixed: string[], at: number}} Draft
 * @typedef {{draft?: Draft, pending?: Pending, sent?: Sent, earlier?: string[]}} Kept
 */

/** Receipts of earlier answers that are listed. */
const MAX_EARLIER = 5;

/** @param {string} budget @param {() => Storage} [open] */
export function makeStore(budget, open = () => globalThis.localStorage) {
  const key = `allocator:${budget}`;
  /** @type {Kept} */
  let kept = {};
  let persistent = true;

  const attempt = (/** @type {(storage: Storage) => void} */ action) => {
    try {
      action(open());
    } catch {
      persistent = false;
    }
  };

  // Read anew each time: another tab of the same budget may have changed it.
  const load = () => attempt((storage) => {
    const text = storage.getItem(key);
    try {
      const value = text === null ? {} : JSON.parse(text);
      kept = value && typeof value === "object" ? value : {};
    } catch {
      // Damaged content counts as nothing.
      kept = {};
    }
  });
  load();

  return {
    key,
    get kept() {
      if (persistent) load();
      return kept;
    },
    /** Whether what is kept outlives the page. */
    get persistent() {
      return persistent;
    },
    /** Changes fields; `undefined` removes one. @param {Partial<Kept>} fields */
    update(fields) {
      kept = JSON.parse(JSON.stringify({ ...this.kept, ...fields }));
      attempt((storage) => {
        if (Object.keys(kept).length === 0) storage.removeItem(key);
        else storage.setItem(key, JSON.stringify(kept));
      });
    },
    /** Records an accepted request in place of the pending one. @param {Sent} sent */
    accept(sent) {
      const { sent: old, earlier: older = [] } = this.kept;
      const earlier = [...(old?.receipt ? [old.receipt] : []), ...older].slice(0, MAX_EARLIER);
      this.update({ sent, earlier: earlier.length > 0 ? earlier : undefined, pending: undefined, draft: undefined });
    },
  };
}

/** @typedef {ReturnType<typeof makeStore>} Store */
