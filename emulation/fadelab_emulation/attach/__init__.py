"""Links in networks that Fadelab did not make: containers, named namespaces, existing interfaces.

* :mod:`~fadelab_emulation.attach.places` opens network namespaces that the user has named;
* :mod:`~fadelab_emulation.attach.foreign_star` makes new links between them;
* :mod:`~fadelab_emulation.attach.attached` shapes interfaces that exist;
* :mod:`~fadelab_emulation.attach.journal` remembers what was made, so that it can be removed even
  after its maker was killed.
"""
