// The models of the server in, the one that looks and the one it is compared with out.

import { models, Problem } from './api.js';
import { byId } from './dom.js';

/** The lists of models. `onModel` and `onOther` hear of a choice. */
export class Picker {
  constructor({ onModel, onOther }) {
    Object.assign(this, { all: [], model: null, other: null, onModel, onOther });
    byId('model').addEventListener('change', (event) => this.choose(event.target.value));
    byId('other').addEventListener('change', (event) => this.compareWith(event.target.value));
  }

  /** Ask the server for its models; the one chosen before stays; the page's address may name
   *  the first, `?model=NAME`. Throws a Problem. */
  async load() {
    this.all = await models();
    if (this.all.length === 0) throw new Problem(503, '', 'This server has no model that is ready: its /health/ready says why.');
    const names = this.all.map(({ name }) => name);
    const asked = this.model?.name ?? new URLSearchParams(location.search).get('model');
    const first = names.includes(asked) ? asked : (this.all.find((one) => one.default) ?? this.all[0]).name;
    byId('model').replaceChildren(...names.map((name) => new Option(name, name, false, name === first)));
    byId('model').disabled = false;
    this.choose(first);
  }

  choose(name) {
    this.model = this.all.find((one) => one.name === name);
    byId('license').textContent = this.model.license ? `Licence: ${this.model.license}` : '';
    byId('about').href = `ui/model.html?model=${encodeURIComponent(name)}`;
    const others = this.all.filter((one) => one !== this.model);
    if (!others.includes(this.other)) this.other = null;
    byId('versus').hidden = others.length === 0;
    byId('other').replaceChildren(new Option('the picture', ''), ...others.map((one) => new Option(one.name, one.name)));
    byId('other').value = this.other?.name ?? '';
    this.allowMarks();
    this.onModel();
  }

  compareWith(name) {
    this.other = this.all.find((one) => one.name === name) ?? null;
    byId('marks').checked = this.other !== null;
    this.allowMarks();
    this.onOther();
  }

  allowMarks() {
    byId('marks').disabled = this.other === null;
    if (this.other === null) byId('marks').checked = false;
  }
}
