"""Tables, figures and the page: what analysis found, formatted. No torch."""
