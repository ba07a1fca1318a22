"""Tables to figures and the page."""
