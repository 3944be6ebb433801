# SPDX-License-Identifier: MIT
"""Tables and judgements: medians over the rounds, and each target with what was measured.

Ratios and differences are taken within a round, where both sides had the same machine, and the
median is of those.
"""
from statistics import median

DIRECT = "direct"
SIDECAR = "sidecar"
BARE = "bare relay"
GENERAL = ("nginx stream", "haproxy tcp")


class Results:
    """What the rounds gave: for each case and hop a list, one entry a round."""

    def __init__(self):
        self.runs = {}

    def add(self, case, hop, result):
        self.runs.setdefault((case, hop), []).append(result)

    def has(self, case, *hops):
        return all((case, hop) in self.runs for hop in hops)

    def values(self, case, hop, field):
        return [run[field] for run in self.runs[case, hop]]

    def median(self, case, hop, field):
        return median(self.values(case, hop, field))

    def ratio(self, field, over, under):
        """over and under: (case, hop)."""
        pairs = zip(self.values(*over, field), self.values(*under, field))
        return median(a / b if b else 0.0 for a, b in pairs)

    def added(self, field, of, to):
        return median(a - b for a, b in zip(self.values(*of, field), self.values(*to, field)))


def remarks(results, own):
    """What makes the other figures of a line worth little."""
    text = ""
    for field, what in (("starved", "clients had no answer"), ("errors", "connections failed")):
        value = results.median(*own, field)
        text += f"  {value:.0f} {what}" if value else ""
    return text


def print_small(results, case, hops):
    print(f"\n{case.title()}")
    print(f"  {'hop':<14}{'requests/s':>11}{'of direct':>11}{'p50 us':>9}{'added':>8}"
          f"{'p99 us':>9}{'added':>9}{'CPU s/100k':>12}")
    for hop in hops:
        if not results.has(case.name, hop):
            continue
        direct = (case.name, DIRECT)
        own = (case.name, hop)
        cpu = f"{results.median(*own, 'cpu_per_100k'):12.2f}" if hop != DIRECT else " " * 12
        print(f"  {hop:<14}{results.median(*own, 'per_second'):11.0f}"
              f"{results.ratio('per_second', own, direct):11.2f}"
              f"{results.median(*own, 'p50_us'):9.1f}{results.added('p50_us', own, direct):8.1f}"
              f"{results.median(*own, 'p99_us'):9.1f}{results.added('p99_us', own, direct):9.1f}"
              f"{cpu}{remarks(results, own)}".rstrip())


def print_big(results, hops):
    print("\nAn answer of 1 GiB in records of 65528 bytes, cheap responder")
    print(f"  {'hop':<14}{'GB/s':>11}{'of direct':>11}{'CPU s/GB':>12}")
    for hop in hops:
        own = ("big", hop)
        if results.has(*own):
            cpu = f"{results.median(*own, 'cpu_per_gb'):12.3f}" if hop != DIRECT else ""
            print(f"  {hop:<14}{results.median(*own, 'gb_per_second'):11.2f}"
                  f"{results.ratio('gb_per_second', own, ('big', DIRECT)):11.2f}{cpu}")


class Judge:
    """Prints targets; counts those missed."""

    def __init__(self, results):
        self.results = results
        self.missed = 0
        self.judged = 0

    def line(self, what, value, target, at_most=True, form="{:.2f}"):
        good = value <= target if at_most else value >= target
        self.judged += 1
        self.missed += not good
        bound = ("at most " if at_most else "at least ") + form.format(target)
        print(f"  {'ok    ' if good else 'missed'}  {form.format(value):>8}  {bound:<14}  {what}")

    def unkept(self, case):
        results = self.results
        own = (case.name, SIDECAR)
        if results.has(case.name, SIDECAR, BARE):
            self.line(f"{case.name}: CPU a request / bare relay's",
                      results.ratio("cpu_per_100k", own, (case.name, BARE)), 1.05)
        if not results.has(case.name, SIDECAR, *GENERAL):
            return
        ratios = [results.ratio("cpu_per_100k", own, (case.name, hop)) for hop in GENERAL]
        self.line(f"{case.name}: CPU a request / the better of nginx stream's and haproxy's",
                  max(ratios), 0.9)
        ratios = [results.ratio("per_second", own, (case.name, hop)) for hop in GENERAL]
        self.line(f"{case.name}: requests/s / the better of nginx stream's and haproxy's",
                  min(ratios), 1.0, at_most=False)

    def kept(self, case, unkept):
        results = self.results
        if not results.has(case.name, SIDECAR):
            return
        own = (case.name, SIDECAR)
        if results.has(unkept.name, BARE):
            bare = (unkept.name, BARE)
            self.line(f"{case.name}: CPU a request / bare relay's unkept",
                      results.ratio("cpu_per_100k", own, bare), 0.7)
            self.line(f"{case.name}: requests/s / bare relay's unkept",
                      results.ratio("per_second", own, bare), 1.3, at_most=False)
        if case.backend == "php" and case.clients > 1 and results.has(unkept.name, DIRECT):
            self.line(f"{case.name}: requests/s / direct unkept",
                      results.ratio("per_second", own, (unkept.name, DIRECT)), 1.0, at_most=False)

    def latency(self, unkept, kept):
        results = self.results
        if not results.has(unkept.name, SIDECAR, BARE, DIRECT):
            return
        direct = (unkept.name, DIRECT)
        bare = results.added("p50_us", (unkept.name, BARE), direct)
        own = results.added("p50_us", (unkept.name, SIDECAR), direct)
        self.line(f"{unkept.name}: added p50 / what the bare relay adds", own / bare, 1.1)
        if results.has(kept.name, SIDECAR):
            added = results.added("p50_us", (kept.name, SIDECAR), direct)
            self.line(f"{kept.name}: added p50 over direct unkept / the bare relay's unkept",
                      added / bare, 1.1)

    def big(self):
        if self.results.has("big", SIDECAR, DIRECT):
            own = ("big", SIDECAR)
            self.line("big: CPU seconds a GB", self.results.median(*own, "cpu_per_gb"), 0.15,
                      form="{:.3f}")
            self.line("big: throughput / direct",
                      self.results.ratio("gb_per_second", own, ("big", DIRECT)), 1.0,
                      at_most=False)
