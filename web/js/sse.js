// Server-sent events over fetch.
//
// Not EventSource: fetch shows the status and the error's body, lets the page decide when to come
// back, and stops reading when the page is slow, which the daemon takes calmly.

/// Splits a stream of text into frames: {id?, event, data?}, as WHATWG HTML has it in section 9.2.6. A
/// frame may come in any pieces. One without data is told too: its id moves the position.
export class Frames {
  #rest = '';
  #begun = false; #cut = false;
  #id; #event = ''; #data = null; #any = false;

  /// Frames that are complete after `text`.
  push(text) {
    const frames = [];
    if (text === '') return frames;
    let fresh = text;
    if (!this.#begun && fresh.startsWith('\ufeff')) fresh = fresh.slice(1);
    this.#begun = true;
    // The line feed of a line end that came in two pieces ends nothing more.
    if (this.#cut && fresh.startsWith('\n')) fresh = fresh.slice(1);
    this.#cut = text.endsWith('\r');
    const all = this.#rest + fresh;
    // The daemon sends line feeds; a carriage return ends a line as well.
    const lines = all.includes('\r') ? all.split(/\r\n|\r|\n/) : all.split('\n');
    this.#rest = lines.pop();
    for (const line of lines) {
      if (line === '') {
        if (this.#any) frames.push({ id: this.#id, event: this.#event || 'message', data: this.#data });
        this.#id = undefined;
        this.#event = '';
        this.#data = null;
        this.#any = false;
      } else {
        this.#field(line);
      }
    }
    return frames;
  }

  #field(line) {
    const colon = line.indexOf(':');
    const field = colon < 0 ? line : line.slice(0, colon);
    let value = colon < 0 ? '' : line.slice(colon + 1);
    if (value.startsWith(' ')) value = value.slice(1);
    if (field === 'data') this.#data = this.#data === null ? value : `${this.#data}\n${value}`;
    else if (field === 'id' && !value.includes('\0')) this.#id = value;
    else if (field === 'event') this.#event = value;
    // A comment, whose name is empty, and what nobody knows.
    else return;
    this.#any = true;
  }
}

/// An answer that is not 200.
export class Refused extends Error {
  constructor(status, detail) {
    // What is not the daemon's has no words of its: a proxy says so of a daemon that is away.
    super(detail.message || `${status >= 502 && status <= 504 ? 'a proxy' : 'the daemon'} answered ${status}`);
    this.status = status;
    this.reason = detail.reason || '';
    this.metadata = detail.metadata || {};
  }
}

/// What failed, in our words: those of browsers differ, and say little to who looks at a page.
export function inWords(error) {
  if (error instanceof Refused) return error.reason ? `${error.message} [${error.reason}]` : error.message;
  // What `fetch` and its bodies throw where nobody answers, or an answer breaks off.
  if (error instanceof TypeError) return 'the daemon cannot be reached, or the answer broke off';
  if (error instanceof SyntaxError) return 'the answer is none of the daemon\'s; is something in between?';
  return error.message;
}

export async function refusal(response) {
  let detail = {};
  try { detail = await response.json(); } catch { /* not ours: the status must do */ }
  return new Refused(response.status, detail ?? {});
}

/// Yields frames, as arrays, until the stream ends. Silence longer than `silenceMs` is an error:
/// the daemon says something, if only a comment, every 15 seconds.
export async function* frames(url, { signal, headers = {}, silenceMs = 60000 }) {
  const own = new AbortController();
  const stop = () => own.abort(signal.reason);
  signal.addEventListener('abort', stop);
  let timer = 0;
  const alive = () => {
    clearTimeout(timer);
    timer = setTimeout(() => own.abort(new Error('nothing heard for a minute')), silenceMs);
  };
  try {
    signal.throwIfAborted();
    alive();
    const response = await fetch(url, {
      signal: own.signal, cache: 'no-store', headers: { accept: 'text/event-stream', ...headers },
    });
    if (response.status !== 200) throw await refusal(response);
    yield [];
    const reader = response.body.getReader();
    // The parser knows what to make of a byte order mark.
    const decoder = new TextDecoder('utf-8', { ignoreBOM: true });
    const parser = new Frames();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      alive();
      const found = parser.push(decoder.decode(value, { stream: true }));
      if (found.length > 0) yield found;
    }
  } finally {
    clearTimeout(timer);
    signal.removeEventListener('abort', stop);
    own.abort();
  }
}
