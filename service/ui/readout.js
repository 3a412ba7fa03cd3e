// What is under the pointer in, a small label beside it out: the class, and how sure the net is.

import { element, percent } from './dom.js';

const AWAY = 14; // pixels from the pointer

/** The label that follows the pointer over the stage. */
export class Readout {
  constructor(label, spoken, stage) {
    Object.assign(this, { label, spoken, stage, last: null });
    this.refused = new WeakSet(); // results that are not to be had again: not asked for with every move
  }

  /** Show what `results` say of a pixel; where they do not know how sure they are, they are asked for it. */
  show(info, results) {
    this.last = info && results.length > 0 ? { info, results } : null;
    this.draw();
    for (const result of this.last?.results ?? []) {
      if (result.levels || this.refused.has(result)) continue;
      result.confidence().then((levels) => levels && this.draw(), () => this.refused.add(result));
    }
  }

  hide() {
    this.show(null, []);
  }

  draw() {
    this.label.hidden = this.last === null;
    if (this.last === null) return;
    const { info, results } = this.last;
    const seen = results.map((result) => ({ ...result.at(...info.pixel), model: result.model.name }));
    this.label.replaceChildren(...seen.map((one) => line(one, results.length > 1)));
    this.place(info.place);
    if (info.byKey) this.spoken.textContent = seen.map((one) => words(one, results.length > 1)).join('; ');
  }

  place([x, y]) {
    const { clientWidth, clientHeight } = this.stage;
    const { offsetWidth, offsetHeight } = this.label;
    const left = x + AWAY + offsetWidth > clientWidth ? x - AWAY - offsetWidth : x + AWAY;
    const top = y + AWAY + offsetHeight > clientHeight ? y - AWAY - offsetHeight : y + AWAY;
    this.label.style.transform = `translate(${Math.max(0, left)}px, ${Math.max(0, top)}px)`;
  }
}

function line({ spec, confidence, model }, named) {
  const swatch = element('span', { class: 'swatch' });
  swatch.style.backgroundColor = spec.color;
  const sure = confidence === null ? [] : [element('span', { class: 'sure' }, [`${percent(confidence)} sure`])];
  const whose = named ? [element('span', { class: 'whose' }, [model])] : [];
  return element('div', {}, [swatch, element('strong', {}, [spec.name]), ...sure, ...whose]);
}

function words({ spec, confidence, model }, named) {
  const sure = confidence === null ? '' : `, ${percent(confidence)} sure`;
  return `${named ? `${model}: ` : ''}${spec.name}${sure}`;
}
