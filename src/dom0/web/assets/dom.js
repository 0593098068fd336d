// Elements from text, and one tree of them made into another. Nothing from outside is ever markup: no innerHTML here.

const SVG = "http://www.w3.org/2000/svg";
const SVG_NAMES = ["svg", "g", "path", "rect", "text"];

/** An element: h("td.name", {title: "…"}, "text", other). Attributes that are null or false are left out. */
export function h(what, attributes, ...children) {
  const [name, ...classes] = what.split(".");
  const svg = SVG_NAMES.includes(name);
  const element = svg ? document.createElementNS(SVG, name) : document.createElement(name);
  if (classes.length) element.setAttribute("class", classes.join(" "));
  for (const [key, value] of Object.entries(attributes ?? {})) {
    if (value !== null && value !== undefined && value !== false) element.setAttribute(key, value === true ? "" : value);
  }
  for (const child of children.flat(9)) {
    if (child !== null && child !== undefined && child !== false) {
      element.append(child instanceof Node ? child : visible(String(child)));
    }
  }
  return element;
}

// Controls, and what changes the direction of text: a name must not be able to rearrange what stands beside it.
const UNSEEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;

export function visible(text) {
  return text.replace(UNSEEN, (one) => `\\u${one.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

/** What a terminal would make of colours and the like: nothing. */
export function withoutColours(text) {
  return text.replace(/\u001b\[[0-9;:?]*[ -/]*[@-~]/g, "").replace(/\r$/, "");
}

const recipes = new WeakMap(); // element -> what it was made of, and how

/** What `make()` returns, an element of that name and key, which is made again only when a value of `of` is another one. */
export function keep(name, key, of, make) {
  const place = h(name, { "data-key": key });
  recipes.set(place, { of, make: () => { const made = make(); made.setAttribute("data-key", key); return made; } });
  return place;
}

/** With all in it that is still to be made. */
function complete(fresh) {
  const recipe = recipes.get(fresh);
  if (recipe) {
    const made = complete(recipe.make());
    recipes.set(made, recipe);
    return made;
  }
  for (const one of fresh.querySelectorAll?.("[data-key]") ?? []) if (recipes.has(one)) one.replaceWith(complete(one));
  return fresh;
}

const KEPT = ["open", "data-copied"]; // attributes: set by what a person does

/** Make `old` like `fresh` and keep what is alike: the focus, a selection, and what is scrolled stay where they are. */
export function patch(old, fresh) {
  if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName || key(old) !== key(fresh)) {
    const whole = complete(fresh);
    old.replaceWith(whole);
    return whole;
  }
  const [before, recipe] = [recipes.get(old), recipes.get(fresh)];
  if (recipe && before?.of.every((value, index) => value === recipe.of[index])) return old;
  if (recipe) {
    recipes.set(old, recipe);
    fresh = recipe.make();
  } else recipes.delete(old);
  if (old.nodeType === Node.TEXT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
    return old;
  }
  for (const { name } of [...old.attributes]) {
    if (!fresh.hasAttribute(name) && !KEPT.includes(name)) old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (old.getAttribute(name) !== value && !KEPT.includes(name)) old.setAttribute(name, value);
  }
  if (old.nodeName === "OPTION") old.selected = fresh.hasAttribute("selected"); // a person's choice outlasts the attribute
  if (!old.hasAttribute("data-own")) patchChildren(old, [...fresh.childNodes]);
  return old;
}

function patchChildren(parent, fresh) {
  const wanted = new Set(fresh.map(key));
  for (const node of [...parent.childNodes]) if (key(node) && !wanted.has(key(node))) node.remove(); // before what stays would have to move past it
  const keyed = new Map([...parent.childNodes].filter(key).map((node) => [key(node), node]));
  let at = parent.firstChild;
  for (const one of fresh) {
    const known = key(one) && keyed.get(key(one));
    if (known && known.nodeName === one.nodeName) {
      keyed.delete(key(one)); // a second one of the same key is another one
      if (known === at) at = at.nextSibling;
      else parent.insertBefore(known, at);
      patch(known, one);
    } else if (at && !key(at) && !key(one)) {
      const next = at.nextSibling;
      patch(at, one);
      at = next;
    } else {
      parent.insertBefore(complete(one), at);
    }
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

function key(node) {
  return node.nodeType === Node.ELEMENT_NODE ? node.getAttribute("data-key") ?? "" : "";
}
