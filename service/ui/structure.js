// A net's structure, as the service tells it, and its drawing in; the section that shows both out.

import { element } from './dom.js';

const PARTS = { encoder: 'Encoder', deepest: 'Deepest', decoder: 'Decoder' };
const HOW = { indices: 'pool indices', added: 'added', concatenated: 'concatenated', multiplied: 'multiplied' };

/** The sentence, the drawing, and the same as tables. */
export function structured(structure, drawing) {
  const tables = structure.problem === null ? [stages(structure), passes(structure)] : [operators(structure)];
  return element('section', { 'aria-labelledby': 'structure' }, [
    element('h2', { id: 'structure' }, ['Structure']),
    element('p', { class: 'lead', id: 'summary' }, [structure.summary]),
    figure(structure, drawing),
    element('details', { class: 'panel', id: 'stages' }, [element('summary', {}, ['The same as a table']), ...tables]),
  ]);
}

function figure(structure, drawing) {
  const [, width, height] = /<svg[^>]* width="(\d+)" height="(\d+)"/.exec(drawing) ?? [null, 800, 400];
  const url = URL.createObjectURL(new Blob([drawing], { type: 'image/svg+xml' }));
  const alt = `Drawing. ${structure.summary} The table below lists it all.`;
  const image = element('img', { id: 'drawing', src: url, width, height, alt });
  image.style.maxWidth = `${width}px`;
  image.addEventListener('load', () => URL.revokeObjectURL(url), { once: true });
  const scrolled = { class: 'panel drawing', tabindex: '0', role: 'region', 'aria-label': 'Drawing of the structure' };
  return element('div', scrolled, [image]);
}

function stages(structure) {
  const { width, height } = structure.input;
  return table(
    `Stages, for an input of ${width} × ${height} pixels`,
    ['Stage', 'Scale', 'Size', 'Channels', 'Comes by', 'Layers'],
    structure.stages.map((stage, index) => [
      `${index + 1}. ${PARTS[stage.part]}`,
      stage.scale,
      stage.width === null ? 'unknown' : `${stage.width} × ${stage.height}`,
      stage.channels ?? 'unknown',
      stage.by.join(', ') || 'the picture itself',
      layers(stage.layers),
    ]),
  );
}

function layers(counts) {
  const words = Object.entries(counts).map(([kind, count]) => `${count} ${kind}${kind === 'linear' || count === 1 ? '' : 's'}`);
  return words.join(', ') || 'none';
}

function passes(structure) {
  if (!structure.passes.length) return element('p', { class: 'quiet' }, ['Nothing is passed across from encoder to decoder.']);
  return table(
    'Passed across',
    ['From stage', 'To stage', 'What', 'Channels', 'Layers on the way'],
    structure.passes.map((one) => [
      one.from + 1,
      one.to + 1,
      HOW[one.how] + (one.maps > 1 ? ` (${one.maps} maps)` : ''),
      one.channels ?? 'unknown',
      one.layers || 'none',
    ]),
  );
}

function operators(structure) {
  return table('What the graph consists of', ['Operator', 'How many'], Object.entries(structure.operators));
}

/** A table with a caption, which scrolls sideways where it has no room. */
export function table(caption, heads, rows) {
  return element('div', { class: 'wide', tabindex: '0', role: 'region', 'aria-label': caption }, [
    element('table', {}, [
      element('caption', {}, [caption]),
      element('thead', {}, [element('tr', {}, heads.map((head) => element('th', { scope: 'col' }, [head])))]),
      element('tbody', {}, rows.map(([first, ...rest]) => element('tr', {}, [
        element('th', { scope: 'row' }, [String(first)]),
        ...rest.map((cell) => element('td', {}, [cell instanceof Node ? cell : String(cell)])),
      ]))),
    ]),
  ]);
}
