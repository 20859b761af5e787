"""Renderers: from results and facts to documents."""
