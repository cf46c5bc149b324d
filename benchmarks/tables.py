"""The report of benchmarks/bilevel.py as Markdown."""

from collections.abc import Iterable


def markdown(report: dict) -> str:
    """Headline figures, then one table per question."""
    return "\n\n".join(
        [
            f"{report['device']}, {report['cpu_threads']} CPU thread(s), torch {report['torch']}, "
            f"{report['rounds']} rounds; peers: "
            + ", ".join(
                [f"{label} {version}" for label, version in report["peers"].items()]
                + [f"{label} skipped: {why}" for label, why in report["skipped"].items()]
            ),
            _headline(report),
            "### The same hyper-gradient, in base steps of the same images\n\n"
            "float32 error: against the plain loop in float64. The peers run in NCHW, `exact` and `unroll` "
            "in channels-last; ReLUs that rounding flips magnify the error of either.\n\n" + _arms(report["rows"]),
            "### Solvers at K = 3, λ = 5\n\n" + _solvers(report["solvers"]),
            "### Agreement in float64, relative to the plain loop\n\n" + _agreement(report["agreement"]),
        ]
    )


def _headline(report: dict) -> str:
    rows = [
        ("exact solver, measured / bound", report["exact_over_bound"], ".2f"),
        ("the same, in base steps with torch's own layers", report["exact_over_bound_ordinary"], ".2f"),
        ("Betty / ours, both unrolled", report["betty_over_ours"], ".2f"),
        ("TorchOpt / ours, both unrolled", report["torchopt_over_ours"], ".2f"),
        ("plain loop / ours, both unrolled", report["plain_over_ours"], ".2f"),
        ("base step with torch's own layers / base step", report["ordinary_over_base"], ".2f"),
        ("relative error of the exact solver against the plain loop, largest", report["max_rel_error_exact"], ".1e"),
        ("the same on the timed networks", report["max_rel_error_exact_timed"], ".1e"),
        ("on the small ones against finite differences of J", report["max_rel_error_exact_slope"], ".1e"),
        ("memory of replay, K = 5 / K = 1", report["replay_memory_k5_over_k1"], ".2f"),
    ]
    return table(("figure", "value"), ((name, _number(value, form)) for name, value, form in rows))


def _arms(rows: list[dict]) -> str:
    head = (
        "net",
        "batch",
        "K",
        "λ",
        "M",
        "arm",
        "base step (ms)",
        "base steps",
        "bound",
        "time / exact",
        "time / unroll",
        "memory / base",
    )
    return table(
        (*head, "float32 error"),
        (
            (
                *(row[key] for key in ("net", "batch", "K", "lambda", "M", "arm")),
                *(_number(row["base_ms"], ".1f"), _number(row["ratio"], ".2f"), row["bound"] or "–"),
                *(
                    _number(row["over_exact"], ".2f"),
                    _number(row["over_unroll"], ".2f"),
                    _number(row["memory"], ".2f"),
                    _number(row["error"], ".0e"),
                ),
            )
            for row in rows
        ),
    )


def _solvers(rows: list[dict]) -> str:
    nets = list(next(row["errors"] for row in rows if "errors" in row))
    head = ("solver", "base steps", "bound", "memory / base", *(f"error, {net}" for net in nets))
    measured = [
        (
            *(row["solver"], _number(row["ratio"], ".2f"), row["bound"], _number(row["memory"], ".2f")),
            *(_error(row["errors"][net]) for net in nets),
        )
        for row in rows
        if "refused" not in row
    ]
    return table(
        head,
        [*measured, *((row["solver"], row["refused"], *["–"] * (len(head) - 2)) for row in rows if "refused" in row)],
    )


def _agreement(rows: list[dict]) -> str:
    head = ("net", "K", "λ", "M", "arm", "error", "slope against finite differences")
    keys = ("net", "K", "lambda", "M", "arm")
    return table(
        head,
        (
            (*(row[key] for key in keys), f"{row['rel_error']:.1e}", _number(row.get("rel_error_slope"), ".1e"))
            for row in rows
        ),
    )


def _error(found: dict) -> str:
    return "gives up" if "gives_up" in found else f"{found['rel_error']:.1e} (cos {found['cosine']:.4f})"


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def table(head: tuple[str, ...], rows: Iterable[tuple]) -> str:
    """A Markdown table."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
