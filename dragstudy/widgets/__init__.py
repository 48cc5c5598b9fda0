"""Editing with the mouse: what is drawn, the session that carries it out, and the widgets that show both."""
