// Three small charts over the last minutes: append rate, lag, commit latency.

import uPlot from '../vendor/uplot/uPlot.esm.js';
import { $, clock, millis, rate, setText, short, twoMillis } from './dom.js';

const WINDOW_S = 300;
const SHORTEST_S = 60;

const KINDS = {
  rate: { id: 'chart-rate', series: [{ of: (s) => s.rate, colour: '--c-rate', fill: true }], text: ([v]) => (v === null ? '–' : `${rate(v)} /s`), axis: (v) => short(v), least: 10 },
  lag: { id: 'chart-lag', series: [{ of: (s) => s.lag, colour: '--c-lag', fill: true }], text: ([v]) => (v === null ? '–' : `${short(v)} events`), axis: (v) => short(v), least: 10 },
  latency: {
    id: 'chart-latency', series: [{ of: (s) => s.p50, colour: '--c-latency', fill: true }, { of: (s) => s.p99, colour: '--c-latency-high' }],
    text: ([p50, p99]) => (p50 === null ? '–' : twoMillis(p50, p99)), axis: (v) => millis(v), least: 0.001,
  },
};

/// A colour of the stylesheet as a canvas understands it: `light-dark()` resolved.
function colour(variable, alpha = 1) {
  const probe = $('probe');
  probe.style.color = `var(${variable})`;
  const [r, g, b] = getComputedStyle(probe).color.match(/[\d.]+/g);
  return `rgba(${r}, ${g}, ${b}, ${alpha})`;
}

export class Charts {
  constructor() {
    this.samples = [];
    this.plots = {};
    this.hasMetrics = null;
    this.isStale = false;
    const observer = new ResizeObserver(() => this.#resize());
    for (const { id } of Object.values(KINDS)) observer.observe($(id).querySelector('.plot'));
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => this.rebuild());
  }

  set(samples) {
    this.samples = samples.slice(-WINDOW_S * 2);
    this.draw();
  }

  add(sample) {
    this.samples.push(sample);
    const oldest = Date.now() - WINDOW_S * 1000 - 5000;
    while (this.samples.length > 0 && this.samples[0].at < oldest) this.samples.shift();
    this.draw();
  }

  /// Nothing comes any more: what is shown says of when it is.
  stale(isStale) {
    if (this.isStale === isStale) return;
    this.isStale = isStale;
    this.draw();
  }

  /// New colours need new charts.
  rebuild() {
    for (const plot of Object.values(this.plots)) plot.destroy();
    this.plots = {};
    this.draw();
  }

  #data(kind) {
    const times = this.samples.map(({ at }) => at / 1000);
    return [times, ...kind.series.map(({ of }) => this.samples.map(of).map((v) => v ?? null))];
  }

  draw() {
    if (document.hidden) return;
    for (const [name, kind] of Object.entries(KINDS)) {
      const plot = this.plots[name] ?? this.#make(name, kind);
      if (!plot) continue;
      const now = Date.now() / 1000;
      plot.batch(() => {
        plot.setData(this.#data(kind), false);
        const first = (this.samples[0]?.at ?? 0) / 1000;
        plot.setScale('x', { min: Math.max(now - WINDOW_S, Math.min(first, now - SHORTEST_S)), max: now });
      });
      if (plot.cursor.idx === null || plot.cursor.idx === undefined) this.#say(kind, this.samples.length - 1);
    }
  }

  #say(kind, index) {
    const strong = $(kind.id).querySelector('strong');
    if (kind === KINDS.latency && this.hasMetrics === false) return setText(strong, 'no /metrics');
    const at = (sample) => kind.series.map(({ of }) => (sample ? of(sample) : undefined) ?? null);
    const isKnown = (sample) => at(sample).some((value) => value !== null);
    const isNewest = index === this.samples.length - 1;
    // Where nothing was committed just now: the last that was.
    const sample = isNewest ? this.samples.findLast(isKnown) ?? this.samples[index] : this.samples[index];
    const values = at(sample);
    const isOld = isNewest && sample && (this.isStale || sample !== this.samples[index]);
    return setText(strong, isOld ? `${kind.text(values)} at ${clock(sample.at).slice(0, 8)}` : kind.text(values));
  }

  #make(name, kind) {
    const at = $(kind.id).querySelector('.plot');
    const { clientWidth: width, clientHeight: height } = at;
    if (width < 40 || height < 30) return null;
    const font = `10px ${getComputedStyle(document.body).fontFamily}`;
    const axis = { stroke: colour('--muted'), font, ticks: { show: false }, grid: { stroke: colour('--line'), width: 1 } };
    const plot = new uPlot({
      width, height, padding: [6, 22, 0, 0], legend: { show: false },
      cursor: { y: false, points: { size: 6 }, drag: { x: false, y: false } },
      scales: { x: { time: true }, y: { range: (_, min, max) => [0, Math.max(kind.least, (max ?? 0) * 1.15)] } },
      axes: [
        { ...axis, size: 24, gap: 7, space: 60, grid: { show: false }, incrs: [10, 30, 60, 120, 300],
          values: (_, at, __, ___, step) => at.map((t) => clock(t * 1000).slice(0, step < 60 ? 8 : 5)) },
        { ...axis, size: 44, gap: 4, space: 26, values: (_, at) => at.map((v) => kind.axis(v)) },
      ],
      series: [{}, ...kind.series.map((series) => ({
        stroke: colour(series.colour), width: 1.5, points: { show: false }, spanGaps: false,
        fill: series.fill ? colour(series.colour, 0.14) : undefined,
      }))],
      hooks: {
        setCursor: [(u) => this.#say(kind, u.cursor.idx ?? this.samples.length - 1)],
      },
    }, this.#data(kind), at);
    this.plots[name] = plot;
    return plot;
  }

  #resize() {
    for (const [name, kind] of Object.entries(KINDS)) {
      const { clientWidth: width, clientHeight: height } = $(kind.id).querySelector('.plot');
      const plot = this.plots[name];
      if (plot && width >= 40 && height >= 30 && (plot.width !== width || plot.height !== height)) plot.setSize({ width, height });
    }
    this.draw();
  }
}
