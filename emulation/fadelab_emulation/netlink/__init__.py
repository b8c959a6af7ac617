"""Raw route netlink: only the messages that the links need, encoded by hand.

A live change of one shaper costs a few microseconds this way, against some hundred through a
general library; at ten changes per second on a thousand links that is the difference between a
punctual emulator and a late one.
"""
