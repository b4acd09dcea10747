// The form that appends one event.

import { $, count, el, millis, setText } from './dom.js';
import { publish } from './api.js';
import { inWords } from './sse.js';
import { topicProblem } from './pattern.js';
import { label, shownLine, shownName } from './shown.js';

export class Publisher {
  constructor() {
    const form = $('publish-form');
    form.addEventListener('submit', (event) => {
      event.preventDefault();
      this.#send();
    });
    form.addEventListener('keydown', (event) => {
      if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) {
        event.preventDefault();
        form.requestSubmit();
      }
    });
    // What became of one event is nothing that the next one is about.
    form.addEventListener('input', () => $('pub-result').replaceChildren());
    $('pub-body').addEventListener('input', () => this.#hint());
    $('pub-topic').addEventListener('input', ({ target }) => target.setCustomValidity(''));
  }

  suggest(topics) {
    if (document.activeElement === $('pub-topic')) return;
    const names = topics.slice(0, 200).map(({ topic }) => topic);
    const list = $('pub-topics');
    if (list.childElementCount === names.length) return;
    list.replaceChildren(...names.map((value) => el('option', { value, label: label(value) })));
  }

  #hint() {
    const body = $('pub-body').value.trim();
    if (!/^[{[]/.test(body)) return setText($('pub-json'), '');
    try {
      JSON.parse(body);
      setText($('pub-json'), 'valid JSON');
    } catch (error) {
      const [, line, column] = /line (\d+) column (\d+)/.exec(error.message) ?? [];
      const where = line ? `, from line ${line}, column ${column} on` : '';
      setText($('pub-json'), `not JSON${where}; it is sent as text`);
    }
    return undefined;
  }

  async #send() {
    const topic = $('pub-topic').value.trim();
    const problem = topicProblem(topic);
    if (problem) {
      $('pub-topic').setCustomValidity(`the topic ${problem}`);
      $('pub-topic').reportValidity();
      return;
    }
    const event = { topic, body: $('pub-body').value };
    for (const name of ['type', 'key', 'id']) {
      const value = $(`pub-${name}`).value.trim();
      if (value) event[name] = value;
    }
    const headers = {};
    for (const line of $('pub-headers').value.split('\n')) {
      const colon = line.indexOf(':');
      if (colon > 0) headers[line.slice(0, colon).trim()] = line.slice(colon + 1).trim();
      else if (line.trim()) return this.#say(false, `header without a colon: ${shownName(line.trim())}`);
    }
    if (Object.keys(headers).length > 0) event.headers = headers;
    $('pub-result').replaceChildren();
    const began = performance.now();
    try {
      const result = await publish(event);
      const took = millis((performance.now() - began) / 1000);
      const isDuplicate = Number(result.duplicates ?? 0) > 0;
      this.#say(true, isDuplicate ? `was there already (${took})` : `durable as ${count(Number(result.last_seq))}, after ${took}`);
    } catch (error) {
      this.#say(false, inWords(error));
    }
    return undefined;
  }

  #say(good, text) {
    const result = $('pub-result');
    result.prepend(el('p', { class: good ? 'good' : 'bad', text: shownLine(text) }));
    while (result.childElementCount > 5) result.lastChild.remove();
  }
}
