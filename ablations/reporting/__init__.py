"""From records to what is published: tables, figures and pages, with the same bytes for the same records."""
