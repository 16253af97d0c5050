"""From heatmaps to boxes and back to what is annotated: protocols, boxes, thresholds, masks."""
