/**
 * Building the page's elements.
 *
 * Text always goes in as text nodes, never as markup: what callers say is shown, not interpreted.
 * Styles are set through the CSSOM, so a strict content security policy holds.
 */

/**
 * Create an element.
 *
 * @param {string} tag
 * @param {Object<string, string|number|boolean|null|undefined>} attributes null, undefined and false leave one out.
 * @param {...(Node|string|null)} children
 * @returns {HTMLElement}
 */
export function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.filter((child) => child !== null && child !== ""));
  return node;
}

/** The page's element with this id; a missing one is a fault of the page, so it throws. */
export function byId(id) {
  const node = document.getElementById(id);
  if (node === null) throw new Error(`index.html has no #${id}`);
  return node;
}

/** Show `text` in `node`, or hide the node when there is none. */
export function showText(node, text) {
  const next = text ?? "";
  if (node.textContent !== next) node.textContent = next;
  node.hidden = next === "";
}

/** 75 -> "1:15". Takes seconds; anything that is not a time gives "". */
export function clockText(seconds) {
  if (!Number.isFinite(seconds) || seconds < 0) return "";
  const whole = Math.floor(seconds);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}
