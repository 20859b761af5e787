"""One page for auditors and for print, which needs nothing else."""

from __future__ import annotations

from collections.abc import Iterator

from fleetscan.reports.report_format import CheckedRun, TextFormat


class Html(TextFormat):
    """The HTML report, as README.md describes it."""

    name = "html"
    help = "Write a self-contained HTML page; - prints it."
    suffix = ".html"
    media_type = "text/html"

    def pieces(self, run: CheckedRun) -> Iterator[str]:
        """The report in pieces."""
        from fleetscan.reports.html import render_html

        return render_html(
            run.connection,
            run.results,
            rules=run.rules,
            title=run.title,
            generated=run.generated,
            sections=run.sections,
        )


FORMAT = Html()
