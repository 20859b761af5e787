"""Every row, for programs."""

from __future__ import annotations

from collections.abc import Iterator

from fleetscan.reports.report_format import CheckedRun, TextFormat


class Json(TextFormat):
    """The JSON report, as README.md describes it."""

    name = "json"
    help = "Write JSON for programs; - prints it."
    suffix = ".json"
    media_type = "application/json"

    def pieces(self, run: CheckedRun) -> Iterator[str]:
        """The report in pieces."""
        from fleetscan.reports.json_report import render_json

        return render_json(
            run.connection,
            run.results,
            rules=run.rules,
            title=run.title,
            generated=run.generated,
            sections=run.sections,
        )


FORMAT = Json()
