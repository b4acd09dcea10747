// The page: puts the parts together. Each part knows only its own place in the document.

import { askForToken, NO_TOKEN } from './ask.js';
import { eventAt, newest, older, onward } from './api.js';
import { Charts } from './charts.js';
import { Chat, store, stored } from './chat.js';
import { drawConsumers } from './consumers.js';
import { Detail } from './detail.js';
import { $, bytes, clock, count, plural, setText, short, zone } from './dom.js';
import { Link } from './link.js';
import { readPatterns, says, selects } from './pattern.js';
import { Publisher } from './publish.js';
import { daemonLine, journalLine } from './journal.js';
import { copyTopics, sayUnseen, shownLine } from './shown.js';
import { inWords } from './sse.js';
import { noteText, Tail } from './tail.js';
import { hasToken, isOfToken, isToken, kept, principal, setToken } from './token.js';
import { Tree } from './tree.js';

// So far above the list an event is shown in it, with so many before it.
const NEAR = 1000;
const AROUND = 20;
const HISTORY = 200;
const HISTORY_SEARCHED = 1000;
const SIDES = ['event', 'chat', 'publish'];
// Inputs of names.
const NAMES = ['pattern', 'chat-room', 'chat-name', 'pub-topic', 'pub-type', 'pub-key', 'pub-id'];

class App {
  /// `granted`: patterns of what may be watched; empty = everything.
  constructor(granted) {
    this.granted = granted;
    this.want = { patterns: [], text: '' };
    this.wantNumber = 0;
    this.wantTaken = 0;
    this.position = null;
    this.ready = false;
    this.state = null;
    this.head = 0;
    this.oldest = 1;
    // How far back was looked for what the filter chooses.
    this.lookedTo = Infinity;
    this.historyAbort = new AbortController();
    this.historyDue = false;
    this.loading = true;
    this.roomDue = false;
    this.tail = new Tail({ select: (event, open) => this.select(event, open), more: (hole) => this.#more(hole), changed: () => this.#drawTail() });
    this.tree = new Tree({ watch: (patterns) => this.watch(patterns) });
    this.detail = new Detail({ watch: (patterns) => this.watch(patterns) });
    this.chat = new Chat({ room: () => this.#roomChanged() });
    this.charts = new Charts();
    this.publisher = new Publisher();
    this.#theme();
    this.#widen(stored('tailmark-wide') === 'true');
    this.#controls();
    this.#keys();
    this.#readHash();
    this.#filter();
    this.link = new Link((message) => this.#receive(message), () => ({
      want: this.#wanted(), number: this.wantNumber, visible: !document.hidden, after: this.position,
    }), kept());
    document.addEventListener('visibilitychange', () => {
      this.link.send({ t: 'visible', visible: !document.hidden });
      this.charts.draw();
    });
    // An address that was pasted over this one; our own changes fire nothing.
    addEventListener('hashchange', () => {
      this.#readHash();
      this.#filter();
    });
    setInterval(() => this.#drawConnection(), 500);
  }

  /// A room that may not be watched would have the whole stream refused.
  #wanted() {
    const { topic } = this.chat;
    return { ...this.want, room: topic !== null && selects(this.granted, topic) ? topic : null };
  }

  #receive(message) {
    switch (message.t) {
      case 'welcome':
        this.charts.set(message.samples);
        this.charts.hasMetrics = message.hasMetrics;
        if (message.log) this.#drawLog(message.log);
        if (message.topics.list.length > 0) this.#drawTopics(message.topics);
        this.#taken(message.number);
        break;
      case 'samples':
        this.charts.set(message.samples);
        break;
      case 'ready':
        // Once: a new leader goes on where this tab is.
        this.position ??= message.position;
        if (this.ready) break;
        this.ready = true;
        this.#history();
        if (this.chat.active) this.chat.history();
        break;
      case 'wanted':
        this.#taken(message.number);
        break;
      case 'items':
        this.#take(message);
        break;
      case 'state':
        this.#setState(message.state);
        break;
      case 'sample':
        this.charts.hasMetrics = message.hasMetrics;
        this.charts.add(message.sample);
        this.#drawLog(message.log);
        break;
      case 'topics':
        this.#drawTopics(message.topics);
        break;
      default:
    }
  }

  /// The hub has taken our want of that number: what comes from here on is chosen by it.
  #taken(number) {
    this.wantTaken = number;
    // Before the stream has begun, what is read of the past might end before it.
    if (number !== this.wantNumber || !this.ready) return;
    if (this.historyDue) this.#history();
    if (this.roomDue) this.chat.history();
    this.roomDue = false;
  }

  #take({ items, omitted, position }) {
    this.position = position;
    for (const item of items) {
      if (item.k === 'note') this.#announce(noteText(item).text);
      if (item.note?.kind === 'log') this.chat.otherLog();
    }
    this.chat.take(items.filter(({ k }) => k === 'event').map(({ event }) => event));
    // Chosen by a filter that is no more; the past of the new one is read anew.
    if (this.wantTaken === this.wantNumber) this.tail.add(items, omitted);
    // Only now may the next come, and only as fast as frames are drawn.
    const taken = () => this.link.send({ t: 'taken' });
    if (document.hidden) taken(); else requestAnimationFrame(taken);
  }

  /// What was before this tab looked. The stream runs already, so nothing lies between.
  async #history() {
    this.historyDue = false;
    this.historyAbort.abort();
    this.historyAbort = new AbortController();
    const { signal } = this.historyAbort;
    const { patterns, text } = this.want;
    this.loading = true;
    this.#drawTail();
    try {
      const n = text ? HISTORY_SEARCHED : HISTORY;
      const events = await newest(patterns, n, signal, (event) => says(event, text));
      if (!signal.aborted) this.tail.history(events);
    } catch {
      // With the connection back it is tried again.
      if (!signal.aborted) this.historyDue = true;
    }
    if (signal.aborted) return;
    this.loading = false;
    this.#drawTail();
  }

  /// What lies before the first event in the list; down to a seq, where one is given.
  async #older(down) {
    if (this.loading || $('older').hidden) return;
    const { signal } = this.historyAbort;
    const { patterns, text } = this.want;
    const before = Math.min(this.lookedTo, this.tail.first ?? this.head + 1);
    this.loading = true;
    this.#drawTail();
    try {
      const [end, n] = down === undefined ? [this.oldest, HISTORY] : [Math.max(this.oldest, down), before - down];
      const { events, from } = await older(patterns, before, end, n, signal, (event) => says(event, text));
      if (signal.aborted) return;
      this.lookedTo = from;
      this.tail.older(events);
      this.#announce(events.length > 0 ? `${plural(events.length, 'event')} more` : `nothing from ${count(from)} on`);
    } catch (error) {
      if (signal.aborted) return;
      this.#announce(inWords(error));
    }
    this.loading = false;
    this.#drawTail();
  }

  /// The list from around a seq that lies further back.
  async #jump(seq) {
    const { signal } = this.historyAbort;
    const { patterns, text } = this.want;
    const end = Math.min(seq + AROUND + 1, this.tail.keptFrom ?? Infinity);
    const { events, from } = await older(patterns, end, this.oldest, HISTORY, signal, (event) => says(event, text));
    if (signal.aborted) return;
    this.lookedTo = from;
    this.tail.jump(events, end, this.head);
  }

  /// What follows where the list has a hole.
  async #more(hole) {
    if (this.loading) return;
    const { signal } = this.historyAbort;
    this.loading = true;
    this.#drawTail();
    try {
      const { patterns, text } = this.want;
      const { events, next } = await onward(patterns, hole.from, hole.to, HISTORY, signal, (event) => says(event, text));
      if (!signal.aborted) this.tail.fill(hole, events, next);
    } catch (error) {
      if (!signal.aborted) this.#announce(inWords(error));
    }
    this.loading = false;
    this.#drawTail();
  }

  #sendWant() {
    this.wantNumber += 1;
    // Before there is a link, the hello will say it.
    this.link?.send({ t: 'want', number: this.wantNumber, want: this.#wanted() });
    this.#writeHash();
  }

  #filter() {
    const { patterns, problem } = readPatterns($('pattern').value);
    const field = $('pattern-problem');
    field.hidden = problem === null;
    setText(field, shownLine(problem ?? ''));
    sayUnseen($('pattern'));
    $('pattern').setAttribute('aria-invalid', String(problem !== null));
    if (problem !== null) return;
    // Everything is what may be watched of it.
    if (patterns.length === 0) patterns.push(...this.granted);
    const text = $('text').value.trim().toLowerCase();
    if (JSON.stringify(patterns) === JSON.stringify(this.want.patterns) && text === this.want.text) return;
    this.want = { patterns, text };
    this.lookedTo = Infinity;
    this.tree.setWatched(patterns);
    this.historyAbort.abort();
    this.historyDue = true;
    this.loading = true;
    this.tail.clear();
    this.#sendWant();
  }

  #roomChanged() {
    this.roomDue = true;
    this.#sendWant();
  }

  watch(patterns) {
    $('pattern').value = patterns.join(', ');
    this.#filter();
    if (this.#isNarrow()) this.show('tail');
    this.#announce(patterns.length === 0 ? 'watching every topic' : `watching ${patterns.join(', ')}`);
  }

  select(event, open) {
    this.detail.show(event);
    const isBeside = !this.#isNarrow() && document.body.dataset.wide !== 'true';
    if (open || isBeside) this.show('event', false);
  }

  #isNarrow() { return matchMedia('(max-width: 760px)').matches; }

  /// Brings a view forward: on a small screen the only one, else the tab of the side panel.
  show(view, focus = true) {
    const { body } = document;
    body.dataset.view = view;
    if (SIDES.includes(view) || view === 'topics') this.#widen(false);
    if (SIDES.includes(view)) {
      body.dataset.side = view;
      for (const side of SIDES) {
        const isChosen = side === view;
        $(`tab-${side}`).setAttribute('aria-selected', String(isChosen));
        $(`tab-${side}`).tabIndex = isChosen ? 0 : -1;
      }
    }
    for (const button of document.querySelectorAll('.bottom button')) {
      if (button.dataset.show === view) button.setAttribute('aria-current', 'true');
      else button.removeAttribute('aria-current');
    }
    if (view === 'chat') this.chat.activate();
    this.#writeHash();
    if (focus) this.#focus(view);
    this.charts.draw();
  }

  /// The tail alone, so that bodies have the width of the window; kept for the next time.
  #widen(isWide) {
    document.body.dataset.wide = String(isWide);
    $('wide').setAttribute('aria-pressed', String(isWide));
    store('tailmark-wide', String(isWide));
    this.charts?.draw();
  }

  /// Shows the event at a place, in the list too where that reaches so far: of a time the first that was appended from then on.
  async #goTo(place) {
    const problem = $('goto-problem');
    problem.hidden = true;
    try {
      // As the page itself writes a seq.
      const event = await eventAt(place.replace(/^#/, ''), this.want.patterns);
      if (event === null) throw new Error('no event from then on');
      this.select(event, true);
      const before = (this.tail.first ?? 0) - event.seq;
      if (before > 0 && before <= NEAR && !this.tail.isFull) await this.#older(event.seq - AROUND);
      else if (!this.tail.has(event.seq)) await this.#jump(event.seq);
      this.tail.reveal(event.seq);
    } catch (error) {
      const isWrong = error.reason === 'INVALID_FIELD' || error.reason === 'CURSOR_MALFORMED';
      setText(problem, isWrong ? `expected a seq from 1 on, latest, oldest, a time as the list shows it (2026-01-31 09:30:00 or 09:30), an age (15m) or a cursor`
        : shownLine(inWords(error)));
      problem.hidden = false;
    }
  }

  #focus(view) {
    if (view === 'tail') $('tail-list').focus();
    else if (view === 'topics') this.tree.focus();
    else if (view === 'event') $('event').focus();
    else if (view === 'chat') $($('chat-name').value ? 'chat-text' : 'chat-name').focus();
    else if (view === 'publish') $('pub-topic').focus();
  }

  #controls() {
    setText($('zone'), `times: ${zone()}`);
    $('goto-place').title = `A seq, a time (${zone()}) or a cursor (g)`;
    copyTopics();
    for (const id of NAMES) $(id).addEventListener('input', ({ target }) => sayUnseen(target));
    let timer = 0;
    for (const id of ['pattern', 'text']) {
      $(id).addEventListener('input', () => {
        clearTimeout(timer);
        timer = setTimeout(() => this.#filter(), 250);
      });
      $(id).addEventListener('keydown', (event) => {
        if (event.key === 'Enter') this.#filter();
      });
    }
    $('pause').addEventListener('click', () => this.#pause());
    $('older').addEventListener('click', () => this.#older());
    $('wide').addEventListener('click', () => this.#widen(document.body.dataset.wide !== 'true'));
    $('goto').addEventListener('submit', (event) => {
      event.preventDefault();
      const place = $('goto-place').value.trim();
      if (place) this.#goTo(place);
    });
    $('follow').addEventListener('click', () => this.tail.toNewest());
    $('topics-all').addEventListener('click', () => this.watch([]));
    $('skip-now').addEventListener('click', () => this.link.send({ t: 'skip' }));
    $('connection').addEventListener('click', () => this.link.send({ t: 'retry' }));
    $('help-open').addEventListener('click', () => $('help').showModal());
    $('help-close').addEventListener('click', () => $('help').close());
    $('theme').addEventListener('click', () => this.#nextTheme());
    for (const button of document.querySelectorAll('.bottom button')) {
      button.addEventListener('click', () => this.show(button.dataset.show, false));
    }
    SIDES.forEach((side, at) => {
      $(`tab-${side}`).addEventListener('click', () => this.show(side, false));
      $(`tab-${side}`).addEventListener('keydown', (event) => {
        const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
        if (!step) return;
        event.preventDefault();
        const next = SIDES[(at + step + SIDES.length) % SIDES.length];
        this.show(next, false);
        $(`tab-${next}`).focus();
      });
    });
  }

  #pause() {
    this.tail.pause(!this.tail.paused);
    this.#announce(this.tail.paused ? 'paused' : 'going on');
    this.#drawTail();
  }

  #keys() {
    const actions = {
      '?': () => $('help').showModal(),
      '/': () => { this.show('tail', false); $('pattern').select(); $('pattern').focus(); },
      s: () => { this.show('tail', false); $('text').select(); $('text').focus(); },
      p: () => this.#pause(),
      o: () => this.#older(),
      w: () => this.#widen(document.body.dataset.wide !== 'true'),
      g: () => { this.show('tail', false); $('goto-place').select(); $('goto-place').focus(); },
      j: () => this.tail.move(1),
      k: () => this.tail.move(-1),
      f: () => this.tail.toNewest(),
      t: () => this.show('topics'),
      e: () => this.show('event'),
      c: () => this.show('chat'),
      n: () => this.show('publish'),
      a: () => this.watch([]),
      d: () => this.#nextTheme(),
    };
    document.addEventListener('keydown', (event) => {
      if ($('help').open || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
      const isField = event.target.closest?.('input, textarea, select');
      if (event.key === 'Escape' && isField) {
        event.target.blur();
        $('tail-list').focus();
        return;
      }
      if (isField || !Object.hasOwn(actions, event.key)) return;
      event.preventDefault();
      actions[event.key]();
    });
  }

  #theme() {
    this.theme = stored('tailmark-theme') ?? 'auto';
    this.#applyTheme();
  }

  #nextTheme() {
    const dark = matchMedia('(prefers-color-scheme: dark)').matches;
    // From the system's to its opposite, then back over the other.
    const order = dark ? ['auto', 'light', 'dark'] : ['auto', 'dark', 'light'];
    this.theme = order[(order.indexOf(this.theme) + 1) % order.length];
    store('tailmark-theme', this.theme);
    this.#applyTheme();
    this.charts.rebuild();
    this.#announce(`colours: ${this.theme === 'auto' ? 'as the system' : this.theme}`);
  }

  #applyTheme() {
    document.documentElement.dataset.theme = this.theme;
    const names = { auto: ['◐', 'as the system'], light: ['☀', 'light'], dark: ['☾', 'dark'] };
    setText($('theme'), names[this.theme]?.[0] ?? '◐');
    $('theme').setAttribute('aria-label', `Colours: ${names[this.theme]?.[1]}`);
  }

  #readHash() {
    const params = new URLSearchParams(location.hash.slice(1));
    $('pattern').value = params.get('topic') ?? '';
    $('text').value = params.get('text') ?? '';
    const room = params.get('room');
    const view = params.get('view');
    if (room !== null) $('chat-room').value = room;
    for (const id of NAMES) sayUnseen($(id));
    if (SIDES.includes(view)) this.show(view, false);
  }

  #writeHash() {
    const params = new URLSearchParams();
    const isGranted = JSON.stringify(this.want.patterns) === JSON.stringify(this.granted);
    if (this.want.patterns.length > 0 && !isGranted) params.set('topic', this.want.patterns.join(','));
    if (this.want.text) params.set('text', this.want.text);
    if (this.chat.active) params.set('room', this.chat.room);
    if (document.body.dataset.side !== 'event') params.set('view', document.body.dataset.side);
    const hash = params.toString();
    history.replaceState(null, '', hash ? `#${hash}` : location.pathname + location.search);
  }

  #setState(state) {
    const before = this.state?.phase;
    this.state = state;
    if (state.phase === 'refused' && state.status === 401 && before !== 'refused') askForToken(state.error);
    this.skew = Date.now() - state.now;
    if (before !== state.phase) {
      if (state.phase === 'open' && this.historyDue && this.wantTaken === this.wantNumber) this.#history();
      if (state.phase === 'waiting' && before === 'open') this.#announce('connection lost; coming back by itself');
    }
    this.#drawConnection();
    this.#drawTail();
  }

  #drawConnection() {
    const { state } = this;
    if (!state) return;
    const pill = $('connection');
    let { phase } = state;
    let text = { connecting: 'connecting', open: 'live', refused: 'refused' }[phase];
    if (phase === 'open' && (state.lag ?? 0) > 1000) {
      phase = 'behind';
      text = `${short(state.lag)} behind`;
    }
    if (phase === 'waiting') {
      const left = Math.max(0, state.retryAt - Date.now() + this.skew) / 1000;
      text = `away, again in ${left.toFixed(0)} s`;
    }
    pill.dataset.phase = phase;
    setText($('connection-text'), text);
    // What is shown of the log comes every second, or not at all.
    const isStale = phase === 'waiting' || phase === 'refused';
    document.body.dataset.stale = String(isStale);
    $('facts-stale').hidden = !isStale || this.logAt === undefined;
    if (this.logAt !== undefined) setText($('fact-as-of'), clock(this.logAt).slice(0, 8));
    this.charts.stale(isStale);
    this.tree.stale(isStale);
    const tabs = state.tabs > 1 ? `, shared by ${state.tabs} tabs` : '';
    const title = state.error ? `${shownLine(state.error)}${tabs}. Click: try now` : `one stream${tabs}`;
    if (pill.title !== title) pill.title = title;
    pill.dataset.tabs = String(state.tabs);
    pill.dataset.mode = this.link.mode;
    $('skip-now').hidden = phase !== 'behind';
    const checks = [];
    // History is read in one piece: until something came live there is nothing to boast of.
    const isSilent = state.arrived === 0 && state.missed === 0 && state.repeated === 0;
    if (!isSilent) {
      if (state.filtered) checks.push('filtered: order checked');
      else checks.push(`${count(state.checked)} in unbroken order`);
      checks.push(`${count(state.missed)} missed`);
    }
    if (state.repeated > 0) checks.push(`${count(state.repeated)} repeated`);
    const integrity = $('integrity');
    setText(integrity, checks.join(' · '));
    integrity.classList.toggle('bad', state.missed > 0 || state.repeated > 0);
  }

  #drawTail() {
    const { tail } = this;
    const shown = tail.rows.filter(({ k }) => k === 'event').length;
    const isFiltered = this.want.patterns.length > 0 || this.want.text !== '';
    setText($('tail-status'), tail.paused ? `paused, ${count(tail.waiting)} waiting` : `${plural(shown, 'event')}${tail.follow ? '' : ', not following'}`);
    const pause = $('pause');
    setText(pause, tail.paused ? 'Go on' : 'Pause');
    pause.setAttribute('aria-pressed', String(tail.paused));
    $('follow').hidden = tail.follow || tail.rows.length === 0;
    setText($('follow'), tail.fresh > 0 ? `↓ ${count(tail.fresh)} new` : '↓ newest');
    const first = Math.min(this.lookedTo, tail.first ?? this.head + 1);
    const hasMore = !this.loading && !tail.paused && first > this.oldest;
    $('older').hidden = !hasMore || tail.isFull;
    $('full').hidden = !hasMore || !tail.isFull;
    const empty = $('tail-empty');
    empty.hidden = tail.rows.length > 0;
    const phase = this.state?.phase;
    if (phase === 'refused') setText(empty, shownLine(this.state.error ?? 'The daemon refuses this.'));
    else if (phase === 'waiting') setText(empty, 'The daemon cannot be reached. Events come when it is back.');
    else if (this.loading) setText(empty, 'reading …');
    else if (isFiltered) setText(empty, 'Nothing in the newest events matches. What comes will show here.');
    else setText(empty, 'No events yet. Publish one, here or with: tailmark publish hello.world hi');
  }

  #drawLog(log) {
    this.logAt = Date.now();
    this.head = Number(log.head_seq ?? 0);
    const oldest = Number(log.oldest_seq ?? 0);
    this.oldest = oldest;
    setText($('fact-log'), (log.log_id ?? '').slice(0, 8));
    $('fact-log').title = log.log_id ?? '';
    setText($('fact-oldest'), oldest > this.head ? 'none' : count(oldest));
    setText($('fact-head'), count(this.head));
    setText($('fact-disk'), log.disk_bytes ? bytes(Number(log.disk_bytes)) : '–');
    // Told only to who may administer, as the other.
    setText($('fact-watches'), log.disk_bytes ? count(Number(log.watches ?? 0)) : '–');
    setText($('fact-version'), log.version ?? '–');
    const { journal } = log;
    $('facts-daemon').hidden = journal === undefined;
    setText($('fact-daemon'), journal ? shownLine(daemonLine(journal)) : '–');
    $('facts-daemon').title = journal ? shownLine(journalLine(journal)) : '';
    drawConsumers(log.consumers ?? []);
    const { erasing } = log;
    $('facts-erasing').hidden = erasing === undefined;
    setText($('fact-erasing'), erasing ? `${count(Number(erasing.events_done ?? 0))} of ${count(Number(erasing.events ?? 0))}` : '–');
    const { retention } = log;
    const { expired = 0, compacted = 0, freed_bytes: freed = 0 } = retention?.totals ?? {};
    $('facts-retention').hidden = retention === undefined;
    setText($('fact-retention'), `${count(Number(expired) + Number(compacted))}${retention?.running ? ' …' : ''}`);
    $('facts-retention').title = `rules for topics, since the start: ${count(Number(expired))} events expired, ${count(Number(compacted))} compacted away, ${bytes(Number(freed))} given back`;
    $('facts-erasing').title = erasing ? `erasure ${erasing.erasure}: ${(erasing.phase ?? '').toLowerCase()}` : '';
  }

  #drawTopics(topics) {
    this.tree.set(topics);
    this.chat.suggest(topics.list);
    this.publisher.suggest(topics.list);
  }

  #announce(text) { setText($('announce'), shownLine(text)); }
}

async function begin() {
  if (!isToken(kept())) return askForToken(NO_TOKEN);
  setToken(kept());
  let granted = [];
  try {
    const { watch = [] } = await principal();
    if (!watch.includes('>')) granted = watch;
  } catch (error) {
    if (isOfToken(error)) {
      return askForToken(hasToken() ? error.message : '');
    }
    // The stream will say what it is, and tries again.
  }
  // Reachable for the tests and for the curious.
  globalThis.tailmark = new App(granted);
  return undefined;
}

begin();
