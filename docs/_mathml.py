"""Formulas as MathML, which browsers draw by themselves: no script and no network."""

from docutils import nodes
from latex2mathml.converter import convert


def inline(self, node):
    """Write a formula in a line."""
    self.body.append(convert(node.astext()))
    raise nodes.SkipNode


def display(self, node):
    """Write a formula on lines of its own."""
    text = node.astext().strip()
    if "&" in text or "\\\\" in text:
        text = rf"\begin{{aligned}}{text}\end{{aligned}}"
    self.body.append(f'<div class="math">{convert(text, display="block")}</div>')
    raise nodes.SkipNode


def setup(app):
    """Register the renderer, as `html_math_renderer = "mathml"`."""
    app.add_html_math_renderer("mathml", (inline, None), (display, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
