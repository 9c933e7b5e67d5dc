// @ts-check
/**
 * The form of one budget definition: every rule and text, faults beside their fields, frozen fields with the reason.
 *
 * Owns what stands in the form. Members that this release does not know are sent back as they came.
 */
import { makeReferenceFields, makeTranslationFields } from "./admin-budget-texts.js";
import { choice, clearFaults, field, placeFaults, textArea, textInput, timeInput } from "./admin-fields.js";
import { failure } from "./admin-view.js";
import { button, focusOn, make } from "./dom.js";

const FROZEN = "Cannot change: the budget has submissions.";
const MIN_CATEGORIES = 2;

/**
 * @param {any} definition
 * @param {{isNew?: boolean, readOnly?: boolean, save: (next: any, id: string) => Promise<void>,
 *   conflict: () => Node}} options
 *   `conflict` tells that the service has another definition than the form was made of
 */
export function makeBudgetForm(definition, { isNew = false, readOnly = false, save, conflict }) {
  const frozen = definition.frozen === true;
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  const id = field("Id", textInput("", { spellcheck: "false" }), {
    hint: "Lower-case letters, digits and hyphens; a part of the address.",
  });
  const fields = {
    name: field("Name", textInput(definition.name ?? ""), { pointer: "/name", hint: "The question." }),
    description: field("Description", textArea(definition.description ?? ""), {
      pointer: "/description",
      hint: "Shown below the question.",
    }),
    contact: field("Contact", textInput(definition.contact ?? ""), {
      pointer: "/contact",
      hint: "Whom people can ask.",
    }),
    language: field("Language", textInput(definition.language ?? ""), {
      pointer: "/language",
      hint: "Of the texts here, such as en or de.",
    }),
    time_zone: field("Time zone", textInput(definition.time_zone ?? ""), {
      pointer: "/time_zone",
      hint: `Of times on the page, such as ${zone}.`,
    }),
    results: field("Results", choice(["live", "after_close"], definition.results ?? "live"), { pointer: "/results" }),
    minimum_people: field(
      "Minimum of people",
      textInput(String(definition.minimum_people ?? 1), { inputmode: "numeric" }),
      { pointer: "/minimum_people", hint: "Results are withheld below it." },
    ),
    max_people: field("Maximum of people", textInput(String(definition.max_people ?? ""), { inputmode: "numeric" }), {
      pointer: "/max_people",
      hint: "From about so many people on, new people are refused. Empty: no maximum.",
    }),
    publish_step: field(
      "Publish step",
      textInput(String(definition.publish_step ?? 1), { inputmode: "numeric" }),
      {
        pointer: "/publish_step",
        hint: "Results move only when so many people have changed, and at the closing. 1 shows each change.",
        disabled: frozen ? FROZEN : "",
      },
    ),
    identity: field("Identity", choice(["required", "optional", "anonymous", "code", "email", "token"], definition.identity ?? "required"), {
      pointer: "/identity",
      disabled: frozen ? FROZEN : "",
    }),
    order: field("Order of the form", choice(["fixed", "shuffled"], definition.order ?? "fixed"), {
      pointer: "/order",
    }),
  };
  const opens = timeInput(definition.opens_at);
  const closes = timeInput(definition.closes_at);
  const categories = makeCategories(definition.categories ?? [{}, {}], frozen);
  const reference = makeReferenceFields(definition.reference, categories.list);
  const translations = makeTranslationFields(definition.translations ?? {}, categories.list);
  const summary = make("div", { class: "fault-summary", tabindex: -1, hidden: true });
  const notice = make("div", {});
  const submit = make("button", { class: "primary" }, isNew ? "Create" : "Save");

  /** The definition as it stands in the form. Empty texts are no members. */
  function read() {
    const { id: _, revision, frozen: __, closing, ...known } = definition;
    const next = {
      ...known,
      name: fields.name.control.value,
      categories: categories.read(),
      results: fields.results.control.value,
      identity: fields.identity.control.value,
      order: fields.order.control.value,
      minimum_people: number(fields.minimum_people.control.value),
      max_people: fields.max_people.control.value.trim() === "" ? undefined : number(fields.max_people.control.value),
      publish_step: number(fields.publish_step.control.value),
      opens_at: opens.readTime(),
      closes_at: closes.readTime(),
      description: fields.description.control.value || undefined,
      contact: fields.contact.control.value || undefined,
      language: fields.language.control.value || undefined,
      time_zone: fields.time_zone.control.value || undefined,
      reference: reference.read(),
      translations: translations.read(),
    };
    return next;
  }

  const form = make(
    "form",
    {
      class: "panel",
      novalidate: true,
      submit: async (/** @type {Event} */ event) => {
        event.preventDefault();
        submit.disabled = true;
        summary.hidden = true;
        notice.replaceChildren();
        clearFaults(form);
        try {
          await save(read(), id.control.value.trim());
        } catch (error) {
          show(error);
        } finally {
          submit.disabled = false;
        }
      },
    },
    summary,
    make(
      "fieldset",
      { disabled: readOnly },
      isNew ? id : "",
      ...Object.values(fields).slice(0, 3),
      make("h3", {}, "Categories"),
      categories.element,
      make("h3", {}, "Rules"),
      field(`Opens (${zone})`, opens, { pointer: "/opens_at", hint: "Empty: open at once." }),
      field(`Closes (${zone})`, closes, { pointer: "/closes_at", hint: "Empty: stays open." }),
      ...[fields.results, fields.minimum_people, fields.max_people, fields.publish_step, fields.identity, fields.order],
      make("h3", {}, "Languages"),
      fields.language,
      fields.time_zone,
      translations.element,
      make("h3", {}, "Real spending"),
      reference.element,
      notice,
      readOnly ? "" : make("div", { class: "actions" }, submit),
    ),
  );

  /** @param {any} error */
  function show(error) {
    if (error.status === 412) notice.replaceChildren(conflict());
    else if (error.errors?.length > 0) placeFaults(form, summary, error.errors);
    else notice.replaceChildren(failure(error));
    if (notice.firstElementChild) focusOn(notice.firstElementChild);
  }

  return form;
}

/** A whole number, or the text as it is: the service says what is wrong with it. @param {string} text */
const number = (text) => (/^\d{1,15}$/.test(text.trim()) ? Number(text) : text);

/**
 * The categories, which can be added, removed and moved until the budget is frozen.
 *
 * @param {any[]} categories @param {boolean} frozen
 */
function makeCategories(categories, frozen) {
  const list = make("ol", { class: "categories" });
  /** @type {any[]} */
  const rows = [];

  /** @param {any} category */
  function add(category) {
    const { id = "", name = "", description = "", color = "", ...unknown } = category;
    const row = {
      id: field("Id", textInput(id, { spellcheck: "false" }), { disabled: frozen ? FROZEN : "" }),
      name: field("Name", textInput(name)),
      description: field("Description", textInput(description)),
      color: field("Colour", textInput(color, { spellcheck: "false", placeholder: "#1f77b4" })),
      unknown,
      element: make("li", {}),
    };
    const move = (/** @type {number} */ by) => {
      const from = rows.indexOf(row);
      if (from + by < 0 || from + by >= rows.length) return;
      rows.splice(from, 1);
      rows.splice(from + by, 0, row);
      list.append(...rows.map(({ element }) => element));
    };
    const remove = () => {
      if (rows.length <= MIN_CATEGORIES) return;
      rows.splice(rows.indexOf(row), 1);
      row.element.remove();
      rows[0].id.control.focus();
    };
    row.element.append(
      row.id,
      row.name,
      row.description,
      row.color,
      frozen
        ? ""
        : make(
            "div",
            { class: "actions" },
            button("Up", () => move(-1)),
            button("Down", () => move(1)),
            button("Remove", remove),
          ),
    );
    rows.push(row);
    list.append(row.element);
    return row;
  }

  for (const category of categories) add(category);
  return {
    element: make(
      "div",
      {},
      list,
      frozen ? make("p", { class: "hint" }, FROZEN) : button("Add a category", () => add({}).id.control.focus()),
    ),
    /** Ids and names as they stand in the form. */
    list: () => rows.map((row) => ({ id: row.id.control.value.trim(), name: row.name.control.value })),
    read: () =>
      rows.map((row, index) => {
        for (const name of ["id", "name", "description", "color"]) row[name].pointer = `/categories/${index}/${name}`;
        return {
          ...row.unknown,
          id: row.id.control.value.trim(),
          name: row.name.control.value,
          description: row.description.control.value || undefined,
          color: row.color.control.value.trim() || undefined,
        };
      }),
  };
}
