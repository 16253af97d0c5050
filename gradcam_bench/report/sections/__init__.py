"""What each section of the report's page shows, as plain data for the template."""
