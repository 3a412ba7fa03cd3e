// What the service says of a model in, the page's sections with its figures out.

import { element } from './dom.js';
import { table } from './structure.js';

/** The classes: colour, id, name, and how well each is found. */
export function classes(about) {
  const iou = about.metrics.iou ?? {};
  const measured = about.classes.some((one) => one.name in iou);
  const rows = about.classes.map((one) => element('li', {}, [
    swatch(one.color),
    element('span', { class: 'id' }, [String(one.id)]),
    element('span', { class: 'word' }, [one.name, note(one, about)].filter(Boolean)),
    measured && bar(iou[one.name]),
  ].filter(Boolean)));
  return panel('classes', 'Classes', [
    overall(about.metrics),
    element('ul', { class: measured ? 'palette measured' : 'palette' }, rows),
    element('p', { class: 'quiet' }, [ignored(about)]),
  ]);
}

function swatch(color) {
  const made = element('span', { class: 'swatch', title: color });
  made.style.backgroundColor = color;
  return made;
}

function note(one, about) {
  const notes = [!one.draw && 'not tinted', about.ignore.includes(one.id) && 'not scored'].filter(Boolean);
  return notes.length ? element('span', { class: 'quiet' }, [` (${notes.join(', ')})`]) : null;
}

function bar(value) {
  if (typeof value !== 'number') return element('span', { class: 'bar quiet' }, ['not measured']);
  const fill = element('span', { class: 'fill' });
  fill.style.width = `${100 * value}%`;
  return element('span', { class: 'bar' }, [
    element('span', { class: 'track', 'aria-hidden': 'true' }, [fill]),
    element('span', { class: 'value' }, [element('span', { class: 'unseen' }, ['IoU ']), percent(value)]),
  ]);
}

function overall(metrics) {
  if (typeof metrics.miou !== 'number') return element('p', { class: 'quiet' }, ['Nobody has measured how well it segments.']);
  return element('div', { class: 'overall' }, [
    element('p', { class: 'figure' }, [element('strong', { id: 'miou' }, [percent(metrics.miou)]), ' mean IoU']),
    typeof metrics.protocol === 'string' && element('p', { class: 'quiet' }, [metrics.protocol]),
  ].filter(Boolean));
}

function ignored(about) {
  const others = about.ignore.filter((id) => id >= about.classes.length);
  return others.length ? `Left out of scoring: label ${others.join(', ')}.` : 'Beside each class: its id, the value of its pixels in a mask.';
}

/** How the graph in use was compared with the net that was trained. */
export function proof({ check, proved }) {
  if (!check) return panel('proof', 'Proof', [element('p', {}, ['Nobody has compared this graph with the net that it was made from.'])]);
  const versions = Object.entries(check.versions).map(([name, version]) => `${name} ${version}`).join(', ');
  return panel('proof', 'Proof', [
    element('p', {}, [
      element('strong', { id: 'agreement' }, [`${(100 * check.argmax_agreement).toFixed(4)} %`]),
      ` of the pixels of ${check.images} picture${check.images === 1 ? '' : 's'} get the class that the original gives.`,
    ]),
    facts([
      ['Sizes', check.sizes.map(([height, width]) => `${width} × ${height}`).join(', ')],
      ['Largest difference of a score', check.max_abs_diff.toPrecision(3)],
      ['Versions', versions],
      ['Golden picture', proved ? 'answered right when this server opened the model' : 'none'],
      ['To be known', check.warnings.join('; ')],
    ]),
  ]);
}

/** What each variant takes on this machine. */
export function speed(about) {
  const trials = new Map(about.trials.map((trial) => [trial.id, trial]));
  const rows = about.variants.map((one) => [
    one.id,
    one.precision,
    one.lowering,
    one.providers.join(', '),
    taken(trials.get(one.id)),
    one.id === about.variant ? 'in use' : trials.get(one.id)?.refused ? 'refused' : trials.has(one.id) ? 'slower' : 'not tried',
  ]);
  const refusals = about.trials.filter((trial) => trial.refused);
  return panel('speed', 'Speed on this machine', [
    table('Variants of the net, and the time that its golden picture takes', ['Variant', 'Precision', 'Unpooling', 'Runs on', 'Time', ''], rows),
    ...refusals.map((trial) => element('p', { class: 'quiet' }, [`${trial.id} is refused: ${withoutFolders(trial.refused)}`])),
  ]);
}

function taken(trial) {
  return typeof trial?.ms === 'number' ? `${trial.ms.toFixed(1)} ms` : 'not measured';
}

/** A reason without the folders of the machine that it came up on. */
function withoutFolders(text) {
  return text.replace(/(^|\s)\S*\//g, '$1');
}

/** How a picture becomes what the net takes. */
export function inputs({ input }) {
  const sides = input.width === null ? `any, in steps of ${input.multiple_of}` : `${input.width} × ${input.height}`;
  return panel('input', 'Input', [facts([
    ['Size', sides],
    ['Fit', { stretch: 'stretched to that size', letterbox: 'padded to that shape', native: 'the picture\'s own size', tile: 'in tiles of that size' }[input.fit]],
    ['Values', `${input.channels}, ${scaled(input)}`],
  ])]);
}

/** What becomes of a colour's value, as a formula. */
function scaled({ scale, mean, std }) {
  const [means, stds] = [mean, std].map((values) => (new Set(values).size === 1 ? String(values[0]) : `(${values.join(', ')})`));
  const shifted = means === '0' ? `value / ${scale}` : `(value / ${scale} − ${means})`;
  return stds === '1' ? shifted : `${shifted} / ${stds}`;
}

function facts(rows) {
  const shown = rows.filter(([, value]) => value);
  return element('dl', {}, shown.flatMap(([name, value]) => [element('dt', {}, [name]), element('dd', {}, [value])]));
}

function panel(id, title, children) {
  return element('section', { class: 'panel', 'aria-labelledby': id }, [element('h2', { id }, [title]), ...children]);
}

function percent(value) {
  return `${(100 * value).toFixed(1)} %`;
}
