"""Puts the results where readers look: a short table into README.md, all tables and the pictures into docs/."""

import latency
import report
from rows import OURS, PEERS, ROWS

# README has few rows: what is measured, as a stranger would say it, and where it is found.
SHORT = (
    ("echo-64-deep", "echo of 125 B, busy", "cpu_us_per_unit", "µs"),
    ("echo-512-deep", "echo of 1 KiB, busy", "cpu_us_per_unit", "µs"),
    ("accept", "a new connection", "cpu_us_per_unit", "µs"),
    ("broadcast-burst", "one delivery of a broadcast to 2,000", "cpu_us_per_unit", "µs"),
    ("memory", "memory of a quiet connection", "bytes_exchanged", "bytes"),
)
NAMED = ("tokio-tungstenite", "bun", "ws")


def publish(results, root):
    # A table with gaps is not put into README.md.
    if all(results["rows"].get(key, {}).get(OURS) for key, *_ in SHORT):
        replace(root / "README.md", short(results))
    (root / "docs" / "performance.svg").write_text(report.chart(results))
    pictures = "The picture of the first table is `performance.svg` beside this page"
    for row in ROWS:
        curves = latency.chart(results, row) if row["kind"] == "latency" else None
        if curves:
            (root / "docs" / "latency.svg").write_text(curves)
            pictures += ", that of the latencies `latency.svg`"
    replace(root / "docs" / "performance.md", f"{report.tables(results)}\n{pictures}.")


def replace(page, text):
    """What stands between the two comments is ours."""
    begin, end = "<!-- written by benches/peers/run --write -->", "<!-- end -->"
    before, rest = page.read_text().split(begin, 1)
    after = rest.split(end, 1)[1]
    page.write_text(f"{before}{begin}\n\n{text.strip()}\n\n{end}{after}")


def short(results):
    named = [peer for peer in NAMED if peer in results["peers"]]
    lines, dates = [], []
    for key, title, metric, unit in SHORT:
        row = next(row for row in ROWS if row["key"] == key)
        ours = report.middle(results, row, OURS, metric)
        cells = [f"**{report.digits(ours)} {unit}**"]
        for peer in named:
            value = report.middle(results, row, peer, metric)
            cells.append(f"{report.digits(value)} ({value / ours:.1f} ×)" if value else "-")
        _, to_best, best = report.against(results, row, metric)
        cells.append(f"{report.digits(ours / to_best)} ({PEERS[best]['name']})" if to_best else "-")
        lines.append([title, *cells])
        dates.append(results["measured"][key]["date"][:10])
    head = ["what it costs the server: CPU time, memory", "adjourn", *(PEERS[peer]["name"] for peer in named), "the best other"]
    return report.markdown(head, lines) + f"\n\nMedians, measured {max(dates)} side by side."
