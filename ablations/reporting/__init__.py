"""From records to what is published: tables in Markdown, CSV and JSON, with verdicts on the claims."""

from ablations.reporting.overview import Overview, overview
from ablations.reporting.tables import Context, StudyTable, study_table, write_reports

__all__ = ["Context", "Overview", "StudyTable", "overview", "study_table", "write_reports"]
