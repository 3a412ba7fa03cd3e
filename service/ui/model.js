// The model that the address names in, its page out: what it is, how it is built, how good and how fast it is here.

import { call, model, models } from './api.js';
import { byId, element } from './dom.js';
import { classes, inputs, proof, speed } from './facts.js';
import { rendered } from './markdown.js';
import { structured } from './structure.js';

const NOT_FOR_TRADE = /(^|[^a-z])nc([^a-z]|$)|non-?commercial|research/i;

start();

async function start() {
  try {
    const all = await models();
    const asked = new URLSearchParams(location.search).get('model');
    const name = asked ?? (all.find((one) => one.default) ?? all[0])?.name;
    offer(all, name);
    if (name === undefined) return tell('This server has no models yet: put a bundle into its model folder.');
    await show(name);
  } catch (problem) {
    tell(problem.detail ?? String(problem), true);
  }
}

/** Fill the list of models; choosing one opens its page. */
function offer(all, name) {
  const known = all.map((one) => one.name);
  const names = name === undefined || known.includes(name) ? known : [...known, name];
  const select = byId('model');
  select.replaceChildren(...names.map((one) => element('option', { value: one, selected: one === name }, [one])));
  select.disabled = names.length < 2;
  select.onchange = () => location.assign(`?model=${encodeURIComponent(select.value)}`);
}

async function show(name) {
  const path = `models/${encodeURIComponent(name)}`;
  const [about, structure, drawing, card] = await Promise.all([
    model(name),
    call(`${path}/structure`).then((answer) => answer.json()),
    call(`${path}/structure.svg`).then((answer) => answer.text()),
    call(`${path}/card`).then((answer) => answer.text()).catch(withoutCard),
  ]);
  document.title = `${about.name}: segserve`;
  byId('main').replaceChildren(
    opening(about),
    structured(structure, drawing),
    element('div', { class: 'pair' }, [
      classes(about),
      element('div', { class: 'stack' }, [proof(about), speed(about), inputs(about)]),
    ]),
    carded(card),
  );
  byId('main').removeAttribute('aria-busy');
}

function withoutCard(problem) {
  if (problem.code === 'unknown-card') return null;
  throw problem;
}

/** Name, what it is, and what it may be used for. */
function opening(about) {
  const chips = [`version ${about.version}`, about.default && 'default', about.proved ? 'proved' : 'not proved'];
  return element('section', { class: 'opening', 'aria-labelledby': 'name' }, [
    element('h1', { id: 'name' }, [about.name]),
    element('ul', { class: 'chips', 'aria-label': 'In short' }, chips.filter(Boolean).map((chip) => element('li', {}, [chip]))),
    about.description && element('p', { class: 'lead' }, [about.description]),
    licence(about.license),
    element('p', { class: 'quiet', id: 'versions' }, [`Versions on this server: ${about.versions.join(', ')}`]),
  ].filter(Boolean));
}

function licence(id) {
  if (!NOT_FOR_TRADE.test(id)) return element('p', { class: 'quiet' }, [`Licence: ${id}`]);
  return element('p', { class: 'warning' }, [
    element('strong', {}, ['Not for commercial use.']),
    ` The licence is ${id}: the terms of its training data hold for the weights too. `,
    'The bundle\'s LICENSE says what is allowed.',
  ]);
}

function carded(text) {
  const content = text === null ? [element('p', { class: 'quiet' }, ['This model came without a card.'])] : rendered(text);
  return element('section', { 'aria-labelledby': 'card' }, [
    element('h2', { id: 'card' }, ['Model card']),
    element('div', { class: 'panel prose' }, content),
  ]);
}

/** A message in place of the page; with the way out where trying again may help. */
function tell(text, again = false) {
  const children = [element('p', { id: 'state', class: 'state', role: again ? 'alert' : 'status' }, [text])];
  if (again) children.push(element('button', { type: 'button', class: 'primary', onclick: () => location.reload() }, ['Try again']));
  byId('main').replaceChildren(element('div', { class: 'told' }, children));
  byId('main').removeAttribute('aria-busy');
}
