"""Medians, ratios, the Markdown table and the thresholds of --check."""

import os
import re
import statistics
from collections import namedtuple

from . import procs

Metric = namedtuple("Metric", "key title unit digits")

METRICS = [
    Metric("bulk_down", "bulk down (backend → visitor)", "Gbit/s", 2),
    Metric("bulk_up", "bulk up (visitor → backend)", "Gbit/s", 2),
    Metric("cpu_per_gb", "CPU of the tunnel, bulk both ways", "s/GB", 2),
    Metric("rps", "requests, 50 keep-alive connections", "1/s", 0),
    Metric("cps", "requests, a new connection each", "1/s", 0),
    Metric("p50_ms", "latency beside two bulk downloads, p50", "ms", 2),
    Metric("p99_ms", "latency beside two bulk downloads, p99", "ms", 2),
    Metric("beside_gbit", "bulk down during the latency run", "Gbit/s", 2),
    Metric("rest_mib", "memory at rest", "MiB", 1),
    Metric("idle_kib", "memory per idle connection", "KiB", 1),
]

# metric, "at least" or "at most", ratio to the baseline
CHECKS = [
    ("bulk_down", "at least", 0.9),
    ("bulk_up", "at least", 0.9),
    ("rps", "at least", 1.3),
    ("cps", "at least", 1.0),
    ("p99_ms", "at most", 1.0),
]


def values(rounds, candidate, metric):
    found = (one.get(candidate, {}).get(metric) for one in rounds)
    return [value for value in found if value is not None]


def ratios(rounds, candidate, baseline, metric):
    """One ratio for each round in which both were measured."""
    found = []
    for one in rounds:
        ours, theirs = (one.get(key, {}).get(metric) for key in (candidate, baseline))
        if ours is not None and theirs:
            found.append(ours / theirs)
    return found


def spread(numbers, digits, suffix=""):
    if not numbers:
        return "–"
    low, middle, high = (f"{number:,.{digits}f}" for number in
                         (min(numbers), statistics.median(numbers), max(numbers)))
    return f"{middle}{suffix} ({low}–{high})" if len(numbers) > 1 else middle + suffix


def table(rounds, candidates, baseline):
    """Absolute numbers of each candidate, then each tunnel's ratios to the baseline."""
    compared = [one for one in candidates if one.tunnels and one.key != baseline.key]
    if baseline not in candidates:
        compared = []
    heads = ["", *(one.title for one in candidates),
             *(f"{one.title} ÷ {baseline.title}" for one in compared)]
    lines = ["| " + " | ".join(heads) + " |", "|---" + "|---:" * (len(heads) - 1) + "|"]
    for metric in METRICS:
        if not any(values(rounds, one.key, metric.key) for one in candidates):
            continue
        cells = [f"{metric.title}, {metric.unit}"]
        cells += [spread(values(rounds, one.key, metric.key), metric.digits)
                  for one in candidates]
        cells += [spread(ratios(rounds, one.key, baseline.key, metric.key), 2, "×")
                  for one in compared]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def summary(rounds, candidates, baseline):
    """The numbers of the table, for --json."""
    result = {}
    for one in candidates:
        for metric in METRICS:
            entry = {}
            for label, numbers in (
                    ("", values(rounds, one.key, metric.key)),
                    ("ratio_", ratios(rounds, one.key, baseline.key, metric.key))):
                if numbers and not (label and one.key == baseline.key):
                    entry |= {label + "median": statistics.median(numbers),
                              label + "min": min(numbers), label + "max": max(numbers)}
            if entry:
                result.setdefault(one.key, {})[metric.key] = entry
    return result


def check(rounds, candidate, baseline, failures):
    """(passed, lines) of --check: it requires all thresholds, and no failed measurement of the candidate."""
    titles = {metric.key: metric.title for metric in METRICS}
    passed, lines = True, []
    for metric, way, limit in CHECKS:
        found = ratios(rounds, candidate, baseline.key, metric)
        if len(found) < len(rounds) or not found:
            good, shown = False, f"measured in {len(found)} of {len(rounds)} rounds"
        else:
            ratio = statistics.median(found)
            good = ratio >= limit if way == "at least" else ratio <= limit
            shown = f"{ratio:.3f}× {baseline.title}"
        passed = passed and good
        lines.append(f"- {'ok' if good else 'FAIL'}: {titles[metric]}: {shown},"
                     f" required {way} {limit:g}×")
    ours = [failure for failure in failures if failure["candidate"] == candidate]
    if ours:
        passed = False
        lines.append(f"- FAIL: {len(ours)} measurements of {candidate} failed")
    return passed, lines


def machine(candidates, options):
    cpu = re.search(r"^model name\s*:\s*(.+)$", procs.read_text("/proc/cpuinfo"), re.M)
    first = {"nginx": ["nginx", "-v"], "wrk": ["wrk", "-v"], "iperf3": ["iperf3", "--version"]}
    found = {
        "cpu": cpu.group(1).strip() if cpu else os.uname().machine,
        "cores": len(os.sched_getaffinity(0)),
        "kernel": f"{os.uname().sysname} {os.uname().release}",
        "openssl": procs.run_text(["openssl", "version"]).split(" (")[0],
        "load_at_start": os.getloadavg()[0],
    }
    for name, argv in first.items():
        found[name] = procs.run_text(argv).split("\n")[0]
    found["wrk"] = found["wrk"].split(" Copyright")[0]
    found["candidates"] = {one.key: text for one in candidates
                           if (text := one.version(options))}
    return found


def machine_lines(found):
    tools = ", ".join(found[name] for name in ("iperf3", "wrk", "nginx") if found[name])
    lines = [f"- Machine: {found['cores']} × {found['cpu']}, {found['kernel']},"
             f" load {found['load_at_start']:.2f} at the start",
             f"- {found['openssl']}; {tools}"]
    lines += [f"- {key}: {text}" for key, text in found["candidates"].items()]
    return lines


def others_line(shares, disturbed):
    if not shares:
        return "- No measurements"
    count = sum(share > disturbed for share in shares)
    text = f"- Other processes used {statistics.mean(shares):.1%} of the CPU on average"
    return text + (f", more than {disturbed:.0%} in {count} of {len(shares)} measurements"
                   f" (at most {max(shares):.0%}): take those numbers with care" if count else "")
