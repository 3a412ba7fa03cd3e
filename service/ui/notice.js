// How far a picture is, and what went wrong with it, in; what people read, and the way out, out.

import { element, percent, sentence } from './dom.js';

const PATIENCE = 250; // milliseconds: what ends sooner needs no bar, and an animated one takes a core's time from it

/** The bar of progress and the notice that lie on the stage. */
export class Notice {
  constructor({ busy, progress, doing, notice }) {
    Object.assign(this, { busy, progress, doing, notice, own: null, timer: null });
  }

  /** Do one thing at a time, the last that was asked for; what goes wrong is told, with the ways out of it. */
  async attempt(work, waysOut) {
    this.stop();
    const own = new AbortController();
    this.own = own;
    try {
      await work(own.signal);
    } catch (problem) {
      if (!own.signal.aborted) this.tell(problem, waysOut(problem));
    } finally {
      if (this.own === own) this.idle();
    }
  }

  /** Give up what goes on, and forget what went wrong. What is hidden is left alone: to hide it again costs a frame. */
  stop() {
    this.own?.abort();
    this.idle();
    this.clear();
  }

  /** Work goes on: `share` of it is done (null: nobody knows). */
  working(text, share = null) {
    this.timer ??= setTimeout(() => {
      this.busy.hidden = false;
    }, PATIENCE);
    const shown = share === null ? text : `${text} ${percent(share)}`;
    this.doing.textContent = shown;
    if (share === null) this.progress.removeAttribute('value');
    else this.progress.value = share;
  }

  /** The work has ended. */
  idle() {
    clearTimeout(this.timer);
    this.timer = null;
    if (!this.busy.hidden) this.busy.hidden = true;
  }

  /** Say what went wrong; `actions` are [label, function] pairs. */
  tell(problem, actions) {
    const buttons = [...actions, ['Dismiss', () => {}]].map(([label, act], index) => element('button', {
      type: 'button',
      class: index === 0 && actions.length > 0 ? 'primary' : 'plain',
      onclick: () => {
        this.clear();
        act();
      },
    }, [label]));
    const text = element('p', {}, [sentence(problem.detail ?? `Something went wrong in this page: ${problem.message}`)]);
    this.notice.replaceChildren(text, element('div', { class: 'row' }, buttons));
    this.notice.hidden = false;
  }

  clear() {
    if (this.notice.hidden) return;
    this.notice.hidden = true;
    this.notice.replaceChildren();
  }
}
