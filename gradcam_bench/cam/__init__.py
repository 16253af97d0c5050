"""From a network to the maps of its layers: the class GradCAM, its hooks, methods and controls."""
