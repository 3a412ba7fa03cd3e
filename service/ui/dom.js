// A tag's name, its attributes and children in, the element out; with the few other things pages need to write themselves.

/** An element; attributes named on... are listeners, false and null are left away, strings become text. */
export function element(tag, attributes = {}, children = []) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith('on')) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, '');
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

/** The element of that id. */
export function byId(id) {
  return document.getElementById(id);
}

/** 0.2934 -> '29 %', 0.034 -> '3.4 %', 0.0001 -> '< 0.1 %'. */
export function percent(fraction) {
  if (fraction > 0 && fraction < 0.001) return '< 0.1 %';
  return `${(100 * fraction).toFixed(fraction < 0.0995 && fraction > 0 ? 1 : 0)} %`;
}

/** Text with a capital at its beginning and a full stop at its end. */
export function sentence(text) {
  const trimmed = text.trim();
  return trimmed.charAt(0).toUpperCase() + trimmed.slice(1) + (/[.!?]$/.test(trimmed) ? '' : '.');
}
