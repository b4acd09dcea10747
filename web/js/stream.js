// The one long stream: connects, resumes, and keeps account of what was missed.
//
// Knows nothing of tabs. Invariant: `cursor` is that of the last thing handed on, so a new
// connection begins exactly there. Unfiltered, every seq must follow the one before.

import { getLog, readEvent, watchPath } from './api.js';
import { frames, inWords, Refused } from './sse.js';
import { bearer } from './token.js';

const FIRST_DELAY_MS = 250;
const LONGEST_DELAY_MS = 5000;

export class Stream {
  /// `on`: event(event), note(note), change(state), log(status), begun().
  constructor(on) {
    this.on = on;
    this.patterns = null;
    this.cursor = null;
    this.seq = null;
    this.logId = null;
    this.state = { phase: 'connecting', since: Date.now(), error: '', retryAt: 0, missed: 0, gone: 0, repeated: 0, checked: 0, arrived: 0 };
    this.restart = new AbortController();
    this.running = false;
    this.downSince = 0;
    this.resume = null;
    this.losses = 0;
    /// Everything up to the head has been delivered on this connection.
    this.live = false;
  }

  /// Which topics are wanted; empty = all, null = nobody looks.
  want(patterns) {
    const same = JSON.stringify(patterns) === JSON.stringify(this.patterns);
    this.patterns = patterns;
    if (same) return;
    if (patterns === null) {
      this.cursor = null;
      this.seq = null;
    }
    this.#again('the filter changed');
    if (!this.running && patterns !== null) this.#run();
  }

  /// Where to begin, if it has not begun yet. Of several positions the lowest.
  beginAfter(position) {
    if (this.patterns !== null || !position?.cursor) return;
    if (this.cursor === null || (position.seq !== null && position.seq < this.seq)) {
      this.cursor = position.cursor;
      this.seq = position.seq;
      this.logId = position.logId;
    }
  }

  retryNow() {
    if (this.state.phase === 'waiting' || this.state.phase === 'refused') this.#again('asked to');
  }

  /// Leaves out what lies between here and the head, and says so.
  skipToNow() {
    this.skip = true;
    this.#again('skipping');
  }

  #again(why) {
    this.restart.abort(new Error(why));
    this.restart = new AbortController();
  }

  #set(change) {
    Object.assign(this.state, change);
    if (change.phase) this.state.since = Date.now();
    this.on.change(this.state);
  }

  async #run() {
    this.running = true;
    let delay = FIRST_DELAY_MS;
    while (this.patterns !== null) {
      const { signal } = this.restart;
      try {
        await this.#follow(signal, () => { delay = FIRST_DELAY_MS; });
        this.#down('the stream ended');
      } catch (error) {
        if (signal.aborted) continue;
        // A daemon that loses the position again and again is given time.
        if (error instanceof Refused && this.losses < 3 && this.#handleLoss(error)) {
          this.losses += 1;
          continue;
        }
        if (error instanceof Refused && [400, 401, 403].includes(error.status)) {
          // The same request would get the same answer.
          if (error.status === 401 && this.downSince === 0) this.downSince = Date.now();
          this.#set({ phase: 'refused', error: error.message, status: error.status });
          await aborted(signal);
          continue;
        }
        this.#down(inWords(error));
      }
      if (signal.aborted) continue;
      // Full jitter, so that many pages do not come back as one.
      const wait = delay / 2 + Math.random() * (delay / 2);
      delay = Math.min(delay * 2, LONGEST_DELAY_MS);
      this.#set({ phase: 'waiting', retryAt: Date.now() + wait });
      await Promise.race([new Promise((done) => { setTimeout(done, wait); }), aborted(signal)]);
    }
    this.running = false;
  }

  #down(error) {
    if (this.downSince === 0) this.downSince = Date.now();
    this.resume = null;
    this.#set({ error });
  }

  async #follow(signal, onConnected) {
    this.#set({ phase: 'connecting' });
    const log = await getLog(AbortSignal.any([signal, AbortSignal.timeout(20000)]));
    this.on.log(log);
    const head = Number(log.head_seq ?? 0);
    if (this.logId !== null && this.logId !== log.log_id) {
      this.on.note({ kind: 'log', text: `this is another log now: ${log.log_id} (it was ${this.logId})` });
      this.cursor = null;
    }
    this.logId = log.log_id;
    if (this.skip && this.cursor !== null) {
      if (this.seq !== null && head > this.seq) {
        this.on.note({ kind: 'gap', from: this.seq + 1, to: head, reason: 'skipped, as you asked' });
      }
      this.cursor = null;
    }
    this.skip = false;
    const resuming = this.cursor !== null && this.downSince !== 0;
    if (this.cursor === null) {
      this.cursor = log.head_cursor;
      this.seq = head;
    }
    this.on.begun();
    const filtered = this.patterns.length > 0;
    this.live = false;
    const url = watchPath({ topics: this.patterns, after_cursor: this.cursor });
    for await (const batch of frames(url, { signal, headers: bearer() })) {
      if (batch.length === 0) {
        onConnected();
        if (resuming) this.#beginResume(filtered, head);
        this.downSince = 0;
        this.#set({ phase: 'open', error: '' });
      }
      for (const frame of batch) if (this.#take(frame, filtered)) return;
      this.#endResume();
      signal.throwIfAborted();
    }
  }

  #beginResume(filtered, head) {
    this.resume = {
      from: this.seq, to: filtered ? null : head, filtered,
      missed: this.state.missed, gone: this.state.gone, repeated: this.state.repeated, downMs: Date.now() - this.downSince,
    };
    this.#endResume();
  }

  /// Says that nothing was missed once that is known: when all that came meanwhile has come.
  #endResume() {
    const { resume } = this;
    if (!resume) return;
    // Filtered, only the daemon can say that there is no more.
    if (resume.filtered ? !this.live : this.seq === null || this.seq < resume.to) return;
    this.resume = null;
    this.on.note({
      kind: 'resumed', after: resume.from, filtered: resume.filtered, downMs: resume.downMs, at: Date.now(),
      events: resume.to === null || resume.from === null ? null : resume.to - resume.from - (this.state.gone - resume.gone),
      missed: this.state.missed - resume.missed, repeated: this.state.repeated - resume.repeated,
    });
  }

  /// Takes one frame; true = this connection is over.
  #take(frame, filtered) {
    if (frame.event === 'lost') {
      const lost = JSON.parse(frame.data);
      throw new Refused(200, lost);
    }
    if (frame.event === 'failed') throw new Refused(500, JSON.parse(frame.data));
    // Its id says that there is nothing to go on with; ours stays.
    if (frame.event === 'end') return true;
    if (frame.event === 'message' && frame.data !== null) this.#event(readEvent(frame), filtered);
    else {
      // Events that the filter passed over: the cursor has moved on, by how many is not said.
      if (filtered && frame.id && frame.id !== this.cursor) this.seq = null;
      if (frame.event === 'marker') this.#marker(JSON.parse(frame.data).marker);
    }
    if (frame.id) this.cursor = frame.id;
    return false;
  }

  #event(event, filtered) {
    if (this.seq !== null) {
      if (event.seq <= this.seq) {
        this.state.repeated += 1;
        return;
      }
      if (!filtered && event.seq !== this.seq + 1) this.#gap(this.seq + 1, event.seq - 1, 'the daemon did not send them');
      if (!filtered) this.state.checked += 1;
    }
    this.seq = event.seq;
    this.state.arrived += 1;
    this.losses = 0;
    this.on.event(event);
  }

  #marker(marker) {
    if (marker.kind === 'CAUGHT_UP') {
      this.live = true;
      this.#endResume();
      this.on.change(this.state);
    }
    if (marker.kind === 'FELL_BEHIND') this.live = false;
    if (marker.gap) {
      const from = Number(marker.gap.from_seq ?? 0);
      const to = Number(marker.gap.to_seq ?? 0);
      const reason = (marker.gap.reason ?? 'unknown').toLowerCase();
      // Meant to go, by rules for topics: nothing was missed.
      if (reason === 'expired' || reason === 'compacted') {
        this.state.gone += Math.max(0, to - from + 1);
        this.on.note({ kind: 'gone', from, to, reason });
      } else this.#gap(from, to, reason);
      if (to > 0 && this.seq !== null) this.seq = Math.max(this.seq, to);
    }
    if (marker.kind === 'CLOSING') this.#set({ error: 'the daemon is stopping' });
  }

  #gap(from, to, reason) {
    this.state.missed += Math.max(0, to - from + 1);
    this.on.note({ kind: 'gap', from, to, reason });
  }

  /// A position that is not there any more: say what is gone, and where it goes on.
  #handleLoss(refused) {
    const { reason, metadata } = refused;
    const oldest = Number(metadata.oldest ?? 0);
    if (reason === 'CURSOR_TRIMMED') {
      const missed = Number(metadata.missed ?? 0);
      this.state.missed += missed;
      const from = this.seq === null ? oldest - missed : this.seq + 1;
      this.on.note({ kind: 'gap', from, to: oldest - 1, reason: 'trimmed' });
      this.seq = oldest - 1;
      this.cursor = metadata.resume_cursor ?? String(oldest - 1);
      return true;
    }
    if (reason === 'LOG_CHANGED' || reason === 'LOG_DIVERGED' || reason === 'CURSOR_AHEAD' || reason === 'CURSOR_MALFORMED') {
      this.on.note({ kind: 'log', text: `this history is not the one shown so far (${reason}); what came between is not known` });
      this.cursor = null;
      return true;
    }
    if (metadata.resume_cursor) {
      this.on.note({ kind: 'gap', from: (this.seq ?? 0) + 1, to: 0, reason: `${reason || 'unreadable'}: ${refused.message}` });
      this.cursor = metadata.resume_cursor;
      this.seq = null;
      return true;
    }
    return false;
  }
}

function aborted(signal) {
  if (signal.aborted) return Promise.resolve();
  return new Promise((done) => { signal.addEventListener('abort', done, { once: true }); });
}
