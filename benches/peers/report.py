"""Tables in Markdown and a chart in SVG, from the results alone."""

from html import escape
from statistics import median

import latency
from rows import FLOOR, FLOORS, OURS, PEERS, ROWS

NOISE = 0.03
# From this share of the machine's CPU time on, other processes have spoilt a measurement.
DISTURBED = 0.05


def values(results, row, peer, metric, part=""):
    runs = results["rows"].get(row["key"], {}).get(peer, {}).get(part, [])
    return [run[metric] for run in runs if run.get(metric) is not None]


def middle(results, row, peer, metric, part=""):
    found = values(results, row, peer, metric, part)
    return median(found) if found else None


def spread(found):
    """Half of what lies between the smallest and the largest, relative to the median."""
    return (max(found) - min(found)) / 2 / median(found) if len(found) > 1 and median(found) else 0


def digits(value):
    if value is None:
        return "-"
    if value == int(value) or abs(value) >= 1000:
        return f"{value:,.0f}"
    if abs(value) >= 100:
        return f"{value:.0f}"
    if abs(value) >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if abs(value) >= 1 else f"{value:.3f}"


def cell(results, row, peer, metric, part=""):
    found = values(results, row, peer, metric, part)
    if not found:
        return "**failed**" if peer in results["measured"][row["key"]]["peers"] else "-"
    text = digits(median(found))
    return f"{text} ±{spread(found) * 100:.0f} %" if len(found) > 1 else text


def verdict(value, target):
    """Our ratio, what was asked for, and by how much it is missed."""
    if value is None:
        return "-"
    if target is None:
        return f"{value:.2f}"
    if value <= target:
        return f"{value:.2f} (≤ {target:.2f})"
    over = value / target - 1
    missed = f"missed by {over * 100:.0f} %"
    return f"{value:.2f} (≤ {target:.2f}: {missed if over > NOISE else missed + ', within noise'})"


def best_peer(results, row, metric, part=""):
    found = {
        peer: middle(results, row, peer, metric, part) for peer in results["peers"] if peer not in (*FLOORS, OURS)
    }
    found = {peer: value for peer, value in found.items() if value is not None}
    return min(found.items(), key=lambda item: item[1]) if found else (None, None)


def against(results, row, metric, part=""):
    """Our ratios to the floor and to the best peer (and who that is)."""
    ours = middle(results, row, OURS, metric, part)
    floor = middle(results, row, FLOOR, metric, part)
    name, best = best_peer(results, row, metric, part)
    to_floor = ours / floor if ours is not None and floor else None
    to_best = ours / best if ours is not None and best else None
    return to_floor, to_best, name


def markdown(head, lines):
    out = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(out + ["| " + " | ".join(line) + " |" for line in lines])


def tables(results):
    peers = results["peers"]
    names = [PEERS[peer]["name"] for peer in peers]
    rows = [row for row in ROWS if row["key"] in results["rows"]]
    ours = OURS in peers
    parts = []

    parts.append(
        f"Measured on {results['machine']}, ± half of the range. The server's CPU time, user and system; server and load "
        "generator on a core each; differences below 3 % are noise."
    )
    parts.append("\n".join(f"* {line}" for line in measurements(results, rows)))
    if results["note"]:
        parts.append(results["note"])
    for peer, why in results["missing"].items():
        parts.append(f"**{PEERS[peer]['name']} is MISSING: {why}.**")
    versions = [f"{PEERS[peer]['name']} {results['versions'][peer]}" for peer in peers if peer in results["versions"]]
    if versions:
        parts.append("Versions: " + ", ".join(versions) + ".")

    lines = []
    for row in rows:
        if row["kind"] == "work":
            to_floor, to_best, name = against(results, row, "cpu_us_per_unit")
            line = [row["title"], *(cell(results, row, peer, "cpu_us_per_unit") for peer in peers)]
            line.append(verdict(to_floor, row["floor"]))
            who = f" {PEERS[name]['name']}" if name and to_best is not None else ""
            line.append(verdict(to_best, row["best"]) + who)
            lines.append(line if ours else line[:-2])
        elif row["kind"] == "memory":
            for metric, text, limit in row["metrics"]:
                value = middle(results, row, OURS, metric)
                line = [f"{row['title']}, {text}", *(cell(results, row, peer, metric) for peer in peers)]
                if ours:
                    met = "-" if value is None or limit is None else "met" if value <= limit else "missed"
                    line += [f"≤ {limit} {row['unit']}: {met}" if limit else "-", "-"]
                lines.append(line)
    if lines:
        head = ["CPU µs per unit of work", *names]
        if ours:
            head += ["adjourn / bare mio", "adjourn / best peer"]
        parts.append(markdown(head, lines))

    parts += sweeps(results, rows, peers, names)
    parts += ratios(results, rows, peers, names)
    parts += workers(results, rows)
    for row in rows:
        if row["kind"] == "latency":
            parts.append(latency.table(results, row, markdown))
        elif row["kind"] == "facts":
            parts.append(facts(results, row))
        elif row["kind"] == "instructions":
            parts.append(instructions(results, row))
    parts = [part for part in parts if part]
    if results["failures"]:
        parts.append("Failed runs:\n\n" + "\n".join(f"* {text}" for text in results["failures"]))
    return "\n\n".join(parts) + "\n"


def measurements(results, rows):
    """Which rows were measured when, and by which command."""
    groups = {}
    for row in rows:
        one = results["measured"][row["key"]]
        runs = "one round" if one["rounds"] == 1 else f"medians of {one['rounds']} alternating rounds"
        said = f"{one['date']}, by `{one['command']}`, {runs} of {one['secs']:g} s"
        groups.setdefault(said, []).append(row["key"])
    lines = []
    for said, keys in groups.items():
        shares = [results["measured"][key].get("others") for key in keys]
        lines.append(f"{said}{disturbed(shares)}: {', '.join(f'`{key}`' for key in keys)}")
    return lines


def disturbed(shares):
    """What else the machine did during these measurements; None where nobody looked."""
    shares = [share for share in shares if share is not None]
    if not shares:
        return ""
    text = f"other processes took {max(shares) * 100:.0f} % of the machine's CPU time at most"
    return f", **{text}**" if max(shares) > DISTURBED else f", {text}"


def facts(results, row):
    """A table of its own: a line for each fact, a column for each part of each peer."""
    runs = results["rows"][row["key"]]
    columns = [(peer, one["name"]) for peer in results["peers"] for one in row["parts"] if runs.get(peer, {}).get(one["name"])]
    if not columns:
        return None
    several = len({peer for peer, _ in columns}) > 1
    head = [""] + [" ".join(filter(None, [PEERS[peer]["name"] if several or not name else "", name])) for peer, name in columns]
    lines = []
    for text, metric in row["facts"]:
        lines.append([text] + [digits(middle(results, row, peer, metric, name)) for peer, name in columns])
    return f"{row['title'][0].upper()}{row['title'][1:]}:\n\n{markdown(head, lines)}"


def instructions(results, row):
    counts = results["rows"][row["key"]].get(OURS, {}).get("", [{}])[0]
    sizes = list(dict.fromkeys(name.rsplit(":", 1)[1] for name in counts))
    kinds = dict.fromkeys(name.rsplit(":", 1)[0] for name in counts)
    if not sizes:
        return None
    head = ["", *(f"{int(size):,}" for size in sizes)]
    lines = [[kind, *(digits(counts.get(f"{kind}:{size}")) for size in sizes)] for kind in kinds]
    return f"{row['title'][0].upper()}{row['title'][1:]}:\n\n{markdown(head, lines)}"


def sweeps(results, rows, peers, names):
    lines = []
    for row in rows:
        if row["key"] == "sweep":
            lines.append(
                ["10,000 polite: last Close, exit (≤ 100, ≤ 250 ms)"]
                + [both(results, row, peer, "last_close_ms", "exit_ms") for peer in peers]
            )
        elif row["kind"] == "sweep":
            lines.append([row["title"], *(ending(results, row, peer) for peer in peers)])
    if not lines:
        return []
    return ["How the shutdowns went:", markdown(["SIGTERM", *names], lines)]


def both(results, row, peer, first, second):
    one, two = middle(results, row, peer, first), middle(results, row, peer, second)
    return "-" if one is None or two is None else f"{one:.0f} ms, {two:.0f} ms"


def ending(results, row, peer):
    """The worst of all rounds: a promise that is kept four times out of five is not kept."""
    runs = results["rows"][row["key"]].get(peer, {}).get("", [])
    if not runs:
        return "-"
    everybody = all(run["going_away"] == run["units"] for run in runs)
    notified = "all got 1001" if everybody else f"**{min(run['going_away'] for run in runs):.0f} got 1001**"
    cut = max(run["reset_before_close"] + run["eof_before_close"] for run in runs)
    resets = "" if cut == 0 else f", **{cut:.0f} cut off before it**"
    exit_ms = max(run["exit_ms"] for run in runs)
    delivered = ""
    if runs[0]["messages_sent"]:
        share = min(run["messages_delivered"] / run["messages_sent"] for run in runs)
        delivered = "everything delivered, " if share >= 1 else f"**{share * 100:.0f} % delivered**, "
    grace = row["grace_ms"]
    late = f" (**{(exit_ms / grace - 1) * 100:.1f} % late**)" if exit_ms > grace * 1.01 else ""
    return f"{delivered}{notified}{resets}, exit {exit_ms:.0f} ms{late}"


def ratios(results, rows, peers, names):
    lines = []
    for row in rows:
        if row["kind"] != "ratio":
            continue
        line = [f"{row['title']} (≤ {row['limit']:.2f})"]
        for peer in peers:
            low, high = (middle(results, row, peer, "cpu_us_per_unit", run["name"]) for run in row["parts"])
            line.append("-" if not low or not high else f"{high / low:.2f} ({digits(low)} → {digits(high)})")
        # The kernel itself pays more for many sockets than for few (caches), so the floor's own growth stands beside.
        grown = [growth(results, row, peer) for peer in (OURS, FLOOR)]
        line.append(f"{grown[0] / grown[1]:.2f}" if all(grown) else "-")
        lines.append(line if OURS in peers else line[:-1])
    last = ["adjourn's growth / bare mio's"] if OURS in peers else []
    return ["What must not grow:", markdown(["CPU per unit", *names, *last], lines)] if lines else []


def growth(results, row, peer):
    low, high = (middle(results, row, peer, "cpu_us_per_unit", run["name"]) for run in row["parts"])
    return high / low if low and high else None


def workers(results, rows):
    for row in rows:
        if row["kind"] == "workers" and OURS in results["rows"][row["key"]]:
            one, two = (middle(results, row, OURS, "units_per_sec", run["name"]) for run in row["parts"])
            busy = middle(results, row, OURS, "client_busy", "two")
            if one and two:
                return [
                    f"Two workers against one: {two / one:.2f} times the echoes per second (target {row['limit']}; "
                    f"the load generator was {busy * 100:.0f} % busy). With fewer than three cores the load "
                    "generator shares a core with the second worker, and this number means nothing."
                ]
    return []


# The chart. One colour for text that reads on white and on black, no background of its own.
TEXT = "#6e7781"
OUR_BAR = "#e36209"
FLOOR_BAR = "#8c959f"
BAR = "#4184c4"
WIDTH, COLUMNS, LINE, CUT = 960, 3, 17, 4.0


def chart(results):
    rows = [row for row in ROWS if row["key"] in results["rows"] and row["kind"] in ("work", "memory")]
    panels = [panel for panel in (bars(results, row) for row in rows) if panel[1]]
    columns = max(1, min(COLUMNS, len(panels)))
    width = WIDTH / COLUMNS
    body, top, tallest = [], 52, 0
    for index, (title, unit, lines) in enumerate((title, unit, lines) for title, lines, unit in panels):
        if index and index % columns == 0:
            top += tallest + 26
            tallest = 0
        left = 12 + (index % columns) * width
        body.append(panel(left, top, width - 20, title, unit, lines))
        tallest = max(tallest, 22 + LINE * len(lines))
    height = top + tallest + 34
    foot = f"{results['date']}, {results['machine']}. Bars longer than {CUT:g} times the shortest are cut."
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" '
        f'height="{height:.0f}" font-family="system-ui, sans-serif" font-size="11" fill="{TEXT}" role="img">\n'
        "<style>@media (prefers-color-scheme: dark) { svg { fill: #9ba4ae } }</style>\n"
        f"<title>adjourn beside its peers: CPU time of the server, shorter is better</title>\n"
        f'<text x="12" y="20" font-size="15" font-weight="600">CPU time of the server per unit of work</text>\n'
        f'<text x="12" y="37">shorter is better; × is the ratio to bare mio (or to the shortest bar without it)</text>\n'
        + "\n".join(body)
        + f'\n<text x="12" y="{height - 10:.0f}">{escape(foot)}</text>\n</svg>\n'
    )


def bars(results, row):
    metric = "cpu_us_per_unit" if row["kind"] == "work" else row["bar"]
    lines = []
    for peer in results["peers"]:
        value = middle(results, row, peer, metric)
        if value is not None:
            lines.append((peer, value))
    unit = "µs" if row["kind"] == "work" else row["unit"]
    return row["title"], lines, unit


def panel(left, top, width, title, unit, lines):
    label, number = 112, 84
    room = width - label - number
    values = [max(value, 0) for _, value in lines]
    shortest = min((value for value in values if value > 0), default=1)
    longest = min(max(values), shortest * CUT) or 1
    base = dict(lines).get(FLOOR) or shortest
    out = [f'<text x="{left:.1f}" y="{top + 10}" font-weight="600">{escape(title)}</text>']
    for index, (peer, value) in enumerate(lines):
        y = top + 18 + index * LINE
        share = min(max(value, 0) / longest, 1)
        colour = OUR_BAR if peer == OURS else FLOOR_BAR if peer in FLOORS else BAR
        weight = ' font-weight="600"' if peer == OURS else ""
        x = left + label
        end = max(share * room, 1)
        out.append(
            f'<text x="{x - 5:.1f}" y="{y + 10}" text-anchor="end"{weight}>{escape(PEERS[peer]["name"])}</text>'
            f'<rect x="{x:.1f}" y="{y + 1}" width="{end:.1f}" height="{LINE - 5}" rx="2" fill="{colour}"/>'
        )
        text = digits(value) + (f" µs ×{ratio(value / base)}" if unit == "µs" else f" {unit}")
        if value > longest * 1.001:
            # Two slanted strokes say that the bar goes on; they cut it open, whatever is under it.
            at = x + end - 14
            out.append(
                f'<path d="M{at:.1f} {y + LINE - 3} l5 -{LINE - 3} M{at + 5:.1f} {y + LINE - 3} l5 -{LINE - 3}" '
                f'stroke="{TEXT}" stroke-width="2"/>'
            )
        out.append(
            f'<text x="{x + end + 5:.1f}" y="{y + 10}"{weight}>{text}</text>'
        )
    return "\n".join(out)


def ratio(value):
    return f"{value:.2f}" if value < 10 else f"{value:,.0f}"
