// The plots

// The time span of the plots in seconds: whole minutes, no longer than needed to show all samples.
function span() {
  const age = samples.length ? samples.at(-1).time - samples[0].time : 0;
  return Math.min(60 * Math.ceil(Math.max(age, 1) / 60), MAX_SPAN);
}
const spanText = () => (span() === 60 ? "minute" : `${span() / 60} minutes`);

const linear = {
  top: (max) => {
    const decade = 10 ** Math.floor(Math.log10(Math.max(max, 1)));
    return decade * [1, 2, 3, 4, 5, 6, 8, 10].find((step) => step * decade >= max);
  },
  height: (value, top) => value / top,
  marks: (top) => (top % 2 ? [0, top] : [0, top / 2, top]),
};
// A logarithmic scale with a zero: values far below the unit are at the bottom. Its top is at least `minTop`.
const logarithmic = (unit, minTop) => ({
  top: (max) => 10 ** Math.ceil(Math.log10(Math.max(max, minTop))),
  height: (value, top) => Math.log10(1 + value / unit) / Math.log10(1 + top / unit),
  marks: (top) => {
    const decades = Math.round(Math.log10(top / unit));
    const step = Math.ceil(decades / 4);
    return [0, ...Array.from({ length: Math.floor(decades / step) }, (_, i) => top / 10 ** (i * step))];
  },
});

const lateness = (sample) => (sample.pings ? sample.worst_lateness_seconds : null);
const unsent = (sample) => sample.failed_pings + sample.skipped_pings;
const losses = (sample) => sample.refused + sample.receive_drops + unsent(sample);
const linePlot = (title, unit, line, format = count, scale = linear) => ({
  title, unit, line, format, scale,
  value: (sample) => (line(sample) === null ? "no pings" : format(line(sample))),
  note: () => {
    const values = samples.map(line).filter((value) => value !== null);
    return values.length ? `lowest ${format(Math.min(...values))}, highest ${format(Math.max(...values))}` : "";
  },
});
const plots = [
  linePlot("Clients", "live", (sample) => sample.clients),
  linePlot("Pings", "per second", (sample) => sample.pings),
  linePlot("Heartbeats", "per second", (sample) => sample.heartbeats),
  linePlot("Worst lateness", "", lateness, duration, logarithmic(0.0001, 0.01)),
  { title: "Refused or lost", unit: "per second", format: count, scale: logarithmic(1, 10),
    spikes: { refused: (sample) => sample.refused, dropped: (sample) => sample.receive_drops, unsent },
    value: (sample) => count(losses(sample)), note: () => `${count(sum(samples.map(losses)))} in the last ${spanText()}` },
];

for (const plot of plots) {
  const heading = createElement("h3", "", `${plot.title} `, createElement("span", "", plot.unit));
  plot.caption = createElement("figcaption", "", heading, createElement("p", "value"), createElement("p", "note"));
  plot.svg = createSvgElement("svg", { viewBox: `0 0 ${WIDTH} 100`, preserveAspectRatio: "none", role: "img" });
  plot.ticks = createElement("div");
  plot.ticks.ariaHidden = "true";
  document.querySelector(".axis").before(createElement("figure", "trace", plot.caption, createElement("div", "plot", plot.svg, plot.ticks)));
}
plots[0].caption.append(byId("capacity"));
plots.at(-1).caption.append(byId("keys"));

// Draws a plot up to the latest sample, and shows the values of the selected one.
function showPlot({ title, unit, line, spikes = {}, format, scale, value, note, caption, svg, ticks }, latest, selected) {
  const series = line ? [line] : Object.values(spikes);
  const top = scale.top(Math.max(0, ...series.flatMap((values) => samples.map(values))));
  const x = (time) => (WIDTH * (1 - (latest.time - time) / span())).toFixed(1);
  const y = (value) => (100 - 100 * scale.height(value, top)).toFixed(1);
  const marks = scale.marks(top);
  const step = span() / 10;
  const gridTimes = Array.from({ length: 10 }, (_, i) => (Math.floor(latest.time / step) - i) * step);
  const isGap = (before, after) => after.time - before.time > MAX_GAP;
  const setPath = (name, parts) => {
    const path = svg.querySelector(`.${name}`) ?? svg.appendChild(createSvgElement("path", { class: name }));
    path.setAttribute("d", parts.join(""));
  };

  const gaps = samples.slice(1).map((after, i) => [samples[i], after]).filter((pair) => isGap(...pair));
  setPath("gaps", gaps.map(([before, after]) => `M${x(before.time)} 0H${x(after.time)}V100H${x(before.time)}z`));
  setPath("grid", [...marks.map((mark) => `M0 ${y(mark)}H${WIDTH}`), ...gridTimes.map((time) => `M${x(time)} 0V100`)]);
  setPath("cursor", selectedTime === null ? [] : [`M${x(selectedTime)} 0V100`]);
  if (line) {
    const known = samples.filter((sample) => line(sample) !== null);
    const stroke = (sample, i) => (i && !isGap(known[i - 1], sample) ? ["L", ""] : ["M", "h0"]);
    setPath("line", known.map((sample, i) => stroke(sample, i).join(`${x(sample.time)} ${y(line(sample))}`)));
    setPath("tip", selected && line(selected) !== null ? [`M${x(selected.time)} ${y(line(selected))}h0`] : []);
  }
  for (const [name, values] of Object.entries(spikes)) {
    setPath(name, samples.filter(values).map((sample) => `M${x(sample.time)} 100V${y(values(sample))}`));
    setText(byId(name), selected ? count(values(selected)) : "no data");
  }

  while (ticks.children.length > marks.length) ticks.lastChild.remove();
  marks.forEach((mark, i) => {
    const tick = ticks.children[i] ?? ticks.appendChild(createElement("span", "tick"));
    tick.style.top = `${y(mark)}%`;
    setText(tick, mark ? format(mark) : "0");
  });
  setText(caption.querySelector(".value"), selected ? value(selected) : "no data");
  setText(caption.querySelector(".note"), note());
  svg.ariaLabel = `${title} ${unit}, last ${spanText()}: latest value ${value(latest)}, ${note()}`;
}

let selectedTime = null; // the time of the values shown, null for the latest

function showPlots() {
  const latest = samples.at(-1);
  if (!latest) return;
  if (selectedTime !== null) selectedTime = Math.max(selectedTime, latest.time - span());
  const selected = selectedTime === null ? latest : samples.find(({ time }) => Math.abs(time - selectedTime) <= 0.6);
  const ago = selectedTime === null ? 0 : Math.round(latest.time - selectedTime);
  const end = connected ? "now" : time(latest.time);
  const agoText = connected ? `${duration(ago)} ago` : `${duration(ago)} before ${end}`;
  plots.forEach((plot) => showPlot(plot, latest, selected));
  byId("capacity").style.visibility = ago ? "hidden" : ""; // it shows only the latest values
  setText(byId("sheet-title"), `The last ${spanText()}`);
  byId("moment").min = -span();
  byId("moment").value = -ago;
  byId("moment").ariaValueText = ago ? agoText : end;
  setText(byId("moment-words"), ago ? `Values at ${time(selectedTime)}, ${agoText}` : "");
  setText(byId("axis-start"), time(latest.time - span()));
  setText(byId("axis-end"), end);
}

function selectTime(secondsAgo) {
  selectedTime = secondsAgo < 1 || !samples.length ? null : samples.at(-1).time - secondsAgo;
  showPlots();
}

byId("moment").addEventListener("input", ({ target }) => selectTime(-target.value));
byId("sheet").addEventListener("pointermove", ({ pointerType, target, clientX }) => {
  const { left, width } = plots[0].svg.getBoundingClientRect();
  if (pointerType === "mouse" && target !== byId("moment") && clientX >= left) selectTime(span() * (1 - (clientX - left) / width));
});
byId("sheet").addEventListener("pointerleave", ({ pointerType }) => { if (pointerType === "mouse") selectTime(0); });
