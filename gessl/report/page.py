"""The page: one HTML file with everything inside it, safe against whatever a name may hold."""

import base64
import gzip
import hashlib
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from gessl.records.chain import chain
from gessl.report import facts, wording
from gessl.report.collect import Collected
from gessl.report.hypotheses import study_report
from gessl.report.lineage import Origin, origins
from gessl.report.overall import overall
from gessl.report.paper import PaperTable
from gessl.report.plan import ReportPlan
from gessl.report.style import CONTROLS, THEME, TREATMENTS, Drawing, crowded, inline
from gessl.report.tables import Table, heading, number
from gessl.report.verdict import RULE
from gessl.training.climb import MEANING

TEMPLATES = Path(__file__).parent / "templates"
# The same colours on a dark page, in the order of the light ones.
DARK_TREATMENTS = ("#5cb6e0", "#b991da", "#62bd98")
DARK_CONTROLS = ("#9aa4ad", "#dca845", "#d98a70", "#a3bf6b")


def render(
    plan: ReportPlan, collected: Collected, tables: list[Table], drawings: list[Drawing], paper: PaperTable | None
) -> str:
    """The HTML text; names, reasons and other strings from files are escaped, figures are our own SVG."""
    records = chain(record for made in collected.records.values() for record in made)
    environment, nodes = _environment(), origins(collected, records)
    script = (TEMPLATES / "page.js").read_text(encoding="utf-8")
    return environment.get_template("report.html.j2").render(
        plan=plan,
        style=Markup(_palette() + (TEMPLATES / "style.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        status=facts.status(plan, collected),
        matrix=facts.run_matrix(plan, collected),
        failures=facts.failures(collected),
        climbing=facts.climbing(collected),
        climbing_means=MEANING,
        verdicts=wording.verdicts(plan, tables),
        testing=wording.testing(tables),
        rule=RULE,
        study=study_report(plan, collected),
        comparisons=[(heading(pair), pair) for pair in plan.comparisons],
        overall=overall(plan, collected, tables),
        tables=tables,
        paper=paper,
        figures=list(map(_inlined, drawings)),
        protocols=list({table.protocol: table.card for table in tables}.items()),
        quotes=list(dict.fromkeys((quote.source, quote.address) for table in tables for quote in table.quotes)),
        cards=facts.data_cards(collected),
        views=facts.views(collected),
        settings=facts.settings(plan, collected),
        environments=facts.environments(record for record in records.values() if record),
        origins=nodes,
        packed=_packed(environment, nodes) if crowded(plan) else "",
    )


def _packed(environment: Environment, nodes: Sequence[Origin]) -> str:
    """The records of many runs, a dozenth of their size: the page's script unpacks them when somebody asks."""
    text = environment.get_template("records.html.j2").render(origins=nodes)
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


def _inlined(drawing: Drawing) -> dict[str, str]:
    return {
        "section": drawing.section,
        "name": drawing.name,
        "caption": drawing.caption,
        "svg": Markup(inline(drawing.svg, drawing.caption)),
    }


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": number,
        "duration": wording.duration,
        "count": wording.count,
        "cost": wording.cost,
        "intervals": wording.intervals,
    }
    return environment


def _palette() -> str:
    """CSS properties of the figures' colours for light and dark pages."""
    light = {name: colour for colour, name in THEME.items()} | {"paper": "var(--paper)"}
    dark = {"paper": "var(--paper)", "ink": "#e6e9ec", "muted": "#9aa4ad", "rule": "#3a4149"}
    dark |= {THEME[colour]: own for colour, own in zip(TREATMENTS, DARK_TREATMENTS, strict=True)}
    dark |= {THEME[colour]: own for colour, own in zip(CONTROLS, DARK_CONTROLS, strict=True)}

    def rule(colours: dict[str, str]) -> str:
        return ":root{" + ";".join(f"--fig-{name}:{colour}" for name, colour in colours.items()) + "}"

    return f"{rule(light)}\n@media (prefers-color-scheme: dark){{{rule(dark)}}}\n"
