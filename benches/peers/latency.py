"""The latencies: a table, and the curves as SVG."""

from html import escape
from math import ceil, floor, log10
from statistics import median

from rows import FLOOR, OURS, PEERS

LOADS = (("at30", "30 %"), ("at60", "60 %"), ("at90", "90 %"))
# What a curve goes through: the share that took no longer, and its name.
POINTS = (
    (0.5, "p50"),
    (0.75, "p75"),
    (0.9, "p90"),
    (0.95, "p95"),
    (0.99, "p99"),
    (0.995, "p995"),
    (0.999, "p999"),
    (0.9999, "p9999"),
)
TEXT = "#6e7781"
COLOURS = {FLOOR: "#8c959f", OURS: "#e36209", "tungstenite": "#4184c4", "bun": "#2da44e"}
WIDTH, HEIGHT = 960, 400
TOP, BOTTOM, LEFT, GAP = 86, 62, 64, 38


def middle(results, row, peer, metric):
    runs = results["rows"].get(row["key"], {}).get(peer, {}).get("", [])
    found = [run[metric] for run in runs if run.get(metric) is not None]
    return median(found) if found else None


def time(us):
    if us is None:
        return "-"
    return f"{us:.0f}" if us < 10_000 else f"{us / 1000:,.0f} ms"


def table(results, row, markdown):
    """p50 / p99 / p99.9 at each load, beside what each server could do at most."""
    peers = [peer for peer in results["peers"] if results["rows"].get(row["key"], {}).get(peer)]
    if not peers:
        return None
    most = [middle(results, row, peer, "units_per_sec") for peer in peers]
    busy = [middle(results, row, peer, "server_busy") for peer in peers]
    lines = [["at most: echoes a second"] + [f"{value:,.0f}" if value else "-" for value in most]]
    lines.append(["the server was then busy"] + [f"{value * 100:.0f} %" if value else "-" for value in busy])
    for load, text in LOADS:
        cells = []
        for peer in peers:
            values = [middle(results, row, peer, f"{load}_{name}_us") for name in ("p50", "p99", "p999")]
            cells.append(" / ".join(time(value) for value in values))
        lines.append([f"at {text} of it: p50 / p99 / p99.9", *cells])
    lines.append(
        ["load generator's own delay at 90 %: p50 / p99"]
        + [
            " / ".join(time(middle(results, row, peer, f"at90_late_{name}_us")) for name in ("p50", "p99"))
            for peer in peers
        ]
    )
    head = ["µs", *(PEERS[peer]["name"] for peer in peers)]
    words = (
        f"Latency, {row['title']}. Open loop: messages leave by the clock at a fixed rate, at a share of what that server did "
        "at most with one in flight on each connection; a message that could not leave in time counts from when it was due."
    )
    return f"{words}\n\n{markdown(head, lines)}"


def chart(results, row):
    """Three panels, one for each load; percentiles from left to right, time upwards, both logarithmic."""
    curves = {}
    for peer in results["peers"]:
        for load, _ in LOADS:
            points = [(share, middle(results, row, peer, f"{load}_{name}_us")) for share, name in POINTS]
            points = [(share, us) for share, us in points if us]
            if points:
                curves[peer, load] = points
    if not curves:
        return None
    every = [us for points in curves.values() for _, us in points]
    low, high = floor(log10(min(every)) * 2) / 2, ceil(log10(max(every)) * 2) / 2
    peers = [peer for peer in results["peers"] if any(key[0] == peer for key in curves)]
    wide = (WIDTH - LEFT - 16 - GAP * (len(LOADS) - 1)) / len(LOADS)

    def up(us):
        return HEIGHT - BOTTOM - (log10(us) - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    def along(left, share):
        first, last = -log10(1 - POINTS[0][0]), -log10(1 - POINTS[-1][0])
        return left + 8 + (-log10(1 - share) - first) / (last - first) * (wide - 16)

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'font-family="system-ui, sans-serif" font-size="11" fill="{TEXT}" role="img">',
        "<style>@media (prefers-color-scheme: dark) { svg { fill: #9ba4ae } }</style>",
        "<title>Latency of an echo by percentile, at 30, 60 and 90 % of what each server can do</title>",
        '<text x="12" y="20" font-size="15" font-weight="600">How long an echo takes, by how busy the server is</text>',
        '<text x="12" y="37">lower is better; both axes are logarithmic; waiting for a late server counts</text>',
    ]
    x = 12
    for peer in peers:
        name = escape(PEERS[peer]["name"])
        colour, weight = COLOURS.get(peer, TEXT), ' font-weight="600"' if peer == OURS else ""
        out.append(f'<rect x="{x}" y="48" width="18" height="4" rx="2" fill="{colour}"/>')
        out.append(f'<text x="{x + 23}" y="54"{weight}>{name}</text>')
        x += 23 + 7 * len(name) + 22
    for index, (load, text) in enumerate(LOADS):
        left = LEFT + index * (wide + GAP)
        out.append(
            f'<text x="{left + wide / 2:.0f}" y="{TOP - 10}" text-anchor="middle" font-weight="600">'
            f"at {text} of its own most</text>"
        )
        for decade in range(floor(low), ceil(high) + 1):
            for factor in (1, 2, 5):
                us = factor * 10**decade
                if not 10**low * 0.999 <= us <= 10**high * 1.001:
                    continue
                opacity = 0.5 if factor == 1 else 0.18
                out.append(
                    f'<path d="M{left:.1f} {up(us):.1f}h{wide:.1f}" stroke="{TEXT}" stroke-width="0.7" opacity="{opacity}"/>'
                )
                if index == 0:
                    label = f"{us:g} µs" if us < 1000 else f"{us / 1000:g} ms"
                    out.append(f'<text x="{left - 6}" y="{up(us) + 4:.1f}" text-anchor="end">{label}</text>')
        for share, label in ((0.5, "50 %"), (0.9, "90"), (0.99, "99"), (0.999, "99.9"), (0.9999, "99.99")):
            at = along(left, share)
            out.append(
                f'<path d="M{at:.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="{TEXT}" stroke-width="0.7" opacity="0.18"/>'
                f'<text x="{at:.1f}" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle">{label}</text>'
            )
        out.append(
            f'<text x="{left + wide / 2:.0f}" y="{HEIGHT - BOTTOM + 30}" text-anchor="middle">of all echoes took no longer</text>'
        )
        # Ours last, so that it lies on top.
        for peer in sorted(peers, key=lambda peer: peer == OURS):
            points = curves.get((peer, load))
            if points:
                path = " ".join(f"{along(left, share):.1f},{up(us):.1f}" for share, us in points)
                thick = 2.6 if peer == OURS else 1.8
                out.append(
                    f'<polyline points="{path}" fill="none" stroke="{COLOURS.get(peer, TEXT)}" stroke-width="{thick}" '
                    'stroke-linejoin="round" stroke-linecap="round"/>'
                )
    out.append(f'<text x="12" y="{HEIGHT - 10}">{escape(results["date"])}, {escape(results["machine"])}</text>')
    return "\n".join(out) + "\n</svg>\n"
