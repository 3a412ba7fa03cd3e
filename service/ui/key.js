// Why a key is needed in, the key that a person types out: a small dialog, one at a time.

import { element, sentence } from './dom.js';

let asking = null;

/** The key, or '' where the person would rather not; whoever asks meanwhile gets the same answer. */
export function askForKey(reason) {
  asking ??= dialog(reason).finally(() => {
    asking = null;
  });
  return asking;
}

function dialog(reason) {
  return new Promise((resolve) => {
    const input = element('input', { type: 'password', id: 'key', name: 'key', autocomplete: 'off', spellcheck: false });
    const form = element('form', { method: 'dialog' }, [
      element('h2', { id: 'key-title' }, ['This server asks for a key']),
      element('p', {}, [sentence(reason)]),
      element('label', { for: 'key' }, ['API key']),
      input,
      element('p', { class: 'quiet' }, ['It is kept in this tab only, until you close it.']),
      element('div', { class: 'row end' }, [
        element('button', { type: 'button', class: 'plain', onclick: () => box.close('') }, ['Cancel']),
        element('button', { type: 'submit', class: 'primary' }, ['Use this key']),
      ]),
    ]);
    form.addEventListener('submit', (event) => {
      event.preventDefault();
      box.close(input.value.trim());
    });
    const box = element('dialog', { class: 'ask', 'aria-labelledby': 'key-title' }, [form]);
    box.addEventListener('close', () => {
      box.remove();
      resolve(box.returnValue);
    });
    document.body.append(box);
    box.showModal();
  });
}
