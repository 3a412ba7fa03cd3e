// A text in Markdown in, elements out: headings, paragraphs, lists, tables, code, emphasis, links; anything else is text.
// No text becomes HTML, whoever wrote it.

import { element } from './dom.js';

const INLINE = /`([^`]+)`|\*\*([^*]+)\*\*|\*([^*\s][^*]*)\*|\[([^\]]+)\]\(([^)\s]+)\)/g;
const ITEM = /^\s*(?:[-*+]|\d+[.)])\s+/;
const HEADING = /^(#{1,6})\s+(.*?)\s*#*$/;
const RULE = /^\s*(?:-\s*){3,}$|^\s*(?:\*\s*){3,}$/;
const DIVIDER = /^\s*\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)*\|?\s*$/;

/** The elements that a text stands for; its headings begin at `level`. */
export function rendered(text, level = 3) {
  const lines = text.replace(/\r\n?/g, '\n').split('\n');
  const made = [];
  while (lines.length) {
    if (!lines[0].trim()) lines.shift();
    else made.push(block(lines, level));
  }
  return made;
}

/** Takes the lines of the next block away, and gives its element. */
function block(lines, level) {
  const [first] = lines;
  if (/^\s*```/.test(first)) return fence(lines);
  const heading = HEADING.exec(first);
  if (heading) {
    lines.shift();
    return element(`h${Math.min(6, heading[1].length + level - 1)}`, {}, inline(heading[2]));
  }
  if (RULE.test(first)) {
    lines.shift();
    return element('hr');
  }
  if (first.includes('|') && lines.length > 1 && lines[1].includes('-') && DIVIDER.test(lines[1])) return table(lines);
  if (ITEM.test(first)) return list(lines);
  if (/^\s*>/.test(first)) return quote(lines, level);
  return element('p', {}, inline(taken(lines, (line) => line.trim() && !starts(line)).map((line) => line.trim()).join(' ')));
}

/** The lines from the first on, as long as they fit; at least one. */
function taken(lines, fits) {
  const found = [lines.shift()];
  while (lines.length && fits(lines[0])) found.push(lines.shift());
  return found;
}

function starts(line) {
  return HEADING.test(line) || ITEM.test(line) || /^\s*(```|>)/.test(line) || RULE.test(line);
}

function fence(lines) {
  lines.shift();
  const found = [];
  while (lines.length && !/^\s*```/.test(lines[0])) found.push(lines.shift());
  lines.shift();
  return element('pre', { tabindex: '0', role: 'region', 'aria-label': 'Code' }, [element('code', {}, [found.join('\n')])]);
}

function list(lines) {
  const ordered = /^\s*\d/.test(lines[0]);
  const items = [];
  while (lines.length && lines[0].trim() && (ITEM.test(lines[0]) || /^\s+\S/.test(lines[0]))) {
    const line = lines.shift();
    if (ITEM.test(line)) items.push(line.replace(ITEM, ''));
    else items.push(`${items.pop()} ${line.trim()}`);
  }
  return element(ordered ? 'ol' : 'ul', {}, items.map((item) => element('li', {}, inline(item))));
}

function quote(lines, level) {
  const inner = taken(lines, (line) => /^\s*>/.test(line)).map((line) => line.replace(/^\s*> ?/, ''));
  return element('blockquote', {}, rendered(inner.join('\n').replace(/^\s*>+/gm, ''), level));
}

function table(lines) {
  const [head, , ...rows] = taken(lines, (line) => line.includes('|')).map(cells);
  const body = rows.map((row) => element('tr', {}, row.map((cell) => element('td', {}, inline(cell)))));
  const made = element('table', {}, [
    element('thead', {}, [element('tr', {}, head.map((cell) => element('th', { scope: 'col' }, inline(cell))))]),
    element('tbody', {}, body),
  ]);
  return element('div', { class: 'wide', tabindex: '0', role: 'region', 'aria-label': 'Table' }, [made]);
}

function cells(line) {
  return line.trim().replace(/^\||\|$/g, '').split('|').map((cell) => cell.trim());
}

function inline(text) {
  const made = [];
  let end = 0;
  for (const match of text.matchAll(INLINE)) {
    const [whole, code, strong, emphasis, label, target] = match;
    made.push(text.slice(end, match.index), code !== undefined ? element('code', {}, [code])
      : strong !== undefined ? element('strong', {}, [strong])
        : emphasis !== undefined ? element('em', {}, [emphasis]) : link(label, target));
    end = match.index + whole.length;
  }
  return [...made, text.slice(end)].filter((part) => part !== '');
}

/** A link to another site; to anything else it leads nowhere, and is its text. */
function link(label, target) {
  return /^https?:\/\//i.test(target) ? element('a', { href: target, rel: 'noopener noreferrer' }, [label]) : label;
}
