"""What was measured, as it stands in the READMEs: tables in Markdown and a chart in SVG.

Reads bench/results/comparison.json and gateway.json, writes bench/results/chart.svg and chart-zh.svg,
and puts the tables between the marks of README.md and README-ZH.md.

    python bench/report.py
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "bench" / "results"
BEGIN, END = "<!-- bench: begin -->\n", "<!-- bench: end -->\n"
HEADLINE = ("zh30", 50)
COLOURS = {"fastapi": "#8c959f", "infinity": "#54aeff", "llmrs": "#1a7f37"}


class Language(NamedTuple):
    """The words of a README.

    `kinds` are the texts by their key, `rows` the names of the figures in the order of ROWS.
    """

    readme: str
    chart: str
    names: dict[str, str]
    kinds: dict[str, str]
    rows: tuple[str, ...]
    clients: str
    change: str
    rate: str
    title: str
    facts: str
    gateway: str


ROWS: tuple[tuple[str, str, float, int], ...] = (  # key, unit, factor, digits
    ("mean", " ms", 1e3, 1),
    ("p95", " ms", 1e3, 1),
    ("p99", " ms", 1e3, 1),
    ("min", " ms", 1e3, 1),
    ("max", " ms", 1e3, 1),
    ("rps", "", 1, 1),
    ("requests", "", 1, 0),
    ("memory_mb", " MB", 1, 0),
)

ENGLISH = Language(
    readme="README.md",
    chart="chart.svg",
    names={"fastapi": "FastAPI + sentence-transformers", "infinity": "Infinity", "llmrs": "llmrs"},
    kinds={"zh30": "30 Chinese characters", "en20": "English, 20 tokens", "en200": "English, 200 tokens"},
    rows=(
        "Average latency", "P95 latency", "P99 latency", "Min latency", "Max latency",
        "Requests per second", "Total requests", "Memory",
    ),
    clients="{} clients",
    change="llmrs against FastAPI",
    rate="Requests per second",
    title="Requests per second, one text per request, by number of clients",
    facts="{date}, {machine}; Python {python}, OpenVINO {openvino}, PyTorch {torch}, Infinity {infinity}.",
    gateway=(
        "As a gateway, before a backend that answers at once, on one core: {ours:,.0f} requests/s for "
        "{clients} clients and {added:.2f} ms more for one; LiteLLM {litellm}: {theirs:,.0f} requests/s "
        "(x{ratio:.0f}) and {theirs_added:.1f} ms."
    ),
)  # fmt: skip

CHINESE = Language(
    readme="README-ZH.md",
    chart="chart-zh.svg",
    names={"fastapi": "FastAPI + sentence-transformers", "infinity": "Infinity", "llmrs": "llmrs"},
    kinds={"zh30": "约三十个汉字", "en20": "英文，20 个 token", "en200": "英文，200 个 token"},
    rows=(
        "平均延迟", "P95 延迟", "P99 延迟", "最小延迟", "最大延迟", "每秒请求数", "总请求数", "内存",
    ),
    clients="{} 个客户端",
    change="llmrs 相对 FastAPI",
    rate="每秒请求数",
    title="每秒请求数（每个请求一条文本），按客户端数量",
    facts="{date}，{machine}；Python {python}，OpenVINO {openvino}，PyTorch {torch}，Infinity {infinity}。",
    gateway=(
        "作为网关（后端立即应答，单核）：{clients} 个客户端时每秒 {ours:,.0f} 个请求，"
        "单个客户端时增加 {added:.2f} ms；LiteLLM {litellm}：每秒 {theirs:,.0f} 个请求"
        "（llmrs 为其 {ratio:.0f} 倍），增加 {theirs_added:.1f} ms。"
    ),
)  # fmt: skip


def main() -> None:
    comparison, gateway = load("comparison"), load("gateway")
    for language in (ENGLISH, CHINESE):
        (RESULTS / language.chart).write_text(chart(comparison, language), encoding="utf-8")
        readme = ROOT / language.readme
        before, _, rest = readme.read_text(encoding="utf-8").partition(BEGIN)
        _, _, after = rest.partition(END)
        readme.write_text(
            before + BEGIN + section(comparison, gateway, language) + END + after, encoding="utf-8"
        )


def load(name: str) -> dict[str, Any]:
    results: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return results


# -- tables ---------------------------------------------------------------------------------------


def section(comparison: dict[str, Any], gateway: dict[str, Any], language: Language) -> str:
    """All that stands between the marks."""
    parts = (
        headline(comparison, language),
        [f"![{language.title}](bench/results/{language.chart})"],
        overview(comparison, language),
        [facts(comparison, language)],
        [gateway_line(gateway, language)],
    )
    return "\n\n".join("\n".join(lines) for lines in parts) + "\n"


def headline(comparison: dict[str, Any], language: Language) -> list[str]:
    """The mission's table: every figure of one cell."""
    results = cell(comparison, *HEADLINE)["results"]
    first = f"{language.kinds[HEADLINE[0]]}, {language.clients.format(HEADLINE[1])}"
    rows = []
    for name, (key, unit, factor, digits) in zip(language.rows, ROWS, strict=True):
        values = {service: results[service][key] * factor for service in language.names}
        ratio = values["llmrs"] / values["fastapi"]
        cells = [f"{value:,.{digits}f}{unit}" for value in values.values()]
        rows.append([name, *cells[:-1], f"**{cells[-1]}**", change(ratio)])
    return markdown([first, *language.names.values(), language.change], rows)


def overview(comparison: dict[str, Any], language: Language) -> list[str]:
    """Requests per second of every cell."""
    rows = []
    for each in comparison["cells"]:
        rates = {service: each["results"][service]["rps"] for service in language.names}
        name = f"{language.kinds[each['texts']]}, {language.clients.format(each['clients'])}"
        cells = [f"{rate:,.0f}" for rate in rates.values()]
        rows.append([name, *cells[:-1], f"**{cells[-1]}**", change(rates["llmrs"] / rates["fastapi"])])
    return markdown([language.rate, *language.names.values(), language.change], rows)


def facts(comparison: dict[str, Any], language: Language) -> str:
    versions = comparison["versions"]
    return language.facts.format(
        date=comparison["date"],
        machine=comparison["machine"],
        python=versions["llmrs"]["python"],
        openvino=versions["llmrs"]["openvino"],
        torch=versions["fastapi"]["torch"],
        infinity=versions["infinity"]["infinity-emb"],
    )


def gateway_line(gateway: dict[str, Any], language: Language) -> str:
    ours, theirs = gateway["results"]["llmrs"], gateway["results"]["litellm"]
    return language.gateway.format(
        clients=gateway["clients"], ours=ours["rps"], added=ours["added_ms"], ratio=gateway["ratio"],
        theirs=theirs["rps"], theirs_added=theirs["added_ms"],
        litellm=gateway["versions"]["litellm"]["litellm"],
    )  # fmt: skip


def cell(comparison: dict[str, Any], kind: str, clients: int) -> dict[str, Any]:
    found: dict[str, Any] = next(
        each for each in comparison["cells"] if (each["texts"], each["clients"]) == (kind, clients)
    )
    return found


def change(ratio: float) -> str:
    return f"x{ratio:.1f}" if ratio > 2 else f"{(ratio - 1) * 100:+.0f} %"


def markdown(header: list[str], rows: Iterable[list[str]]) -> list[str]:
    rule = ["---", *["---:"] * (len(header) - 1)]
    return ["| " + " | ".join(row) + " |" for row in (header, rule, *rows)]


# -- the chart ------------------------------------------------------------------------------------

WIDTH, HEIGHT = 860, 300
PANEL, BAR = 280, 24
TOP, BASE = 92, 250
STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#1f2328}.t{font-weight:600;font-size:14px}"
    ".v{font-size:10px;text-anchor:middle}.m{text-anchor:middle}line{stroke:#8c959f}"
    "@media(prefers-color-scheme:dark){text{fill:#e6edf3}}"
)


def chart(comparison: dict[str, Any], language: Language) -> str:
    """Requests per second as bars: a panel for each kind of text, with a scale of its own."""
    parts = [f'<text x="10" y="20" class="t">{language.title}</text>', *legend(language)]
    for number, (kind, name) in enumerate(language.kinds.items()):
        cells = [each for each in comparison["cells"] if each["texts"] == kind]
        parts += panel(10 + number * (PANEL + 5), name, cells, language.clients)
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">\n'
        f"<title>{language.title}</title>\n<style>{STYLE}</style>\n{body}\n</svg>\n"
    )


def legend(language: Language) -> list[str]:
    parts = []
    x = 10
    for service, name in language.names.items():
        parts.append(f'<rect x="{x}" y="34" width="12" height="12" fill="{COLOURS[service]}"/>')
        parts.append(f'<text x="{x + 18}" y="44">{name}</text>')
        x += 40 + 7 * len(name)
    return parts


def panel(left: int, name: str, cells: list[dict[str, Any]], clients: str) -> list[str]:
    highest = max(results["rps"] for each in cells for results in each["results"].values())
    scale: Callable[[float], float] = lambda rate: (BASE - TOP) * rate / highest  # noqa: E731
    parts = [f'<text x="{left + PANEL // 2}" y="{TOP - 24}" class="m">{name}</text>']
    for group, each in enumerate(cells):
        start = left + 8 + group * (PANEL // 3)
        for number, (service, colour) in enumerate(COLOURS.items()):
            rate = each["results"][service]["rps"]
            x, height = start + number * (BAR + 2), scale(rate)
            parts.append(
                f'<rect x="{x}" y="{BASE - height:.1f}" width="{BAR}" height="{height:.1f}" fill="{colour}"/>'
            )
            parts.append(f'<text x="{x + BAR // 2}" y="{BASE - height - 4:.1f}" class="v">{rate:,.0f}</text>')
        middle = start + (3 * BAR + 4) // 2
        parts.append(f'<text x="{middle}" y="{BASE + 18}" class="m">{clients.format(each["clients"])}</text>')
    parts.append(f'<line x1="{left}" y1="{BASE}" x2="{left + PANEL - 10}" y2="{BASE}"/>')
    return parts


if __name__ == "__main__":
    main()
