// What is asked for at intervals: head and oldest, topics, commit latency. Once a browser.

import { getHistory, getLog, listTopics } from './api.js';
import { bearer } from './token.js';
import { buckets, commitHistogram, difference, quantile } from './metrics.js';

const LOG_EVERY_MS = 1000;
const TOPICS_EVERY_MS = 2000;
const METRICS_EVERY_MS = 2000;
const WHEN_HIDDEN_MS = 15000;
const MAX_TOPICS = 5000;
// Ten minutes.
const MAX_SAMPLES = 600;

export class Sampler {
  /// `on`: history(samples), log(status, sample), topics(topics), failed(); `lag(head)` tells the stream's lag.
  constructor(on, lag) {
    this.on = on;
    this.lag = lag;
    this.samples = [];
    this.topics = { list: [], complete: true };
    this.hasMetrics = null;
    this.#reset();
    this.visible = true;
    this.stopped = true;
    this.run = 0;
    this.wakers = new Set();
  }

  #reset() {
    this.last = null;
    this.rates = new Map();
    this.counts = new Map();
    this.topicsHead = -1;
    this.topicsAt = 0;
    this.latency = { p50: null, p99: null };
    this.metricsBefore = null;
  }

  start() {
    if (!this.stopped) return;
    this.stopped = false;
    this.run += 1;
    if (this.samples.length === 0) this.#before();
    this.#loop(() => this.#sampleLog(), LOG_EVERY_MS);
    // A daemon with very many topics is not asked more often than it answers with ease.
    this.#loop(() => this.#sampleTopics(), TOPICS_EVERY_MS, 5);
    this.#loop(() => this.#sampleMetrics(), METRICS_EVERY_MS);
  }

  stop() {
    this.stopped = true;
    this.#reset();
  }

  setVisible(visible) {
    const woken = visible && !this.visible;
    this.visible = visible;
    if (woken) for (const wake of [...this.wakers]) wake();
  }

  async #loop(step, everyMs, ease = 0) {
    // Stopped and started again, an older loop must not go on beside the new one.
    const { run } = this;
    while (!this.stopped && run === this.run) {
      const began = performance.now();
      try {
        await step();
      } catch { this.on.failed?.(); }
      const wait = this.visible ? Math.max(everyMs, ease * (performance.now() - began)) : WHEN_HIDDEN_MS;
      await new Promise((done) => {
        const timer = setTimeout(wake, wait);
        const { wakers } = this;
        function wake() {
          clearTimeout(timer);
          wakers.delete(wake);
          done();
        }
        wakers.add(wake);
      });
    }
  }

  /// What there was before anybody looked, as the daemon has it. Without it the charts begin now.
  async #before() {
    const { points = [] } = await getHistory(AbortSignal.timeout(10000)).catch(() => ({}));
    if (points.length === 0) return;
    // By its clock; the newest is a second old at most.
    const ahead = Date.parse(points.at(-1).at) - Date.now();
    const seconds = (ms) => (ms === undefined ? null : ms / 1000);
    const before = points.map((point) => ({
      // The stream was not there, and so had no lag.
      at: Date.parse(point.at) - ahead, rate: point.appended_per_second, lag: null, p50: seconds(point.commit_p50_ms), p99: seconds(point.commit_p99_ms),
    }));
    const first = this.samples[0]?.at ?? Infinity;
    this.samples.unshift(...before.filter(({ at }) => at < first));
    this.on.history(this.samples);
  }

  async #sampleLog() {
    const log = await getLog(AbortSignal.timeout(10000));
    this.seen(log);
  }

  /// A reading of the log, by whomever.
  seen(log) {
    const now = Date.now();
    const head = Number(log.head_seq ?? 0);
    if (this.last && this.last.logId !== log.log_id) this.#reset();
    const passed = this.last ? (now - this.last.at) / 1000 : 0;
    // Readings that lie close together would make a rate of noise.
    if (this.last && passed < 0.5) return;
    const rate = this.last && passed < 60 ? Math.max(0, head - this.last.head) / passed : null;
    this.last = { at: now, head, logId: log.log_id };
    const sample = { at: now, rate, lag: this.lag(head), ...this.latency };
    this.samples.push(sample);
    if (this.samples.length > MAX_SAMPLES) this.samples.splice(0, this.samples.length - MAX_SAMPLES);
    this.on.log(log, sample);
  }

  async #sampleTopics() {
    const head = this.last?.head ?? -1;
    const quiet = this.last !== null && head === this.topicsHead;
    if (quiet && this.rates.size === 0) return;
    const { topics, complete } = quiet ? { topics: null } : await listTopics(MAX_TOPICS, AbortSignal.timeout(20000));
    const now = Date.now();
    const passed = (now - this.topicsAt) / 1000;
    if (topics === null) {
      // Nothing was appended: every rate runs out.
      for (const [topic, rate] of this.rates) this.#setRate(topic, rate / 2);
      this.topics.list = this.topics.list.map((row) => ({ ...row, rate: this.rates.get(row.topic) ?? 0 }));
    } else {
      const first = this.topicsAt === 0;
      const counts = new Map();
      const list = topics.map((topic) => {
        const events = Number(topic.events ?? 0);
        counts.set(topic.topic, events);
        if (!first) {
          // A trim takes events away; that is not a rate.
          const now1 = Math.max(0, events - (this.counts.get(topic.topic) ?? 0)) / passed;
          const before = this.rates.get(topic.topic) ?? now1;
          this.#setRate(topic.topic, (before + now1) / 2);
        }
        return { topic: topic.topic, events, lastSeq: Number(topic.last_seq ?? 0), rate: this.rates.get(topic.topic) ?? 0 };
      });
      this.counts = counts;
      this.topics = { list, complete };
      this.topicsHead = head;
    }
    this.topicsAt = now;
    this.on.topics(this.topics);
  }

  #setRate(topic, rate) {
    if (rate < 0.05) this.rates.delete(topic);
    else this.rates.set(topic, rate);
  }

  async #sampleMetrics() {
    // A daemon that has none will not have them soon.
    if (this.hasMetrics === false && Date.now() - this.metricsAt < 60000) return;
    this.metricsAt = Date.now();
    const response = await fetch('/metrics', { cache: 'no-store', headers: bearer(), signal: AbortSignal.timeout(10000) });
    this.hasMetrics = response.ok;
    if (!response.ok) return;
    const text = await response.text();
    const name = commitHistogram(text);
    this.hasMetrics = name !== null;
    if (name === null) return;
    const now = buckets(text, name);
    const delta = this.metricsBefore ? difference(this.metricsBefore, now) : new Map();
    this.metricsBefore = now;
    this.latency = { p50: quantile(delta, 0.5), p99: quantile(delta, 0.99) };
  }
}
