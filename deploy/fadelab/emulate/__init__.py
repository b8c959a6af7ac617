"""Driving links of containers, network namespaces and interfaces that others have made.

:func:`fadelab.emulate.process.run_emulation` is what ``fadelab emulate`` calls; it carries out an
:class:`fadelab.emulate.config.EmulateFile`.
"""
