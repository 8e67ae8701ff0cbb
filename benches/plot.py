#!/usr/bin/env python3
"""Draws the reports of `wakeupd-bench --json` as one SVG on standard output.

    python3 benches/plot.py wakeupd='out/wakeupd-*.json' peer='out/peer-*.json' > docs/performance.svg

Of several reports of a series with the same number of clients the medians count.
"""

import glob
import json
import math
import statistics
import sys
from html import escape

COLOURS = ["#0b62d6", "#c2410c", "#15803d", "#7e22ce"]
ROUTES = {"loopback": "over loopback", "wire": "over a virtual wire", "target": "as it came"}
WIDTH, HEIGHT = 960, 420
TOP, BOTTOM = 78, 328
PANELS = [(72, 396), (536, 860)]


def series(arguments):
    """The reports of each series, by name and then by the number of clients."""
    found = {}
    for argument in arguments:
        name, _, pattern = argument.partition("=")
        paths = sorted(glob.glob(pattern))
        if not paths:
            sys.exit(f"plot.py: {argument}: no such reports\n{__doc__}")
        for path in paths:
            with open(path, encoding="utf-8") as file:
                report = json.load(file)
            found.setdefault(name, {}).setdefault(report["clients"], []).append(report)
    return found or sys.exit(__doc__)


def deviation(report):
    p99_9 = report["deviation_ms"]["p99_9"]
    return None if p99_9 is None else max(p99_9, 0.001)


def delivered(report):
    pings = report["pings"]
    if not pings["expected"]:
        return None
    return 100 * (pings["delivered"] - pings["duplicate"]) / pings["expected"]


def points(reports, value):
    """The medians, from the fewest clients to the most; what was not measured is left out."""
    for clients in sorted(reports):
        values = [v for v in map(value, reports[clients]) if v is not None]
        if values:
            yield clients, statistics.median(values)


def short(number):
    """1000 as 1k, and so on."""
    for size, unit in [(1_000_000, "M"), (1_000, "k")]:
        if number >= size:
            return f"{number / size:g}{unit}"
    return f"{number:g}"


def decades(values):
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return low, max(high, low + 1)


def text(x, y, content, anchor="middle", size=12, colour="#57606a", extra=""):
    return (f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" '
            f'fill="{colour}" {extra}>{escape(content)}</text>')


def line(x1, y1, x2, y2, colour="#d8dee4"):
    return f'<path d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}" stroke="{colour}"/>'


def panel(edges, title, unit, curves, x_range, ticks, y_of):
    """A frame with its axes and a curve for each series, named where it ends."""
    left, right = edges
    low, high = x_range
    yield text(left - 44, 36, title, "start", 15, "#1f2328", 'font-weight="600"')
    yield text(left - 44, 56, unit, "start")

    def x_of(clients):
        return left + (right - left) * (math.log10(clients) - low) / (high - low)

    for label, value in ticks:
        y = y_of(value)
        yield line(left, y, right, y)
        yield text(left - 8, y + 4, label, "end")
    for decade in range(low, high + 1):
        x = x_of(10**decade)
        yield line(x, TOP, x, BOTTOM)
        yield text(x, BOTTOM + 18, short(10**decade))
    yield line(left, BOTTOM, right, BOTTOM, "#57606a")
    yield text((left + right) / 2, BOTTOM + 38, "clients (logarithmic)")

    names = []
    # The first is on top, and what lies under it shows at its sides.
    for layer, (colour, (name, curve)) in reversed([*enumerate(zip(COLOURS, curves))]):
        places = [(x_of(clients), y_of(value)) for clients, value in curve]
        if not places:
            continue
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        yield f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="{2.5 + 3 * layer}"/>'
        for x, y in places:
            yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{3.5 + 2 * layer}" fill="{colour}"/>'
        names.insert(0, [*places[-1], name, colour])
    below = -math.inf
    for x, y, name, colour in sorted(names, key=lambda entry: entry[1]):
        below = max(y + 4, below + 15)
        yield text(x + 9, below, name, "start", 13, colour, 'font-weight="600"')


def draw(found):
    low_x, high_x = decades([clients for reports in found.values() for clients in reports])
    curves = [(name, list(points(reports, deviation))) for name, reports in found.items()]
    low, high = decades([value for _, curve in curves for _, value in curve] or [1])
    ticks = [(f"{10.0**decade:g}", 10.0**decade) for decade in range(low, high + 1)]
    scale = (BOTTOM - TOP) / (high - low)
    yield from panel(PANELS[0], "Deviation of the period from 1 s, p99.9", "ms (logarithmic)",
                     curves, (low_x, high_x), ticks, lambda value: BOTTOM - scale * (math.log10(value) - low))

    shares = [(name, list(points(reports, delivered))) for name, reports in found.items()]
    ticks = [(f"{share}", share) for share in range(0, 101, 20)]
    yield from panel(PANELS[1], "Pings delivered", "% of those expected", shares,
                     (low_x, high_x), ticks, lambda share: BOTTOM - (BOTTOM - TOP) * share / 100)


def main():
    found = series(sys.argv[1:])
    reports = [report for by_clients in found.values() for some in by_clients.values() for report in some]
    machines = sorted({f'{report["cores"]} cores, Linux {report["kernel"]}' for report in reports})
    routes = sorted({ROUTES[report["route"]] for report in reports})
    seconds = sorted({report["seconds"] for report in reports})
    caption = (f'Daemon and clients on the same machine ({"; ".join(machines)}), {" or ".join(routes)}, '
               f'each point measured for {" or ".join(map(str, seconds))} s')
    print(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
          f'font-family="-apple-system, Segoe UI, Helvetica, Arial, DejaVu Sans, sans-serif">')
    print(f'<rect x="0.5" y="0.5" width="{WIDTH - 1}" height="{HEIGHT - 1}" rx="10" fill="#ffffff" '
          f'stroke="#d0d7de"/>')
    print("\n".join(draw(found)))
    print(text(WIDTH / 2, HEIGHT - 18, caption))
    print("</svg>")


main()
