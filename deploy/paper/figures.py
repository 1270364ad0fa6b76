"""The figures: networks in parts, their stages, their speed at several sizes."""

from deploy.bench import OURS
from deploy.paper import checks, findings, plot
from deploy.paper.cells import NONE, frames_per_s, giga, median_ms, mega
from deploy.paper.networks import absent
from deploy.paper.page import Page, newest, peers_of, why_not
from deploy.paper.parts import ENLARGED, OTHER, split, stages
from deploy.paper.records import Found, Record
from deploy.paper.views import View
from deploy.resolution import parse_resolution


def parts_figure(view: View) -> Page:
    """What backbone and head count for; nothing is measured."""
    page = Page(view, [
        "network", "input", "GMACs backbone", "GMACs head", "head's share", "Mparams backbone",
        "Mparams head", "head's share",
    ])  # fmt: skip
    shares = {}
    for row in view.rows:
        assert row.network is not None
        if why := absent(row.network):
            page.rows.append([row.label + page.mark(why), row.sizes[0], *[NONE] * 6])
            continue
        size = parse_resolution(row.sizes[0])
        backbone, head = shares[row.label] = split(row.network, size, row.classes)
        page.rows.append([
            row.label, row.sizes[0], giga(backbone.macs), giga(head.macs),
            f"{head.macs / (backbone.macs + head.macs):.0%}", mega(backbone.parameters),
            mega(head.parameters),
            f"{head.parameters / (backbone.parameters + head.parameters):.0%}",
        ])  # fmt: skip
    if shares:
        panels = {
            "GMACs": [[part.macs / 1e9 for part in parts] for parts in shares.values()],
            "parameters, millions": [[p.parameters / 1e6 for p in s] for s in shares.values()],
        }
        labels = list(shares)
        page.draw = lambda path: plot.stacks(path, view.title, labels, panels, ("backbone", "head"))
        page.findings += findings.of_parts(shares)
    return page


def stages_figure(view: View, found: Found) -> Page:
    """Where the time of a frame goes, by the profile."""
    records = [(row, job, newest(row, job, found)) for row in view.rows for job in view.jobs(row)]
    times = {
        (row.key, job): stages(record.result["profile"]["kernels"], job.resolution)
        for row, job, record in records
        if record and record.result
    }
    names = {name for own in times.values() for name in own}
    ordered = sorted(names - {ENLARGED, OTHER}, key=lambda name: int(name.partition("/")[2]))
    ordered += [name for name in (ENLARGED, OTHER) if name in names]
    page = Page(view, ["network", "input", "frame, ms", *(f"{name}, ms" for name in ordered)])
    shown: dict[str, dict[str, float]] = {}
    for row, job, record in records:
        own = times.get((row.key, job))
        cells = [NONE] * (1 + len(ordered))
        if own and record and record.result:
            cells = [f"{record.result['profile']['frame_ms']:.2f}"]
            cells += [f"{own[name]:.2f}" if name in own else NONE for name in ordered]
            shown[f"{row.label}, {job.resolution}"] = own
        else:
            cells[0] += page.mark(why_not(row, job, found))
        page.rows.append([row.label, str(job.resolution), *cells])
    page.checks += checks.of_records(
        {f"{row.label} {job.resolution}": record for row, job, record in records}
    )
    if shown:
        ms = [[own.get(name, 0.0) for name in ordered] for own in shown.values()]
        shares = [[100 * part / (sum(parts) or 1.0) for part in parts] for parts in ms]
        panels = {"ms of a frame": ms, "% of a frame": shares}
        labels = list(shown)
        page.draw = lambda path: plot.stacks(path, view.title, labels, panels, ordered)
        page.findings += findings.of_stages(shown)
    return page


def resolutions_figure(view: View, found: Found) -> Page:
    """Frames per second of each side, a column for each size."""
    sizes = list(dict.fromkeys(size for row in view.rows for size in row.sizes))
    page = Page(view, ["network", "FPS of", *sizes])
    lines: dict[tuple[str, str], list[tuple[float, float]]] = {}  # megapixels, milliseconds
    measured: dict[str, Record | None] = {}
    for row in view.rows:
        jobs = {str(job.resolution): job for job in view.jobs(row)}
        records = {size: newest(row, job, found) for size, job in jobs.items()}
        for side in [OURS, *peers_of(list(records.values()))]:
            cells, points = [], []
            for size in sizes:
                record = records.get(size)
                rounds = record.samples.get(side) if record else None
                if record and rounds:
                    cells.append(frames_per_s(rounds))
                    pixels = record.job.resolution.height * record.job.resolution.width
                    points.append((pixels / 1e6, median_ms(record, side) or 1.0))
                else:
                    why = why_not(row, jobs.get(size), found) if side == OURS else ""
                    cells.append(NONE + page.mark(why))
            page.rows.append([row.label, side, *cells])
            if points:
                lines[row.label, side] = sorted(points)
        measured |= {f"{row.label} {size}": record for size, record in records.items()}
    page.checks += checks.of_records(measured)
    if lines:
        drawn = {key: [(x, 1000 / ms) for x, ms in own] for key, own in lines.items()}
        page.draw = lambda path: plot.lines(
            path, view.title, drawn, "megapixels", "frames per second"
        )
        page.findings += findings.of_sizes(
            {label: own for (label, side), own in lines.items() if side == OURS}
        )
    return page
