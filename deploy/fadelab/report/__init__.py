"""From a summary, a manifest and a link schedule to one self-contained ``report.html``.

``fadelab.report.write`` loads matplotlib; ``fadelab.report.model`` does not. Import what you need.
"""
