// A model's classes and their shares in, a list with bars out, in which each class can be shown, hidden, or shown alone.

import { element, percent } from './dom.js';

const MANY = 8; // classes from which on a filter helps

/** The list of classes; `onChange` hears when what is shown changes. */
export class Classes {
  constructor({ list, absent, fold, filter, all, none }, onChange) {
    Object.assign(this, { list, absent, fold, filter, onChange });
    this.hidden = new Set(); // names: they mean the same in every model
    this.rows = new Map();
    this.isShown = (spec) => !this.hidden.has(spec.name);
    all.addEventListener('click', () => this.setListed(true));
    none.addEventListener('click', () => this.setListed(false));
    filter.addEventListener('input', () => this.applyFilter());
  }

  /** Another model: its classes in their order, without shares. */
  setModel(model) {
    this.model = model;
    this.rows = new Map(model.classes.map((spec) => [spec.id, this.row(spec)]));
    this.list.replaceChildren(...[...this.rows.values()].map((row) => row.item));
    this.absent.replaceChildren();
    this.fold.hidden = true;
    this.filter.hidden = model.classes.length <= MANY;
    this.filter.value = '';
    this.reflect();
  }

  /** The shares of a result, the largest first; with `keepOrder` the rows that are listed stay where they are, and
   *  classes that were absent follow them. */
  setShares(shares, keepOrder = false) {
    const top = shares[0]?.share || 1;
    for (const { spec, share } of shares) {
      const row = this.rows.get(spec.id);
      row.share.textContent = percent(share);
      row.bar.style.width = `${(100 * share) / top}%`;
      row.item.classList.toggle('gone', share === 0);
    }
    const items = (wanted) => shares.filter(wanted).map(({ spec }) => this.rows.get(spec.id).item);
    const present = items(({ share }) => share > 0);
    if (keepOrder) {
      this.list.append(...present.filter((item) => !this.list.contains(item))); // which takes them from the absent
    } else {
      this.list.replaceChildren(...present);
      this.absent.replaceChildren(...items(({ share }) => share === 0));
    }
    const missing = this.absent.childElementCount;
    this.fold.hidden = missing === 0;
    this.fold.querySelector('summary').textContent = `${missing} not in this picture`;
  }

  row(spec) {
    const box = element('input', { type: 'checkbox', checked: true, onchange: () => this.set(spec, box.checked) });
    const swatch = element('span', { class: 'swatch', 'aria-hidden': 'true' });
    swatch.style.backgroundColor = spec.color;
    const share = element('span', { class: 'share' });
    const bar = element('span', { class: 'fill' });
    bar.style.backgroundColor = spec.color;
    const only = element('button', {
      type: 'button', class: 'only', 'aria-label': `Only ${spec.name}`, onclick: () => this.showOnly(spec),
    }, ['only']);
    const name = element('span', { class: 'name' }, [spec.name]);
    const note = spec.draw ? [] : [element('span', { class: 'quiet' }, ['(background)'])];
    const label = element('label', {}, [box, swatch, name, ...note]);
    const track = element('span', { class: 'bar', 'aria-hidden': 'true' }, [bar]);
    return { spec, box, share, bar, only, item: element('li', { 'data-class': spec.id }, [label, only, share, track]) };
  }

  set(spec, shown) {
    if (shown) this.hidden.delete(spec.name);
    else this.hidden.add(spec.name);
    this.reflect();
    this.onChange();
  }

  /** That class and no other; a second time: all. */
  showOnly(spec) {
    const others = this.model.classes.filter((other) => other !== spec);
    const alone = this.isShown(spec) && others.every((other) => !this.isShown(other));
    this.hidden = new Set(alone ? [] : others.map((other) => other.name));
    this.reflect();
    this.onChange();
  }

  /** Show or hide every class that the filter lets through. */
  setListed(shown) {
    for (const { spec, item } of this.rows.values()) {
      if (item.hidden) continue;
      if (shown) this.hidden.delete(spec.name);
      else this.hidden.add(spec.name);
    }
    this.reflect();
    this.onChange();
  }

  applyFilter() {
    const words = this.filter.value.toLowerCase().split(/[\s,]+/).filter(Boolean);
    for (const { spec, item } of this.rows.values()) {
      item.hidden = words.length > 0 && !words.some((word) => spec.name.toLowerCase().includes(word));
    }
    if (words.length > 0) this.fold.open = true;
  }

  reflect() {
    const shown = this.model.classes.filter(this.isShown);
    for (const { spec, box, item, only } of this.rows.values()) {
      box.checked = this.isShown(spec);
      item.classList.toggle('off', !box.checked);
      only.setAttribute('aria-pressed', shown.length === 1 && shown[0] === spec);
    }
  }
}
