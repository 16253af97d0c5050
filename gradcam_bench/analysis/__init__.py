"""Everything that is derived from stored rows: summary, intervals, tests, comparisons. No torch."""
