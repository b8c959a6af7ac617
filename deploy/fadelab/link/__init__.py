"""Links on their own, for programs that know nothing of Fadelab.

:func:`fadelab.link.oneshot.run_behind_links` and :func:`fadelab.link.driving.drive_links` are what
the verbs of ``fadelab link`` call; both carry out a :class:`fadelab.link.job.LinkJob`.
"""
