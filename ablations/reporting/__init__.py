"""From records to what is published: tables, figures and pages, the same bytes for the same records."""

from .overview import Overview, overview
from .tables import Context, StudyTable, study_table

__all__ = ["Context", "Overview", "StudyTable", "overview", "study_table"]
