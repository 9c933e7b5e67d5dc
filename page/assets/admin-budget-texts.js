// @ts-check
/**
 * The parts of a budget's form that follow its categories: translations, and real spending to compare with.
 *
 * A category that was added or removed since appears or disappears when the part is opened again.
 */
import { field, textArea, textInput } from "./admin-fields.js";
import { button, make } from "./dom.js";

/** @typedef {() => {id: string, name: string}[]} Categories as they stand in the form */

/** Leaves empty texts out; nothing if all are empty. @param {Record<string, any>} texts */
function present(texts) {
  const entries = Object.entries(texts).filter(([, value]) => value !== undefined && value !== "");
  return entries.length > 0 ? Object.fromEntries(entries) : undefined;
}

/** @param {string} text */
const percent = (text) => (/^\s*\d{1,3}([.,]\d+)?\s*$/.test(text) ? Number(text.replace(",", ".")) : text.trim());

/** @param {any} reference @param {Categories} categories */
export function makeReferenceFields(reference, categories) {
  const name = field("Whose spending, and when", textInput(reference?.name ?? ""), {
    pointer: "/reference/name",
    hint: "Empty: no comparison.",
  });
  const source = field("Source", textInput(reference?.source ?? ""), {
    pointer: "/reference/source",
    hint: "Where the figures are published.",
  });
  const shares = make("div", { class: "shares" });
  /** @type {Map<string, any>} */
  const fields = new Map();
  const { name: _, source: __, percent: known = {}, ...unknown } = reference ?? {};

  function build() {
    for (const { id, name: label } of categories()) {
      if (!id || fields.has(id)) continue;
      fields.set(
        id,
        field(`${label || id}, percent`, textInput(String(known[id] ?? ""), { inputmode: "decimal" }), {
          pointer: `/reference/percent/${id}`,
        }),
      );
    }
    const ids = new Set(categories().map(({ id }) => id));
    shares.replaceChildren(...[...fields].filter(([id]) => ids.has(id)).map(([, element]) => element));
  }
  build();
  // The sum's own fault stands beside the shares.
  const total = Object.assign(field("Shares", make("output", {}), { hint: "Together exactly 100." }), {
    pointer: "/reference/percent",
  });
  return {
    element: make(
      "details",
      { open: Boolean(reference), toggle: build },
      make("summary", {}, "Compare with real spending"),
      name,
      source,
      total,
      shares,
    ),
    read() {
      build();
      const given = [...fields].filter(([, { isConnected, control }]) => isConnected && control.value.trim() !== "");
      if (!name.control.value && !source.control.value && given.length === 0) return undefined;
      return {
        ...unknown,
        name: name.control.value,
        source: source.control.value,
        percent: Object.fromEntries(given.map(([id, { control }]) => [id, percent(control.value)])),
      };
    },
  };
}

/** @param {Record<string, any>} translations @param {Categories} categories */
export function makeTranslationFields(translations, categories) {
  const list = make("div", {});
  /** @type {Map<string, {read: () => any, element: HTMLElement}>} */
  const made = new Map();

  /** @param {string} language @param {any} translation @param {boolean} open */
  function add(language, translation, open) {
    const one = makeTranslation(language, translation, categories, open, () => {
      made.delete(language);
      one.element.remove();
      input.focus();
    });
    made.set(language, one);
    list.append(one.element);
  }
  for (const [language, translation] of Object.entries(translations)) add(language, translation, false);

  const input = textInput("", { size: 8, spellcheck: "false" });
  const adder = Object.assign(field("Another language", input, { hint: "Such as de, pt-BR." }), {
    pointer: "/translations",
  });
  const addButton = button("Add a translation", () => {
    const language = input.value.trim();
    if (!language || made.has(language)) return;
    add(language, {}, true);
    input.value = "";
    /** @type {any} */ (list.lastElementChild).querySelector("input")?.focus();
  });
  return {
    element: make("div", { class: "translations" }, list, adder, addButton),
    read: () => present(Object.fromEntries([...made].map(([language, one]) => [language, one.read()]))),
  };
}

/**
 * @param {string} language @param {any} translation @param {Categories} categories @param {boolean} open
 * @param {() => void} remove
 */
function makeTranslation(language, translation, categories, open, remove) {
  const pointer = `/translations/${language.replaceAll("~", "~0").replaceAll("/", "~1")}`;
  const { name = "", description = "", reference = {}, categories: known = {}, ...unknown } = translation;
  const input = (/** @type {string} */ value) => textInput(value, { lang: language });
  const texts = {
    name: field("Name", input(name), { pointer: `${pointer}/name` }),
    description: field("Description", textArea(description), { pointer: `${pointer}/description` }),
    reference: field("Real spending: whose, and when", input(reference.name ?? ""), {
      pointer: `${pointer}/reference/name`,
    }),
    source: field("Real spending: source", input(reference.source ?? ""), { pointer: `${pointer}/reference/source` }),
  };
  const rows = make("div", {});
  /** @type {Map<string, {name: any, description: any}>} */
  const fields = new Map();

  function build() {
    for (const { id, name: label } of categories()) {
      if (!id || fields.has(id)) continue;
      const { name: own = "", description: about = "" } = known[id] ?? {};
      fields.set(id, {
        name: field(label || id, input(own), { pointer: `${pointer}/categories/${id}/name` }),
        description: field(`${label || id}: description`, input(about), {
          pointer: `${pointer}/categories/${id}/description`,
        }),
      });
    }
    const ids = new Set(categories().map(({ id }) => id));
    rows.replaceChildren(
      ...[...fields].filter(([id]) => ids.has(id)).flatMap(([, row]) => [row.name, row.description]),
    );
  }
  build();
  // A fault of the whole translation stands at its heading.
  const own = Object.assign(field(`Translation: ${language}`, make("output", {})), { pointer });
  const element = make(
    "details",
    { open, toggle: build },
    make("summary", {}, `Translation: ${language}`),
    own,
    ...Object.values(texts),
    rows,
    button(`Remove the translation ${language}`, remove),
  );
  return {
    element,
    read() {
      build();
      const shown = [...fields].filter(([, row]) => row.name.isConnected);
      const translated = shown.map(([id, row]) => [
        id,
        present({ name: row.name.control.value, description: row.description.control.value }),
      ]);
      return {
        ...unknown,
        ...present({
          name: texts.name.control.value,
          description: texts.description.control.value,
          reference: present({ name: texts.reference.control.value, source: texts.source.control.value }),
          categories: present(Object.fromEntries(translated)),
        }),
      };
    },
  };
}
