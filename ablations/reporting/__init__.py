"""From records to what is published: tables in Markdown, CSV and JSON."""

from ablations.reporting.tables import StudyTable, study_table, write_reports

__all__ = ["StudyTable", "study_table", "write_reports"]
