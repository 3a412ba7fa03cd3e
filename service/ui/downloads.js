// What is on the screen in; a file for each view, and the lines of code for it, out.

import { key, root } from './api.js';
import { curl, fileName, optionsOf, python, VIEWS } from './code.js';
import { element } from './dom.js';

const WHAT = {
  overlay: 'The picture, tinted by class',
  mask: 'Grey PNG: a pixel is its class id',
  color: 'PNG with the palette: index is the class id',
  confidence: 'Grey PNG: 255 is certain',
  json: 'Classes, shares, boxes, confidence',
  rle: 'Run lengths, as COCO has them',
  polygons: 'Outlines with holes, in pixels',
  geojson: 'Outlines for maps',
  zip: 'A PNG for each class',
};

/** The buttons that save views, and the code. `state()` says what is on the screen, `onProblem` hears of errors. */
export class Downloads {
  constructor({ list, code, tabs, copy }, state, onProblem) {
    Object.assign(this, { list, code, tabs, copy, state, onProblem });
    this.buttons = [...VIEWS].sort((one, other) => order(one) - order(other)).map((view) => this.button(view));
    list.replaceChildren(...this.buttons.map(({ item }) => item));
    for (const tab of tabs) tab.addEventListener('change', () => this.refresh());
    copy.addEventListener('click', () => this.copyCode());
  }

  /** Show what holds now. */
  refresh() {
    const { result, view } = this.state();
    for (const { button, view: own } of this.buttons) {
      const options = optionsOf(own, this.state());
      button.disabled = !result || options === null;
    }
    const language = [...this.tabs].find((tab) => tab.checked).value;
    this.code.textContent = this.lines(language, view);
  }

  lines(language, view) {
    const { file, model } = this.state();
    if (!model) return '';
    const options = optionsOf(view, this.state());
    const facts = { root, file: file ?? { name: 'photo.jpg', type: 'image/jpeg' }, view, model: model.name, options, withKey: key() !== '' };
    return language === 'curl' ? curl(facts) : python(facts);
  }

  button(view) {
    const button = element('button', { type: 'button', 'data-view': view, title: WHAT[view], disabled: true }, [view]);
    button.addEventListener('click', () => this.save(view, button));
    return { view, button, item: element('li', {}, [button]) };
  }

  async save(view, button) {
    const { result, file } = this.state();
    if (!result) return; // another picture has just been opened
    button.setAttribute('aria-busy', 'true');
    try {
      const blob = await result.view(view, optionsOf(view, this.state()));
      const url = URL.createObjectURL(blob);
      element('a', { href: url, download: fileName(file.name, view, blob.type) }).click();
      setTimeout(() => URL.revokeObjectURL(url), 60_000);
    } catch (problem) {
      this.onProblem(problem, () => this.save(view, button));
    } finally {
      button.removeAttribute('aria-busy');
    }
  }

  async copyCode() {
    try {
      await navigator.clipboard.writeText(this.code.textContent);
      this.copy.textContent = 'Copied';
    } catch {
      getSelection().selectAllChildren(this.code); // where the clipboard is not to be had: one key is left to press
      this.copy.textContent = 'Press Ctrl+C';
    }
    setTimeout(() => {
      this.copy.textContent = 'Copy';
    }, 1500);
  }
}

const order = (view) => Object.keys(WHAT).indexOf(view);
