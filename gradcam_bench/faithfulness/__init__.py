"""Does the class score follow the map? Deletion, insertion, average drop, ROAD; scorers."""
