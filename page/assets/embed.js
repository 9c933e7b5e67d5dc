// @ts-check
/**
 * Shows results on pages of other sites: puts a frame into each element with `data-allocator`, as high as its content.
 *
 * Runs among the scripts of others: no global names, no style sheet. Without it, the link in the element stays.
 */
(() => {
  const { currentScript } = document;
  if (!(currentScript instanceof HTMLScriptElement)) return;
  const { origin } = new URL(currentScript.src);
  const FIRST_HEIGHT_PX = 720;
  const MAX_HEIGHT_PX = 20_000;

  /** @param {HTMLElement} element */
  function show(element) {
    const { allocator, lang, theme } = element.dataset;
    if (!allocator || element.querySelector("iframe")) return;
    const url = new URL(`/embed/budgets/${encodeURIComponent(allocator)}/results`, origin);
    if (lang) url.searchParams.set("lang", lang);
    if (theme) url.searchParams.set("theme", theme);
    const frame = document.createElement("iframe");
    frame.title = (element.textContent ?? "").trim() || allocator;
    frame.loading = "lazy";
    frame.width = "100%";
    frame.height = String(FIRST_HEIGHT_PX);
    frame.style.border = "0";
    frame.src = url.href;
    element.replaceChildren(frame);
  }

  const showAll = () => /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll("[data-allocator]")).forEach(show);

  addEventListener("message", ({ data, origin: from, source }) => {
    if (from !== origin || data?.type !== "allocator:height" || !(data.height > 0)) return;
    for (const frame of /** @type {NodeListOf<HTMLIFrameElement>} */ (document.querySelectorAll("[data-allocator] > iframe"))) {
      if (frame.contentWindow === source) frame.style.height = `${Math.min(Math.ceil(data.height), MAX_HEIGHT_PX)}px`;
    }
  });
  showAll();
  if (document.readyState === "loading") addEventListener("DOMContentLoaded", showAll);
})();
